"""Benchmarks of latency: see ../README.md."""
