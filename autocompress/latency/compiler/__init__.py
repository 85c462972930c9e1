"""Latency, flash and RAM by the estimate of the vendor's own compiler for exactly one file."""
