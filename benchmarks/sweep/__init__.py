"""Benchmarks of sweep: see ../README.md."""
