"""Benchmarks of system: see ../README.md."""
