"""A trial as a study's storage holds it: the one place that knows under which names, and what they mean.

Attributes are decoded when they are asked for: a study may have thousands of trials, and few readers need all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from autocompress.evaluate.early_stopping import Screened, StoppedEarly
from autocompress.records.study import Evaluation, TrialRecord

# User attributes of a trial.
WORKER = "worker"  # the name of the worker that evaluates it
EVALUATION = "evaluation"  # written before its values are told
SEEN = "seen"  # what was seen until it was stopped early or screened
DIVERGENCE = "divergence"
REASON = "reason"  # why it failed or was stopped
DIGEST = "digest"  # of the configuration of one that failed or was stopped
WALL_S = "wall_s"
CACHED = "cached"  # whether its evaluation is another trial's
RETRY_OF = "retry_of"  # the number of the trial that died and that it runs again
FINETUNED_FROM = "finetuned_from"  # the number of the trial that was trained on
FINETUNE = "finetune"  # facts of that training
_GIVEN = "fixed_params"  # Optuna's own: parameters that it was queued with

INTERRUPTED = "its worker ended before it was evaluated"  # the reason of a failed trial that holds none
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped_early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredTrial:
    """A trial by what is stored of it. `finished_s`: when, in seconds since the epoch; None: not yet. `attributes` are
    the user's; `given`: parameters that it was queued with, `drawn`: those that it has by now."""

    number: int
    optuna_state: TrialState
    finished_s: float | None
    attributes: Mapping[str, Any]
    given: Mapping[str, Any] | None = None
    drawn: Mapping[str, Any]

    @property
    def state(self) -> str:
        """One of STATES; one that ended early with a predicted latency was screened, one that is queued "waiting"."""
        if "latency_ms" in self.attributes.get(SEEN, {}):
            return "screened"
        return STATES.get(self.optuna_state, "waiting")

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation; None where there is none, or none yet."""
        stored = self.attributes.get(EVALUATION)
        return None if stored is None else Evaluation.from_dict(stored)

    @property
    def reason(self) -> str | None:
        """Why it failed or was stopped; None of any other."""
        given: str | None = self.attributes.get(REASON)
        return INTERRUPTED if given is None and self.optuna_state == TrialState.FAIL else given

    @property
    def stop(self) -> StoppedEarly | None:
        """The stop of one that was stopped early or screened; None of any other."""
        seen = self.attributes.get(SEEN)
        if seen is None:
            return None
        what = {"samples": seen["samples"], "accuracy": seen["accuracy"], "divergence": self.divergence}
        if "latency_ms" not in seen:
            return StoppedEarly(self.attributes[REASON], **what)
        predicted = {name: seen[name] for name in ("latency_ms", "file_bytes", "download_bytes")}
        return Screened(self.attributes[REASON], **what, **predicted)

    @property
    def divergence(self) -> float:
        """The divergence of its outputs; NaN where it was not seen."""
        return float(self.attributes.get(DIVERGENCE, math.nan))

    @property
    def worker(self) -> str | None:
        """The worker that it belongs to; None: nobody's yet."""
        return self.attributes.get(WORKER)

    @property
    def digest(self) -> str | None:
        """The digest of the configuration, of one that failed or was stopped."""
        return self.attributes.get(DIGEST)

    @property
    def retry_of(self) -> int | None:
        """The number of the trial that it runs again because its process ended; None: of no other."""
        return self.attributes.get(RETRY_OF)

    @property
    def finetuned_from(self) -> int | None:
        """The number of the trial that it was trained from; None: it was not trained."""
        return self.attributes.get(FINETUNED_FROM)

    @property
    def parameters(self) -> dict[str, Any]:
        """Those that it was queued with and those that it has by now."""
        return {**(self.given or {}), **self.drawn}

    @property
    def died_unborn(self) -> bool:
        """Whether its process ended before it had any parameters: another trial stands in its place."""
        return self.optuna_state == TrialState.FAIL and REASON not in self.attributes and not self.drawn

    @property
    def was_proposed(self) -> bool:
        """Whether a sampler drew its parameters."""
        return self.given is None and not self.died_unborn

    @property
    def span_s(self) -> tuple[float, float] | None:
        """When it was evaluated, from and to, in seconds since the epoch; None: not known, or not yet."""
        if self.finished_s is None or WALL_S not in self.attributes:
            return None
        return self.finished_s - float(self.attributes[WALL_S]), self.finished_s

    def record(self) -> TrialRecord:
        """The trial as plain data, for whoever does not search."""
        return TrialRecord(
            number=self.number,
            state=self.state,
            evaluation=self.evaluation,
            reason=self.reason,
            finished_s=self.finished_s,
            cached=bool(self.attributes.get(CACHED, False)),
        )


def stored_trial(trial: FrozenTrial) -> StoredTrial:
    """One of Optuna's trials."""
    finished = trial.datetime_complete
    return StoredTrial(
        number=trial.number,
        optuna_state=trial.state,
        finished_s=None if finished is None else finished.timestamp(),
        attributes=trial.user_attrs,
        given=trial.system_attrs.get(_GIVEN),
        drawn=trial.params,
    )


def union_s(trials: Iterable[StoredTrial]) -> float:
    """How long any worker evaluated: the length of the union of the trials' spans, in seconds."""
    total, until = 0.0, -math.inf
    for begin, end in sorted(span for trial in trials if (span := trial.span_s) is not None):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def seen_of(stop: StoppedEarly) -> dict[str, float]:
    """What is stored of a stop beside its reason and divergence; `StoredTrial.stop` reads it."""
    seen: dict[str, float] = {"samples": stop.samples, "accuracy": stop.accuracy}
    if isinstance(stop, Screened):
        seen |= {
            "latency_ms": stop.latency_ms,
            "file_bytes": stop.file_bytes,
            "download_bytes": stop.download_bytes,
        }
    return seen
