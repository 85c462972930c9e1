"""How many weights are zero while a network is trained: a share that rises gradually to what was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.network.graph.layers import Layer
from autocompress.records.configuration import Configuration

Array = np.ndarray[Any, Any]
RISES_UNTIL = 0.6  # of the plan; then the mask stays and the weights settle
LEAST_WEIGHTS = 256  # a smaller layer has little to give and much to lose
_NOT_PRUNED = ("DEPTHWISE_CONV_2D",)  # few weights, each of them used everywhere
_STEP = 1000  # sparsities are whole thousandths


def share_of_zeros(first: float, target: float, done: float) -> float:
    """The share of zeros when `done` of the plan, in [0, 1], is behind: cubic from `first` to `target` (Zhu and Gupta,
    arXiv 1710.01878, eq. 1, with t0 = 0 and n * delta_t = RISES_UNTIL of the plan). Never below `first`."""
    left = 1.0 - min(max(done, 0.0) / RISES_UNTIL, 1.0)
    return max(first, target + (first - target) * left**3)


def sparser(
    configuration: Configuration, layers: Sequence[Layer], weights: Mapping[str, Array], sparsity: float
) -> Configuration:
    """The configuration with so many more zeros that `sparsity`, in [0, 1), of all weights of the layers that can be
    pruned are zero. Which layers give them: global magnitudes, each layer's own scaled by its larger ones (`lamp`). A
    layer that has more already keeps it. Depthwise layers and those of fewer than LEAST_WEIGHTS weights stay.

    `weights`: the float network's, by layer. AutocompressError for a target outside [0, 1), and where no layer would
    change."""
    if not 0 <= sparsity < 1:
        raise AutocompressError(f"--sparsity must be at least 0 and less than 1, got {sparsity:g}")
    names = [each.name for each in layers if each.op not in _NOT_PRUNED and each.weights >= LEAST_WEIGHTS]
    chosen = dict(configuration.layers)
    for name, share in shares([weights[name] for name in names], names, sparsity).items():
        chosen[name] = replace(chosen[name], sparsity=max(share, chosen[name].sparsity))
    if chosen == dict(configuration.layers):
        raise AutocompressError(
            f"--sparsity {sparsity:g} makes no layer of the trial sparser than it is; give a higher one"
        )
    return replace(configuration, layers=chosen)


def shares(weights: Sequence[Array], names: Sequence[str], sparsity: float) -> dict[str, float]:
    """The sparsity of each layer when the smallest of all scores are pruned, rounded up to thousandths."""
    if not weights:
        return {}
    scores = [lamp(each) for each in weights]
    pruned = math.ceil(sparsity * sum(map(len, scores)) - 1e-9)
    threshold = np.sort(np.concatenate(scores))[pruned - 1] if pruned else -np.inf
    counts = [min(int((each <= threshold).sum()), len(each) - 1) for each in scores]
    found = [math.ceil(_STEP * count / len(each) - 1e-9) / _STEP for count, each in zip(counts, scores, strict=True)]
    return {name: min(share, (_STEP - 1) / _STEP) for name, share in zip(names, found, strict=True)}


def lamp(weight: Array) -> Array:
    """Each weight's square over the sum of the squares of those that are not smaller (Lee et al., arXiv 2010.07611,
    eq. 5), flat: 1 for the largest, and comparable between layers."""
    squares = weight.astype(np.float64).reshape(-1) ** 2
    order = np.argsort(squares, kind="stable")
    at_least = np.cumsum(squares[order][::-1])[::-1]
    found = np.empty_like(squares)
    found[order] = squares[order] / np.maximum(at_least, np.finfo(np.float64).tiny)
    return found
