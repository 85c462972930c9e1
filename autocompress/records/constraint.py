"""Constraints on validation values: read from text, and checked, in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from autocompress.errors import AutocompressError, unknown_name
from autocompress.records.study import CONSTRAINT_NAMES, Constraint, Evaluation


def parse_constraint(text: str) -> Constraint:
    """A constraint from `NAME<=NUMBER` or `NAME>=NUMBER`; AutocompressError for anything else."""
    found = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*(\S+)\s*", text)
    if found is None:
        raise AutocompressError(f"constraint '{text}' is not NAME<=NUMBER or NAME>=NUMBER, as in 'latency_ms<=8'")
    name, relation, number = found.groups()
    if name not in CONSTRAINT_NAMES:
        raise unknown_name("constraint", name, CONSTRAINT_NAMES)
    try:
        bound = float(number)
    except ValueError as fault:
        raise AutocompressError(f"constraint '{text}': '{number}' is no number") from fault
    return Constraint(name=name, relation=relation, bound=bound)


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
