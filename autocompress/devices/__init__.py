"""Devices: probing their kernels, calibrating a latency model for them, measuring one file there."""
