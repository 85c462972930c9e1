"""Benchmarks of search: see ../README.md."""
