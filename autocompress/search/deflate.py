"""The download size of a configuration before it is built: its bytes counted block by block, as deflate codes them.

On low-entropy weights the smallest gzip is Huffman coding without matches (zlib's Z_HUFFMAN_ONLY). It codes blocks of
a fixed number of bytes, each with a code of its own. So what a layer weighs depends on its neighbours in the file:
layers of unlike levels in one block cost each other up to a quarter. From the histogram of each layer's stored bytes
(layer tables) and of what lies between them, a block costs its entropy, plus what a Huffman code loses where one
byte, zero, is more than half of all: a symbol takes a bit at least (Gallager 1978, "Variations on a theme by
Huffman")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_BLOCK = (1 << 14) - 1  # bytes of a block of zlib with memLevel 8
_BLOCK_BYTES = 20  # of a block's head
_SYMBOL_BYTES = 3 / 8  # of each byte value that occurs, in the head
_ROWS = 64  # predicted together: what they need fits into the cache


@dataclass(frozen=True, kw_only=True)
class Deflate:
    """`between` (B, 256): the bytes that are no weights, by block; `share` (B, L): how much of each layer lies in each
    block. Of one kind of activations and its usual containers."""

    between: Array
    share: Array

    def bytes(self, histograms: Array) -> Array:
        """The predicted sizes (n,) of n configurations whose layers have these histograms (n, L, 256)."""
        parts = [self._bytes(histograms[at : at + _ROWS]) for at in range(0, len(histograms), _ROWS)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _bytes(self, histograms: Array) -> Array:
        counts = self.between + self.share @ histograms.astype(np.float32, copy=False)  # (n, B, 256)
        total = counts.sum(axis=2)
        logs = np.log(np.maximum(counts, np.float32(1e-6)))  # natural: NumPy has it in vector instructions
        bits = (total * np.log(np.maximum(total, 1.0)) - np.einsum("nbs,nbs->nb", counts, logs)) / math.log(2)
        most = np.clip(counts.max(axis=2) / np.maximum(total, 1.0), 1e-6, 1 - 1e-6)
        lost = 1 + most * np.log2(most) + (1 - most) * np.log2(1 - most)
        bits = bits + total * np.where(most > 0.5, lost, 0.0)
        heads = (counts > 0.5).sum(axis=(1, 2)) * _SYMBOL_BYTES + _BLOCK_BYTES * counts.shape[1]
        sizes: Array = bits.sum(axis=1) / 8 + heads
        return sizes


def deflate_of(model: bytes, spans: Sequence[slice]) -> Deflate:
    """The blocks of a file whose layers' weights lie at `spans`."""
    content = np.frombuffer(model, np.uint8)
    blocks = -(-len(content) // _BLOCK)
    outside = np.ones(len(content), bool)
    for span in spans:
        outside[span] = False
    between = np.zeros((blocks, 256), np.float32)
    share = np.zeros((blocks, len(spans)), np.float32)
    for block in range(blocks):
        start, stop = block * _BLOCK, min((block + 1) * _BLOCK, len(content))
        between[block] = np.bincount(content[start:stop][outside[start:stop]], minlength=256)
        for layer, span in enumerate(spans):
            inside = max(0, min(span.stop, stop) - max(span.start, start))
            share[block, layer] = inside / max(1, span.stop - span.start)
    return Deflate(between=between, share=share)
