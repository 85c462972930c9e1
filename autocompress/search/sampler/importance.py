"""Which layers, groups of channels and techniques earn or cost what, around one configuration, by tables and trials
together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autocompress.records.configuration import LayerChoice
from autocompress.records.study import Importance
from autocompress.search.sampler.encoding import EncodedSpace, Row
from autocompress.search.sampler.posterior import Posterior

Array = np.ndarray[Any, Any]
TECHNIQUES = ("sparsity", "bits", "clusters")


@dataclass(frozen=True, kw_only=True)
class _Step:
    """Two configurations that differ at one `place` of their rows: what `taken` does there against `without`."""

    place: int
    name: str
    technique: str
    value: float
    taken: Row
    without: Row
    of: int | None = None
    used: bool = True


def importance_of(
    encoded_space: EncodedSpace,
    posterior: Posterior,
    row: Sequence[int],
    full: Sequence[Row],
    units: Mapping[str, float],
) -> tuple[Importance, ...]:
    """For each layer and technique that the configuration of `row` uses, and each group of channels that it makes
    narrower: what that saves, and costs of the metric, predicted against the same configuration without it; for each
    group also the next narrower width. In layer order, groups last.

    `full`: the rows of the trials that were evaluated in full. `units`: what predictions of `download_bytes`,
    `latency_ms` and `accuracy` are shares of."""
    steps = [*_layer_steps(encoded_space, tuple(row)), *_group_steps(encoded_space, tuple(row))]
    return _predicted(encoded_space, posterior, steps, full, units)


def alternatives_of(
    encoded_space: EncodedSpace,
    posterior: Posterior,
    row: Sequence[int],
    full: Sequence[Row],
    units: Mapping[str, float],
) -> tuple[Importance, ...]:
    """For each layer the choices that differ in one technique from the one of the configuration of `row`: what each
    would save, and cost of the metric, predicted against that configuration; arguments as in `importance_of`."""
    return _predicted(encoded_space, posterior, list(_alternative_steps(encoded_space, tuple(row))), full, units)


def _predicted(
    encoded_space: EncodedSpace,
    posterior: Posterior,
    steps: Sequence[_Step],
    full: Sequence[Row],
    units: Mapping[str, float],
) -> tuple[Importance, ...]:
    if not steps:
        return ()
    taken, without = (np.array([getattr(step, name) for step in steps]) for name in ("taken", "without"))
    now, then = posterior.predict(taken).mean, posterior.predict(without).mean
    by_tables = np.exp(encoded_space.seen.log_sensitivity)
    sensitivity, table_sensitivity = (
        (encoded_space.gather(table, taken) - encoded_space.gather(table, without)).sum(axis=1)
        for table in (posterior.parts[0], by_tables)
    )
    return tuple(
        Importance(
            layer=step.name,
            technique=step.technique,
            value=step.value,
            of=step.of,
            used=step.used,
            saves_bytes=float((then["download"] - now["download"])[n] * units["download_bytes"]),
            saves_latency_ms=float((then["latency"] - now["latency"])[n] * units["latency_ms"]),
            costs=float((now["loss"] - then["loss"])[n] * units["accuracy"]),
            sensitivity=float(sensitivity[n]),
            table_sensitivity=float(table_sensitivity[n]),
            trials=_count(encoded_space, step, full),
        )
        for n, step in enumerate(steps)
    )


def _layer_steps(encoded_space: EncodedSpace, row: Row) -> Iterator[_Step]:
    """Each technique of each layer, wherever the space holds the same choice without it."""
    for at, (name, choices) in enumerate(encoded_space.choices.items()):
        choice = choices[row[1 + at]]
        for technique in TECHNIQUES:
            without = _without(choice, technique, choices)
            if without is not None:
                changed = _with(row, 1 + at, choices.index(without))
                yield _Step(
                    place=1 + at,
                    name=name,
                    technique=technique,
                    value=_value(choice, technique),
                    taken=row,
                    without=changed,
                )


def _alternative_steps(encoded_space: EncodedSpace, row: Row) -> Iterator[_Step]:
    """Each choice of each layer that differs in one technique from the one it has."""
    for place, (name, choices) in enumerate(encoded_space.choices.items(), 1):
        choice = choices[row[place]]
        for at, other in enumerate(choices):
            changed = [each for each in TECHNIQUES if getattr(other, each) != getattr(choice, each)]
            if len(changed) == 1:
                yield _Step(
                    place=place,
                    name=name,
                    technique=changed[0],
                    value=_value(other, changed[0]),
                    taken=_with(row, place, at),
                    without=row,
                    used=False,
                )


def _group_steps(encoded_space: EncodedSpace, row: Row) -> Iterator[_Step]:
    """The width of each group against all its channels, and the next narrower one against that width."""
    for place, (name, counts) in enumerate(encoded_space.widths.items(), 1 + len(encoded_space.rows)):
        at = row[place]
        step = _Step(
            place=place,
            name=name,
            technique="channels",
            value=counts[at],
            of=counts[0],
            taken=row,
            without=_with(row, place, 0),
        )
        if at > 0:
            yield step
        if at + 1 < len(counts):
            narrower = _with(row, place, at + 1)
            yield replace(step, value=counts[at + 1], taken=narrower, without=row, used=False)


def _with(row: Row, place: int, value: int) -> Row:
    return (*row[:place], value, *row[place + 1 :])


def _without(choice: LayerChoice, technique: str, offered: Sequence[LayerChoice]) -> LayerChoice | None:
    """The choice without this technique: no zeros, 8 bits, or all levels; None where it is not used or not offered."""
    off: dict[str, Any] = {"sparsity": 0.0, "bits": 8, "clusters": None}
    if not choice.is_integer and technique == "bits":
        return None
    changed = replace(choice, **{technique: off[technique]}).normalised()
    return changed if changed != choice and changed in offered else None


def _value(choice: LayerChoice, technique: str) -> float:
    return float(getattr(choice, technique) or 0)


def _count(encoded_space: EncodedSpace, step: _Step, full: Sequence[Row]) -> int:
    """How many trials had the step's value of its technique there."""
    held = [row[step.place] for row in full]
    if step.technique == "channels":
        return held.count(step.taken[step.place])
    choices = encoded_space.choices[step.name]
    return sum(_value(choices[at], step.technique) == step.value for at in held)
