"""Layer tables."""

from __future__ import annotations

import numpy as np

from autocompress.compression.tables import (
    LayerTable,
    Tables,
)
from autocompress.records.configuration import LayerChoice

CHOICES = tuple(
    LayerChoice(sparsity=s, bits=b, clusters=k).normalised()
    for s in (0.0, 0.5, 0.8)
    for b, k in ((32, None), (16, None), (8, None), (8, 16), (4, None), (3, None))
)


def tables(names: int = 2) -> Tables:
    rng = np.random.default_rng(0)
    n = len(CHOICES)
    rows = [
        LayerTable(
            name=f"conv_2d_{k}",
            choices=CHOICES,
            error=rng.random(n),
            bytes=rng.random(n),
            sensitivity=rng.random(n),
        )
        for k in range(names)
    ]
    return Tables(layers=tuple(rows), built_s=1.5)
