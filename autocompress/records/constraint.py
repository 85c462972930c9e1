"""Constraints on validation values: read from text, and checked, in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from autocompress.errors import AutocompressError, unknown_name
from autocompress.records.study import CONSTRAINT_NAMES, Constraint, Evaluation

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_UNIT = r"[A-Za-zµμ%]*"
_FORM = rf"\s*(\w+)\s*(<=|>=)\s*(?:(float)\s*(?:([+-])\s*({_NUMBER})\s*({_UNIT}))?|({_NUMBER})\s*({_UNIT})|(\S+))\s*"
# What people call a value; `size` is what an update ships, as everywhere unless `--size file` says otherwise.
_CALLED = {
    "flash": "file_bytes",
    "file": "file_bytes",
    "size": "download_bytes",
    "download": "download_bytes",
    "latency": "latency_ms",
    "ram": "peak_memory_bytes",
    "memory": "peak_memory_bytes",
    "energy": "energy_mj",
    "metric": "accuracy",
}
_COMPILED = {"flash": "flash_bytes", "ram": "ram_bytes"}
_BYTES = {"B": 1.0} | {
    f"{prefix}{suffix}": base**power
    for power, prefixes in enumerate(("kK", "M", "G"), start=1)
    for prefix in prefixes
    for suffix, base in (("B", 1000.0), ("iB", 1024.0))
}
_UNITS = {
    "accuracy": {"%": 0.01, "point": 0.01, "points": 0.01},
    "latency_ms": {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1000.0},
    "energy_mj": {"uJ": 1e-3, "µJ": 1e-3, "μJ": 1e-3, "mJ": 1.0, "J": 1000.0},
    **dict.fromkeys(("download_bytes", "file_bytes", "peak_memory_bytes", "flash_bytes", "ram_bytes"), _BYTES),
}


def parse_constraint(text: str, *, compiled: bool = False) -> Constraint:
    """A constraint from `NAME<=NUMBER`, with a unit or without (`60KB`, `64KiB`, `8ms`, `99%`), `NAME>=float`,
    `NAME>=float-N`, `... N point` (of .01), `... N %` of the float network's value, or `... N KB`. NAME is one of
    CONSTRAINT_NAMES or what people call it: flash, ram, size, latency. `compiled`: on a device whose compiler says what
    flash and RAM are. AutocompressError for anything else."""
    found = re.fullmatch(_FORM, text)
    if found is None or found[9] is not None:
        why = "" if found is None else f": '{found[9]}' is no number"
        raise AutocompressError(
            f"constraint '{text}' is not NAME<=NUMBER or NAME>=float-NUMBER{why}, as in 'latency<=8ms', "
            "'flash<=60KB', 'accuracy>=float - 1 point' or 'download<=float - 80 %'"
        )
    called, relation, base, sign, by, by_unit, plain, plain_unit, _ = found.groups()
    name = _named(called, _COMPILED if compiled else {})
    if not math.isfinite(float(plain or by or 0)):
        raise AutocompressError(f"constraint '{text}': '{plain or by}' is beyond every value; give a smaller number")
    if base is None:
        return Constraint(name=name, relation=relation, bound=float(plain) * _factor(text, name, plain_unit))
    share = by_unit == "%"
    size = float(by or 0) * (0.01 if share else _factor(text, name, by_unit or ""))
    signed = -size if sign == "-" else size
    return Constraint(
        name=name,
        relation=relation,
        bound=0.0 if share else signed,
        factor=1 + signed if share else 1.0,
        text=" ".join(text.split()).replace(called, name, 1),
    )


def _named(called: str, first: dict[str, str]) -> str:
    name = (_CALLED | first).get(called.lower(), called)
    if name not in CONSTRAINT_NAMES:
        raise unknown_name("constraint", called, (*CONSTRAINT_NAMES, *_CALLED))
    return name


def _factor(text: str, name: str, unit: str) -> float:
    """How many of the value's own unit one of `unit` is."""
    units = _UNITS[name]
    if unit and unit not in units:
        known = ", ".join(units)
        raise AutocompressError(f"constraint '{text}': '{unit}' is no unit of {name}; use one of {known}, or none")
    return units[unit] if unit else 1.0


def resolved(constraints: Iterable[Constraint], baseline: Evaluation) -> tuple[Constraint, ...]:
    """The constraints of a study with their bounds as numbers. AutocompressError where the float network lacks a
    value."""
    found = []
    for constraint in constraints:
        if (plain := constraint.resolved(baseline)) is None:
            raise AutocompressError(
                f"constraint '{constraint}': the float network has no {constraint.name}; give a number"
            )
        found.append(plain)
    return tuple(found)


def value_of(evaluation: Evaluation, name: str) -> float | None:
    """The value called `name` (one of CONSTRAINT_NAMES); None where it is missing or not finite."""
    value = evaluation.value(name)
    return float(value) if value is not None and math.isfinite(value) else None


def excess(evaluation: Evaluation, constraint: Constraint) -> float | None:
    """How far a value is beyond its bound, in its unit: <= 0 where the constraint holds, None where it is missing."""
    value = value_of(evaluation, constraint.name)
    if value is None:
        return None
    return value - constraint.bound if constraint.relation == "<=" else constraint.bound - value


def violation(evaluation: Evaluation, constraint: Constraint) -> float:
    """By how much of its bound the constraint is missed: 0 where it is met, inf where its value is missing."""
    beyond = excess(evaluation, constraint)
    return math.inf if beyond is None else max(beyond, 0.0) / (abs(constraint.bound) or 1.0)


def meets(evaluation: Evaluation, constraints: Iterable[Constraint]) -> bool:
    """Whether an evaluation meets all of these constraints; a missing value meets none."""
    return not any(violation(evaluation, constraint) for constraint in constraints)
