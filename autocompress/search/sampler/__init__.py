"""Samplers: the guided one (encoding, surrogate, acquisition) and those of Optuna."""
