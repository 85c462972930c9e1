"""Benchmarks of finetune: see ../README.md."""
