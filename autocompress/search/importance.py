"""Which layers and which technique earn or cost what, around one configuration, by tables and trials together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autocompress.records import Importance, LayerChoice
from autocompress.search.beliefs import Beliefs
from autocompress.search.landscape import Landscape

TECHNIQUES = ("sparsity", "bits", "clusters")


def importance_of(
    landscape: Landscape, beliefs: Beliefs, row: Sequence[int], download_unit: float
) -> tuple[Importance, ...]:
    """For each layer and technique that the configuration of `row` uses: the bytes that it saves and what it costs of
    the metric, both predicted against the same configuration without it. In layer order."""
    variants = list(_variants(landscape, row))
    if not variants:
        return ()
    x = np.array([row, *(variant for _, _, variant in variants)])
    found = beliefs.predict(x)
    saved = (found.mean["download"][1:] - found.mean["download"][0]) * download_unit
    cost = found.mean["loss"][0] - found.mean["loss"][1:]
    names = list(landscape.choices)
    return tuple(
        Importance(
            layer=names[layer],
            technique=technique,
            value=_value(landscape.rows[layer][row[1 + layer]], technique),
            saves_bytes=float(saved[n]),
            costs=float(cost[n]),
        )
        for n, (layer, technique, _) in enumerate(variants)
    )


def _variants(landscape: Landscape, row: Sequence[int]) -> Iterator[tuple[int, str, tuple[int, ...]]]:
    """(layer, technique, the row without it) wherever the space holds such a choice."""
    for layer, choices in enumerate(landscape.rows):
        for technique in TECHNIQUES:
            without = _without(choices[row[1 + layer]], technique, choices)
            if without is not None:
                changed = list(row)
                changed[1 + layer] = choices.index(without)
                yield layer, technique, tuple(changed)


def _without(choice: LayerChoice, technique: str, offered: Sequence[LayerChoice]) -> LayerChoice | None:
    """The choice without this technique: no zeros, 8 bits, or all levels; None where it is not used or not offered."""
    off: dict[str, Any] = {"sparsity": 0.0, "bits": 8, "clusters": None}
    if not choice.is_integer and technique == "bits":
        return None
    changed = replace(choice, **{technique: off[technique]}).normalised()
    return changed if changed != choice and changed in offered else None


def _value(choice: LayerChoice, technique: str) -> float:
    return float(getattr(choice, technique))
