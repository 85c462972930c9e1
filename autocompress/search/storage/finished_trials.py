"""What the finished trials of a study hold, read from the storage once each."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.evaluate.early_stopping import StoppedEarly
from autocompress.records.study import Evaluation, TrialRecord
from autocompress.search.storage.stored_trial import INTERRUPTED, stored_trial

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class FinishedTrials:
    """The finished trials of a study. `records`, by number, in the order in which they were read; by the digest of the
    configuration: `seen`, what was evaluated, `failed`, why it failed, `stopped`, what was seen until then."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self.records: dict[int, TrialRecord] = {}
        self.seen: dict[str, Evaluation] = {}
        self.failed: dict[str, str | None] = {}
        self.stopped: dict[str, StoppedEarly] = {}

    def read(self) -> list[TrialRecord]:
        """Read what has finished since the last time: the new records."""
        trials = self._study.get_trials(deepcopy=False, states=FINISHED)
        return [self._enter(trial) for trial in trials if trial.number not in self.records]

    def _enter(self, trial: FrozenTrial) -> TrialRecord:
        stored = stored_trial(trial)
        record = self.records[trial.number] = stored.record()
        if record.evaluation is not None and not record.evaluation.finetuned:
            self.seen[record.evaluation.configuration.digest] = record.evaluation
        if stored.digest is not None and record.state == "failed":
            self.failed[stored.digest] = record.reason
        if stored.digest is not None and (stop := stored.stop) is not None:
            self.stopped[stored.digest] = stop
        return record

    def trials(self) -> tuple[TrialRecord, ...]:
        """The records by number."""
        return tuple(self.records[number] for number in sorted(self.records))

    def complete(self) -> list[tuple[int, Evaluation]]:
        """The complete trials: number and evaluation."""
        return [(r.number, r.evaluation) for r in self.records.values() if r.state == "complete" and r.evaluation]

    def failures_in_a_row(self) -> Sequence[str]:
        """The reasons of the last trials, back to one that did not fail: the newest first. Those whose worker ended say
        nothing of candidates and are passed over."""
        reasons: list[str] = []
        for record in reversed(self.records.values()):
            if record.state != "failed":
                break
            if record.reason != INTERRUPTED:
                reasons.append(record.reason or "")
        return reasons

    def stopped_in_a_row(self, count: int) -> bool:
        """Whether the last `count` trials were stopped early or screened."""
        last = list(self.records.values())[-count:]
        return len(last) == count and all(record.state in ("stopped_early", "screened") for record in last)
