"""Benchmarks of tasks: see ../README.md."""
