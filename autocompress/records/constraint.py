"""Constraints on validation values: read from text, and checked, in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from autocompress.errors import AutocompressError, unknown_name
from autocompress.records.study import CONSTRAINT_NAMES, Constraint, Evaluation

_FORM = r"\s*(\w+)\s*(<=|>=)\s*(?:(float)\s*(?:([+-])\s*([\d.]+(?:e-?\d+)?)\s*(points?|%)?)?|([^\s]+))\s*"


def parse_constraint(text: str) -> Constraint:
    """A constraint from `NAME<=NUMBER`, `NAME>=float`, `NAME>=float-N`, `... N point` (of .01) or `... N %` of the
    float network's value; AutocompressError for anything else."""
    found = re.fullmatch(_FORM, text)
    try:
        if found is None:
            raise ValueError
        name, relation, base, sign, by, unit, plain = found.groups()
        size = float(plain if base is None else by or 0)
    except ValueError as fault:
        why = "" if found is None else f": '{plain}' is no number"
        raise AutocompressError(
            f"constraint '{text}' is not NAME<=NUMBER or NAME>=float-NUMBER{why}, as in 'latency_ms<=8', "
            "'accuracy>=float - 1 point' or 'download_bytes<=float - 80 %'"
        ) from fault
    if name not in CONSTRAINT_NAMES:
        raise unknown_name("constraint", name, CONSTRAINT_NAMES)
    if base is None:
        return Constraint(name=name, relation=relation, bound=size)
    signed = -size if sign == "-" else size
    return Constraint(
        name=name,
        relation=relation,
        bound=0.0 if unit == "%" else signed * (0.01 if unit is not None else 1.0),
        factor=1 + signed / 100 if unit == "%" else 1.0,
        text=" ".join(text.split()),
    )


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
