"""A search from request to front: checks, resume, the trials, and the careful figures of the front at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from importlib import metadata
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autocompress.errors import AutocompressError, CandidateError, DeviceError, UnmetError
from autocompress.records import Configuration, Evaluation, StudyRecord, TrialRecord, value_name
from autocompress.report import rows
from autocompress.search import store
from autocompress.search.early import Bar, StoppedEarly
from autocompress.search.guided import GuidedSampler, Reference
from autocompress.search.landscape import Landscape, configurations, landscape_of
from autocompress.search.objective import Latency, Workbench, constraint_value, objective_values
from autocompress.search.patterns import PatternLatency
from autocompress.search.request import Request, check_request, resolved
from autocompress.search.sampler import corners, make_sampler, parameters, suggest

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
        self.widths = self.workbench.variants.widths(request.space)
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
        request = self.request
        url = store.storage_url(request.runs, request.study_name, request.storage)
        storage = store.open_storage(url, store.retry)
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [up if self._rises(name) else down for name in request.objectives]
        known = {s.study_name for s in optuna.get_all_study_summaries(storage, include_best_trial=False)}
        if request.study_name in known:
            self.study = optuna.load_study(study_name=request.study_name, storage=storage, sampler=self._sampler)
            self._check_same()
        else:
            self.study = optuna.create_study(
                study_name=request.study_name, storage=storage, sampler=self._sampler, directions=directions
            )
        self._prepare()

    def _rises(self, objective: str) -> bool:
        return objective == "metric" and self.request.task.metric.higher_is_better

    def _check_same(self) -> None:
        before = store.identity_of(self.study)
        changed = before.differences(self._identity()) if before is not None else []
        if changed:
            raise AutocompressError(
                f"study '{self.request.study_name}' was made with something else: {'; '.join(changed)}; "
                "choose another --study name"
            )

    def _identity(self) -> store.Identity:
        request, task = self.request, self.request.task
        offered: list[Any] = [{name: [c.to_json() for c in row] for name, row in self.choices.items()}]
        offered += [self.widths] if self.widths else []
        return store.Identity(
            task=task.name,
            network_sha256=task.network_sha256,
            data_sha256=task.data_sha256,
            metric=task.metric.name,
            higher_is_better=task.metric.higher_is_better,
            device=request.profile.name,
            device_sha256=store.digest_of(self._device()),
            latency_source=request.latency_source,
            latency_model_sha256=self._latency_model(),
            space=request.space.name,
            choices_sha256=store.digest_of([list(self.activations), *offered]),
            objectives=request.objectives,
            size=request.size,
            constraints=tuple(str(constraint) for constraint in request.constraints),
            sampler=request.sampler,
            seed=request.seed,
        )

    def _device(self) -> dict[str, Any]:
        """What of the profile a result depends on: not the way by which the device is reached, nor its latency model,
        which stands beside."""
        return asdict(replace(self.request.profile, host=None, latency_model=None))

    def _latency_model(self) -> str | None:
        """The digest of the model that latencies come from; None where they are measured."""
        model = self.request.profile.latency_model
        if self.request.latency_source == "measured" or model is None:
            return None
        return store.digest_of(asdict(model))

    def _prepare(self) -> None:
        """What must stand before the first trial: identity, baseline, reference size, the corners in the queue."""
        attrs = self.study.user_attrs
        if "identity" not in attrs:
            self.study.set_user_attr("identity", asdict(self._identity()))
        if "baseline" not in attrs:
            self.study.set_user_attr("int8_download_bytes", self.workbench.plain_int8_download_bytes())
            self.study.set_user_attr("notes", [*self.request.task.notes, *self.request.notes])
            self.study.set_user_attr("versions", versions())
            self.study.set_user_attr("baseline", self.workbench.baseline.to_dict())
        store.recover(self.study, self._values)
        found = corners(self.activations, self.choices, self.widths)
        self._corner_digests = {corner.normalised().digest for corner in found}
        for corner in found:
            fixed = parameters(corner, self.activations, self.choices, self.widths)
            if fixed:
                self.study.enqueue_trial(fixed, skip_if_exists=True)
        finished = self._finished()
        self._records = {t.number: store.trial_record(t) for t in finished}
        self._seen = {
            r.evaluation.configuration.digest: r.evaluation for r in self._records.values() if r.evaluation is not None
        }
        self._failed = {t.user_attrs["digest"]: r.reason for t in finished if "digest" in t.user_attrs
                        and (r := self._records[t.number]).state == "failed"}  # fmt: skip
        if self._patterns is not None:
            for measurement in store.measurements_of(self.study, self._seen.values()):
                self._patterns.keep(measurement)
        self._stopped = {t.user_attrs["digest"]: stop for t in finished if (stop := _stop_of(t)) is not None}

    def _finished(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))

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
        return store.read_record(self.study, tuple(self._records.values()))

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
        if self._failures_in_a_row() >= MOST_FAILURES:
            last = next(r.reason for r in reversed(self._records.values()) if r.state == "failed")
            raise UnmetError(f"the last {MOST_FAILURES} trials failed, the search ends; the last reason: {last}")
        return record

    def _enough(self, start: float, record: StudyRecord) -> bool:
        complete = sum(trial.state == "complete" for trial in record.trials)
        by_count = self.request.trials is not None and complete >= self.request.trials
        by_time = self.request.time_budget_s is not None and time.perf_counter() - start >= self.request.time_budget_s
        return by_count or by_time or (self.request.until_flat and rows.is_flat(record))

    def _after(self, study: optuna.Study, trial: FrozenTrial, start: float, on_trial: Progress) -> None:
        self._records[trial.number] = store.trial_record(trial)
        record = self.record()
        on_trial(record)
        if self._enough(start, record) or self._failures_in_a_row() >= MOST_FAILURES or self._exhausted():
            study.stop()

    def _exhausted(self) -> bool:
        """Whether the guided sampler, which proposes nothing twice, has nothing left to propose."""
        tried = len(self._records) + 1  # and the float network; counted first: the tables may not be needed yet
        space = configurations(self.activations, self.choices, self.widths)
        if not isinstance(self._sampler, GuidedSampler) or space > tried:
            return False
        return self._sampler.exhausted(self.study.get_trials(deepcopy=False))

    def _failures_in_a_row(self) -> int:
        count = 0
        for record in reversed(self._records.values()):
            if record.state != "failed" or record.reason is None:
                return count
            count += 1
        return count

    def _objective(self, trial: optuna.Trial) -> tuple[float, ...]:
        configuration = suggest(trial, self.activations, self.choices, self.widths).normalised()
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
        self._stopped[configuration.digest] = stop
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
        last = list(self._records.values())[-MOST_STOPS:]
        stopped = len(last) == MOST_STOPS and all(record.state == "stopped_early" for record in last)
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
            (number, evaluation) for number, evaluation in self._complete()
            if all(_at_most(evaluation.value(name), values[name]) for name in others)
            and all(constraint_value(evaluation, constraint) <= 0 for constraint in request.constraints)
        ]  # fmt: skip
        sign = 1 if request.task.metric.higher_is_better else -1
        return max(feasible, key=lambda pair: (sign * pair[1].accuracy, -pair[0]), default=None)

    def _complete(self) -> list[tuple[int, Evaluation]]:
        return [(r.number, r.evaluation) for r in self._records.values() if r.state == "complete" and r.evaluation]

    def _evaluated(self, trial: optuna.Trial, configuration: Configuration) -> Evaluation:
        """The evaluation of a configuration, from the study's records where it has been seen; stored in the trial."""
        if (reason := self._failed.get(configuration.digest)) is not None:
            raise CandidateError(reason)
        if (stop := self._stopped.get(configuration.digest)) is not None:
            raise stop
        known = self._seen.get(configuration.digest)
        try:
            bar_of = self._bar if self._may_stop_early(configuration) else None
            evaluation, divergence = (known, None) if known else self.workbench.evaluate(configuration, bar_of)
        except CandidateError as fault:
            self._failed[configuration.digest] = str(fault)
            raise
        self._seen[configuration.digest] = evaluation
        self._lapse(trial)
        if known is not None:
            trial.set_user_attr("cached", True)
        if divergence is not None:
            trial.set_user_attr("divergence", divergence)
        trial.set_user_attr("evaluation", evaluation.to_dict())
        return evaluation

    def _finish(self) -> None:
        """Careful latencies for the front (which may change it, so until it is stable), then its test values."""
        while self.request.latency_source == "measured":
            stale = [t for t in rows.front(self.record()) if self._careful_key(t) not in self.study.user_attrs]
            if not stale:
                break
            for trial in stale:
                assert trial.evaluation is not None
                measured = self.workbench.remeasured(trial.evaluation)
                self.study.set_user_attr(self._careful_key(trial), measured.to_dict())
        for evaluation in [self.baseline, *(t.evaluation for t in rows.front(self.record()) if t.evaluation)]:
            key = f"test:{evaluation.sha256}"
            if key not in self.study.user_attrs:
                tested = self.workbench.test_quality(evaluation)
                self.study.set_user_attr(key, [tested.value, *tested.interval])
        self._store_importance()

    def _store_importance(self) -> None:
        """What techniques earn and cost around the knee; only the guided sampler has the tables for it."""
        record = self.record()
        if isinstance(self._sampler, GuidedSampler) and rows.front(record):
            trials, knee = self.study.get_trials(deepcopy=False), rows.pick(record, "knee").number
            found = [asdict(row) for row in self._sampler.importance(trials, knee)]
            if found != self.study.user_attrs.get("importance"):
                self.study.set_user_attr("importance", found)

    @staticmethod
    def _careful_key(trial: TrialRecord) -> str:
        assert trial.evaluation is not None
        return store.careful_key(trial.evaluation)


def _at_most(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value <= bound


def _stop_of(trial: FrozenTrial) -> StoppedEarly | None:
    """The stop that a trial holds; None for one that ended otherwise."""
    seen = trial.user_attrs.get("seen")
    if seen is None:
        return None
    attrs = trial.user_attrs
    return StoppedEarly(
        attrs["reason"], samples=seen["samples"], accuracy=seen["accuracy"], divergence=attrs["divergence"]
    )


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = {"autocompress": "autocompress", "optuna": "optuna", "ai-edge-quantizer": "ai-edge-quantizer",
                "runtime": "ai-edge-litert", "numpy": "numpy"}  # fmt: skip
    return {name: metadata.version(package) for name, package in packages.items()}
