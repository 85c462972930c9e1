"""Latency by a model: what an inference consists of, what that costs, and the fit to measured files."""
