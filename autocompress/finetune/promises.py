"""What fine-tuning promises of a candidate, checked after every stage: the mask, the levels and the cluster count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autocompress.compression.reconstruct import SolvedLayer
from autocompress.errors import CandidateError
from autocompress.network.graph.layers import Layer
from autocompress.records.configuration import Configuration, LayerChoice


def check_kept(
    layers: Sequence[Layer],
    configuration: Configuration,
    before: Sequence[SolvedLayer] | None,
    after: Sequence[SolvedLayer],
) -> None:
    """CandidateError where training broke the choice of a layer: tfmot's stages do so silently (its issues 979 and
    1056). `before`: whose zeros must be zeros still; None where masks may move."""
    for layer, old, new in zip(layers, before or after, after, strict=True):
        for rule, holds in _rules(configuration.layers[layer.name], old, new):
            if not holds:
                raise CandidateError(f"{layer.name}: fine-tuning broke '{rule}'")


def _rules(choice: LayerChoice, old: SolvedLayer, new: SolvedLayer) -> list[tuple[str, bool]]:
    was, now = (s.weight if s.levels is None else s.levels for s in (old, new))
    zeros = math.ceil(choice.sparsity * now.size - 1e-9)
    rules = [
        ("the mask", choice.sparsity == 0 or not np.any(now[was == 0])),
        (f"sparsity >= {choice.sparsity:g}", int(np.count_nonzero(now == 0)) >= zeros),
        ("finite weights", bool(np.isfinite(new.weight).all())),
    ]
    if not choice.is_integer:
        return rules
    limit = 2 ** (choice.bits - 1) - 1
    allowed = choice.clusters or 2**choice.bits - 1
    rules += [
        (f"levels within {limit}", int(np.abs(now.astype(np.int16)).max()) <= limit),
        (f"at most {allowed} levels", len(np.unique(now)) <= allowed),
        ("positive scales", new.scale is not None and bool((new.scale > 0).all())),
    ]
    return rules
