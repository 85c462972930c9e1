"""Nightly sweeps: cells, nights, verdicts."""
