"""Benchmarks of report: see ../README.md."""
