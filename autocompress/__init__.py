"""Search per-layer sparsity, bit-width and cluster count; return the Pareto front as verified `.tflite` files."""

__version__ = "0.1.0"
