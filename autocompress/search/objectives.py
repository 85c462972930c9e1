"""What a study asks of an evaluation: the values of its objectives, and whether its constraints hold."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.errors import CandidateError
from autocompress.records.constraint import excess, value_of
from autocompress.records.study import Constraint, Evaluation, value_name


def objective_values(evaluation: Evaluation, objectives: Sequence[str], size: str) -> tuple[float, ...]:
    """The values of the study's objectives, in their order; CandidateError where one could not be had."""
    return tuple(_had(evaluation, value_name(name, size)) for name in objectives)


def constraint_value(evaluation: Evaluation, constraint: Constraint) -> float:
    """How far a validation value is beyond its bound: <= 0 where the constraint holds; CandidateError where it could
    not be had."""
    beyond = excess(evaluation, constraint)
    if beyond is None:
        raise _missing(constraint.name)
    return beyond


def _had(evaluation: Evaluation, name: str) -> float:
    value = value_of(evaluation, name)
    if value is None:
        raise _missing(name)
    return value


def _missing(name: str) -> CandidateError:
    return CandidateError(f"the candidate has no {name} on this device")
