"""The divergence of a compressed network's outputs from the float network's: sensitivity without labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from autocompress.network.tflite.outputs import FIRST, Signature

Array = np.ndarray[Any, Any]
_CONSTANT = 1e-12  # of its mean square: an output that varies less is one number, the mean square its unit


def divergence(reference: Array, outputs: Array, signature: Signature = FIRST) -> Array:
    """How far `outputs` are from `reference` (the float network's), a value >= 0 a sample, float64; both packed, the
    mean over the outputs of `signature`.

    Kullback-Leibler divergence where the reference is a distribution over classes a sample, KL(reference || outputs);
    else the mean squared difference in units of the reference's variance."""
    pairs = zip(signature.parts(reference), signature.parts(outputs), strict=True)
    found = [_divergence(*pair) for pair in pairs]
    return found[0] if len(found) == 1 else np.asarray(np.mean(found, axis=0))


def _divergence(reference: Array, outputs: Array) -> Array:
    p = np.asarray(reference, np.float64).reshape(len(reference), -1)
    q = np.asarray(outputs, np.float64).reshape(len(outputs), -1)
    if p.shape[1] > 1 and p.min() >= 0 and np.allclose(p.sum(axis=1), 1.0, atol=1e-2):
        found = (p * (np.log(p + 1e-8) - np.log(np.maximum(q, 0.0) + 1e-8))).sum(axis=1)
    else:
        found = ((q - p) ** 2).mean(axis=1) / max(float(p.var()), _CONSTANT * float((p**2).mean()), 1e-30)
    safe: Array = np.nan_to_num(np.maximum(found, 0.0), nan=1e3, posinf=1e3)
    return safe
