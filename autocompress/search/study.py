"""A search: its trials, from the first to the last that was asked for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import cached_property

import optuna
from optuna.trial import FrozenTrial

from autocompress.errors import CandidateError, DeviceError, UnmetError
from autocompress.records import Configuration, Evaluation, StudyRecord, value_name
from autocompress.report import rows
from autocompress.search import finish, opening, store
from autocompress.search.early import Bar, StoppedEarly
from autocompress.search.guided import GuidedSampler, Reference
from autocompress.search.landscape import Landscape, configurations, landscape_of
from autocompress.search.ledger import Ledger
from autocompress.search.objective import Latency, Workbench, constraint_value, objective_values
from autocompress.search.patterns import PatternLatency
from autocompress.search.request import Request, check_request, resolved
from autocompress.search.sampler import corners, make_sampler, suggest

Progress = Callable[[StudyRecord], None]
MOST_FAILURES = 20  # in a row, then the search ends
MOST_STOPS = 4  # early, in a row, then one trial is evaluated to the end


class _Left(BaseException):
    """Carries what ends a search out of Optuna, which would store any Exception as a failure of the trial. The trial
    stays running and is recovered when the search goes on."""

    def __init__(self, why: BaseException) -> None:
        self.why = why


class Search:
    """One study opened for searching. Use as a context manager: it holds the study's lock.

    AutocompressError, before anything is written, for a request that cannot be met."""

    def __init__(self, request: Request, latency: Latency) -> None:
        check_request(request)
        self.request = request
        self._folder = store.study_folder(request.runs, request.study_name)
        self._patterns = PatternLatency(latency) if request.latency_source == "measured" else None
        self.workbench = Workbench(
            request.task, request.profile, self._patterns or latency, runs=request.runs,
            artifacts=self._folder / "artifacts", seed=request.seed, threads=request.threads, tier=request.tier,
        )  # fmt: skip
        self.activations, self.choices = resolved(request, self.workbench.layers)
        self._sampler = make_sampler(request.sampler, request.seed, self._guided)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Search:
        self._stack.enter_context(store.locked(self._folder))
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _guided(self) -> GuidedSampler:
        request = self.request
        return GuidedSampler(
            seed=request.seed, landscape=lambda: self._landscape, reference=lambda: self._reference,
            objectives=request.objectives, size=request.size, constraints=request.constraints,
        )  # fmt: skip

    @cached_property
    def _landscape(self) -> Landscape:
        tables, note = self.workbench.tables(self.choices)
        if note is not None:
            self.study.set_user_attr("notes", [*self.study.user_attrs["notes"], note])
        return landscape_of(self.workbench, self.activations, self.choices, tables)

    @cached_property
    def _reference(self) -> Reference:
        return Reference(
            baseline=self.baseline,
            int8_download_bytes=self.study.user_attrs["int8_download_bytes"],
            higher_is_better=self.request.task.metric.higher_is_better,
        )

    def _open(self) -> None:
        request, workbench = self.request, self.workbench
        identity = opening.identity_of(request, self.activations, self.choices)
        self.study = opening.open_study(request, self._sampler, identity)
        opening.lay_ground(self.study, request, workbench, identity)
        store.recover(self.study, self._values)
        found = corners(self.activations, self.choices)
        self._corner_digests = {corner.normalised().digest for corner in found}
        opening.queue(self.study, found, self.activations, self.choices)
        self._ledger = Ledger(self.study)
        self._ledger.read()
        if self._patterns is not None:
            for measurement in store.measurements_of(self.study, self._ledger.seen.values()):
                self._patterns.keep(measurement)

    def _values(self, evaluation: Evaluation) -> tuple[float, ...]:
        return objective_values(evaluation, self.request.objectives, self.request.size)

    def prepare_sampler(self) -> None:
        """What the guided sampler needs before its first suggestion, the layer tables above all; else it happens
        then."""
        if isinstance(self._sampler, GuidedSampler):
            _ = self._landscape

    @property
    def baseline(self) -> Evaluation:
        """The float network's evaluation, as the study holds it."""
        return Evaluation.from_dict(self.study.user_attrs["baseline"])

    def record(self) -> StudyRecord:
        """The study as it stands."""
        return store.read_record(self.study, self._ledger.trials())

    def run(self, on_trial: Progress) -> StudyRecord:
        """Run trials until the request is met, then the careful figures of the front; the whole study.

        UnmetError after MOST_FAILURES failed trials in a row."""
        start = self._lap = time.perf_counter()
        if not self._enough(start, self.record()):
            try:
                self.study.optimize(
                    self._objective,
                    catch=(CandidateError,),
                    callbacks=[lambda study, trial: self._after(study, trial, start, on_trial)],
                )
            except _Left as left:
                raise left.why from None
        self._finish()
        record = self.record()
        reasons = self._ledger.failures_in_a_row()
        if len(reasons) >= MOST_FAILURES:
            raise UnmetError(f"the last {MOST_FAILURES} trials failed, the search ends; the last reason: {reasons[0]}")
        return record

    def _enough(self, start: float, record: StudyRecord) -> bool:
        complete = sum(trial.state == "complete" for trial in record.trials)
        by_count = self.request.trials is not None and complete >= self.request.trials
        by_time = self.request.time_budget_s is not None and time.perf_counter() - start >= self.request.time_budget_s
        return by_count or by_time or (self.request.until_flat and rows.is_flat(record))

    def _after(self, study: optuna.Study, trial: FrozenTrial, start: float, on_trial: Progress) -> None:
        self._ledger.read()
        record = self.record()
        on_trial(record)
        failing = len(self._ledger.failures_in_a_row()) >= MOST_FAILURES
        if self._enough(start, record) or failing or self._exhausted():
            study.stop()

    def _exhausted(self) -> bool:
        """Whether the guided sampler, which proposes nothing twice, has nothing left to propose."""
        tried = len(self._ledger.records) + 1  # and the float network; counted first: the tables may not be needed yet
        if not isinstance(self._sampler, GuidedSampler) or configurations(self.activations, self.choices) > tried:
            return False
        return self._sampler.exhausted(self.study.get_trials(deepcopy=False))

    def _objective(self, trial: optuna.Trial) -> tuple[float, ...]:
        configuration = suggest(trial, self.activations, self.choices).normalised()
        try:
            evaluation = self._evaluated(trial, configuration)
            values = self._values(evaluation)
            for constraint in self.request.constraints:
                trial.set_constraint(str(constraint), constraint_value(evaluation, constraint))
        except CandidateError as fault:
            trial.set_user_attr("digest", configuration.digest)
            trial.set_user_attr("reason", str(fault))
            raise
        except (DeviceError, KeyboardInterrupt) as end:
            raise _Left(end) from None
        except StoppedEarly as stop:
            self._store_stop(trial, configuration, stop)
            raise optuna.TrialPruned(stop.reason) from stop
        return values

    def _store_stop(self, trial: optuna.Trial, configuration: Configuration, stop: StoppedEarly) -> None:
        """What was seen of a candidate that was stopped early, under names of its own: never mixed with full values."""
        self._ledger.stopped[configuration.digest] = stop
        trial.set_user_attr("digest", configuration.digest)
        trial.set_user_attr("reason", stop.reason)
        trial.set_user_attr("divergence", stop.divergence)
        trial.set_user_attr("seen", {"samples": stop.samples, "accuracy": stop.accuracy})
        self._lapse(trial)

    def _lapse(self, trial: optuna.Trial) -> None:
        now = time.perf_counter()
        trial.set_user_attr("wall_s", now - self._lap)
        self._lap = now

    def _may_stop_early(self, configuration: Configuration) -> bool:
        """Not a corner, with which everything is compared; and not the next after MOST_STOPS in a row: the sampler
        learns what the metric does only from trials that are complete."""
        stopped = self._ledger.stopped_in_a_row(MOST_STOPS)
        return not stopped and configuration.digest not in self._corner_digests

    def _bar(self, values: Mapping[str, float | None]) -> Bar | None:
        """What a candidate with these values must reach: the most accurate feasible trial that is at least as good in
        every other objective, and the constraint on the metric."""
        rises, least = self.request.task.metric.higher_is_better, None
        for constraint in self.request.constraints:
            if constraint.name == "accuracy" and (constraint.relation == ">=") == rises:
                least = constraint.bound
        rival = self._rival(values)
        if rival is None and least is None:
            return None
        scores = None if rival is None else self.workbench.validation_scores(rival[1])
        name = "" if rival is None else f"trial {rival[0]}"
        return Bar(scores=scores, name=name, least=least, rises=rises)

    def _rival(self, values: Mapping[str, float | None]) -> tuple[int, Evaluation] | None:
        request = self.request
        others = [value_name(name, request.size) for name in request.objectives if name != "metric"]
        if "metric" not in request.objectives or any(values[name] is None for name in others):
            return None
        feasible = [
            (number, evaluation) for number, evaluation in self._ledger.complete()
            if all(_at_most(evaluation.value(name), values[name]) for name in others)
            and all(constraint_value(evaluation, constraint) <= 0 for constraint in request.constraints)
        ]  # fmt: skip
        sign = 1 if request.task.metric.higher_is_better else -1
        return max(feasible, key=lambda pair: (sign * pair[1].accuracy, -pair[0]), default=None)

    def _evaluated(self, trial: optuna.Trial, configuration: Configuration) -> Evaluation:
        """The evaluation of a configuration, from the study's records where it has been seen; stored in the trial."""
        if (reason := self._ledger.failed.get(configuration.digest)) is not None:
            raise CandidateError(reason)
        if (stop := self._ledger.stopped.get(configuration.digest)) is not None:
            raise stop
        known = self._ledger.seen.get(configuration.digest)
        try:
            bar_of = self._bar if self._may_stop_early(configuration) else None
            evaluation, divergence = (known, None) if known else self.workbench.evaluate(configuration, bar_of)
        except CandidateError as fault:
            self._ledger.failed[configuration.digest] = str(fault)
            raise
        self._ledger.seen[configuration.digest] = evaluation
        self._lapse(trial)
        if known is not None:
            trial.set_user_attr("cached", True)
        if divergence is not None:
            trial.set_user_attr("divergence", divergence)
        trial.set_user_attr("evaluation", evaluation.to_dict())
        return evaluation

    def finish(self) -> StudyRecord:
        """The whole study, read again, with the careful figures of its front."""
        self._ledger.read()
        self._finish()
        return self.record()

    def values(self, evaluation: Evaluation) -> tuple[float, ...]:
        """The values of the study's objectives; CandidateError where one could not be had."""
        return self._values(evaluation)

    def _finish(self) -> None:
        if self.request.latency_source == "measured":
            finish.measure_front(self.study, self.workbench, self.record)
        finish.front_on_test_data(self.study, self.workbench, self.record)
        finish.store_importance(self.study, self._sampler, self.record)


def _at_most(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value <= bound
