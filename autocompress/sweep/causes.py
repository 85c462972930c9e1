"""Why a cell came out otherwise than the accepted night: what is another now, named; and what its files are called."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from autocompress.records.configuration import Configuration
from autocompress.report.study_document import summary
from autocompress.specs import VerdictRules
from autocompress.sweep.night import CellNight, Night

_SHORT = 8  # hexadecimal digits of a digest
_DEVICE = ("cpu", "board", "cores", "governor", "system", "python")  # of a host's facts


def device_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """What of a host may change its latencies, as a night stores it."""
    return {name: str(facts[name]) for name in _DEVICE if facts.get(name) is not None}


def causes(cell: CellNight, accepted: CellNight | None, rules: VerdictRules) -> tuple[str, ...]:
    """What is not as it was in the accepted night, a line each; that nothing is where all that is known is the same.
    Nights of older versions tell less."""
    if accepted is None:
        return ()
    found = [*_hashes(cell, accepted), *_runtime(cell, accepted), *_device(cell, accepted, rules)]
    return tuple(found) or ("nothing that is known: network, data, runtime, versions and device are the same",)


def _hashes(cell: CellNight, accepted: CellNight) -> list[str]:
    pairs = {
        "the network": (accepted.network_sha256, cell.network_sha256),
        "the data": (accepted.data_sha256, cell.data_sha256),
    }
    return [
        f"{name} is another one: {before[:_SHORT]} then, {now[:_SHORT]} now"
        for name, (before, now) in pairs.items()
        if before is not None and now is not None and before != now
    ]


def _runtime(cell: CellNight, accepted: CellNight) -> list[str]:
    before, now = accepted.versions or {}, cell.versions or {}
    named = {"device": "the runtime on the device"}
    return [
        f"{named.get(name, name)} is another version: {before[name]} then, {now[name]} now"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]


def _device(cell: CellNight, accepted: CellNight, rules: VerdictRules) -> list[str]:
    before, now = accepted.device or {}, cell.device or {}
    found = [
        f"the device has another {name}: {before[name]} then, {now[name]} now"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]
    if accepted.canary_ms is None or cell.canary_ms is None or cell.network_sha256 != accepted.network_sha256:
        return found
    then, today = (median([*each[0], *each[1]]) for each in (accepted.canary_ms, cell.canary_ms))
    change = today / then - 1
    if abs(change) >= rules.drift:
        way = "slower" if change > 0 else "faster"
        found.append(f"the device itself is {100 * abs(change):.0f} % {way}, float network and all")
    return found


def names_of(night: Night, accepted: Night | None) -> dict[tuple[str, str], str]:
    """What metrics and the files of comparisons are called for people: (cell, "accuracy") -> the metric; (cell, what a
    comparison calls a file) -> trial, configuration and the beginning of the SHA-256."""
    nights = (night, *(() if accepted is None else (accepted,)))
    metrics = {(cell.cell, "accuracy"): cell.metric for cell in night.cells if cell.metric is not None}
    return metrics | {
        (cell.cell, file.sha256[:12]): f"trial {file.trial} ({_summary(file.configuration)}; {file.sha256[:_SHORT]})"
        for each in nights
        for cell in each.cells
        for file in cell.front
    }


def _summary(configuration: Mapping[str, Any]) -> str:
    return summary(Configuration.from_dict(configuration)) if configuration else "configuration not stored"
