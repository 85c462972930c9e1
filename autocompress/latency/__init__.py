"""Latency of a file: measured on a device, or by its model."""
