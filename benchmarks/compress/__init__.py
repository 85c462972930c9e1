"""Benchmarks of compress: see ../README.md."""
