"""What a study asks of an evaluation: the values of its objectives, and whether its constraints hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autocompress.errors import CandidateError
from autocompress.records.study import Constraint, Evaluation, value_name


def objective_values(evaluation: Evaluation, objectives: Sequence[str], size: str) -> tuple[float, ...]:
    """The values of the study's objectives, in their order; CandidateError where one could not be had."""
    return tuple(_had(evaluation, value_name(name, size)) for name in objectives)


def constraint_value(evaluation: Evaluation, constraint: Constraint) -> float:
    """How far a validation value is beyond its bound: <= 0 where the constraint holds."""
    gap = _had(evaluation, constraint.name) - constraint.bound
    return gap if constraint.relation == "<=" else -gap


def _had(evaluation: Evaluation, name: str) -> float:
    value = evaluation.value(name)
    if value is None or not math.isfinite(value):
        raise CandidateError(f"the candidate has no {name} on this device")
    return float(value)
