"""A search: its trials, from the first to the last that was asked for, alone or with other workers."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from autocompress import interrupts
from autocompress.errors import AutocompressError, CandidateError, UnmetError
from autocompress.evaluate.early_stopping import StoppedEarly
from autocompress.evaluate.evaluator import Evaluator
from autocompress.latency.source import Known, Latency
from autocompress.records.configuration import Configuration
from autocompress.records.constraint import resolved as resolved_constraints
from autocompress.records.front import complete, is_flat
from autocompress.records.hypervolume import Reference
from autocompress.records.study import Evaluation, StudyRecord
from autocompress.search import finalize, setup
from autocompress.search.dominance import Dominance
from autocompress.search.objectives import constraint_value, objective_values
from autocompress.search.problem import encode_space
from autocompress.search.sampler.encoding import EncodedSpace, configurations
from autocompress.search.sampler.guided import GuidedSampler
from autocompress.search.sampler.stock import (
    GUIDED,
    configuration_of,
    make_sampler,
    parameters,
    suggest,
    uniform_baselines,
)
from autocompress.search.specification import (
    Budget,
    Provenance,
    Resources,
    Specification,
    check_budget,
    check_specification,
    resolved,
)
from autocompress.search.storage import study_records
from autocompress.search.storage.finished_trials import FinishedTrials
from autocompress.search.storage.patient import running
from autocompress.search.storage.stored_trial import WORKER
from autocompress.search.trial_evaluation import EndsSearch, TrialEvaluation, store_failure
from autocompress.search.workers.goal import SearchGoal, announce, goal_of, withdraw
from autocompress.search.workers.locks import FileLock, ProcessorLock, WorkerRegistry, locked
from autocompress.search.workers.shared_latency import SharedLatency

OnTrial = Callable[[StudyRecord], None]
MOST_FAILURES = 20  # in a row, then the search ends
_POLL_S = 0.2  # while others run what is still to come


class Search:
    """One study opened for searching, as a context manager: it holds the study's lock, or `joins` the process that
    does.

    AutocompressError, before anything is written, for a specification or a budget that cannot be met."""

    def __init__(
        self,
        specification: Specification,
        resources: Resources,
        latency: Latency,
        *,
        budget: Budget | None = None,
        provenance: Provenance | None = None,
        expected: Known | None = None,
        joins: bool = False,
    ) -> None:
        """`budget`: what `run` goes on to unless it is told another, the default one where it is None. `expected`: what
        a calibrated model says of a file, where latencies are measured: what it shows to be hopeless is not
        measured."""
        self.budget = (budget or Budget()).limited()
        check_budget(self.budget)
        check_specification(specification)
        self.specification, self.resources = specification, resources
        self._provenance, self._joins = provenance or Provenance(), joins
        self.name = resources.name or specification.default_name
        self._folder = study_records.study_folder(resources.runs, self.name)
        self._processors = ProcessorLock()
        self._shared_latency = SharedLatency(
            specification, latency, expected, self._processors, self._folder, lambda: self.study
        )
        self.evaluator = Evaluator(
            specification.task,
            specification.profile,
            self._shared_latency,
            runs=resources.runs,
            artifacts=self._folder / "artifacts",
            seed=specification.seed,
            threads=resources.threads,
            tier=specification.tier,
            size=specification.size,
            pause=self._processors.pause,
        )
        _ = self.evaluator.batch  # whether the network runs at all
        sparse = self.evaluator.sparse_path.layers
        self.activations, self.choices = resolved(specification, self.evaluator.layers, sparse)
        self.widths = self.evaluator.base_networks.widths(specification.space)
        self._uniform_baselines = uniform_baselines(self.activations, self.choices, self.widths)
        self._sampler = make_sampler(specification.sampler, specification.seed, self._guided)
        self._stack = contextlib.ExitStack()
        self._trial_lock = FileLock(self._folder / "trial.lock", waiting=lambda: self._processors.idle())
        self._registry = WorkerRegistry(self._folder / "workers")

    def __enter__(self) -> Search:
        try:
            if not self._joins:
                self._stack.enter_context(locked(self._folder))
            self._stack.enter_context(self._registry)
            self._stack.enter_context(self._processors.building())
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self._joins:
            withdraw(self.study)
        self._stack.close()

    def undisturbed(self) -> contextlib.AbstractContextManager[None]:
        """While a measurement runs: nobody builds where it runs."""
        return self._shared_latency.undisturbed()

    def _guided(self) -> GuidedSampler:
        specification = self.specification
        return GuidedSampler(
            seed=specification.seed,
            encoded_space=lambda: self.encoded_space,
            reference=lambda: self._reference,
            objectives=specification.objectives,
            size=specification.size,
            constraints=lambda: self.specification.constraints,
            uniform_baselines=self._uniform_parameters[1],
        )

    @cached_property
    def _uniform_parameters(self) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        """Of the uniform baselines that are queued, and of those that the guided sampler has among its own
        suggestions."""
        every = [parameters(each, self.activations, self.choices, self.widths) for each in self._uniform_baselines]
        queued = len(self.activations) if self.specification.sampler == GUIDED else len(every)
        return every[:queued], every[queued:]

    @cached_property
    def encoded_space(self) -> EncodedSpace:
        """The space as the guided sampler sees it. AutocompressError where the network's layers cannot be looked at."""
        with interrupts.allowed():  # it may be needed in the middle of a suggestion
            try:
                tables, note = self.evaluator.tables(self.choices)
            except CandidateError as fault:  # of the float network: no candidate's
                raise AutocompressError(f"the layer tables cannot be made: {fault}; try another --sampler") from fault
        setup.note(self.study, note)
        return encode_space(self.evaluator, self.activations, self.choices, tables)

    @cached_property
    def _reference(self) -> Reference:
        return Reference(
            baseline=self.baseline,
            int8_download_bytes=self.study.user_attrs["int8_download_bytes"],
            higher_is_better=self.specification.task.metric.higher_is_better,
            metric_scale=self.study.user_attrs.get("metric_scale", 1.0),
        )

    def _open(self) -> None:
        specification, evaluator = self.specification, self.evaluator
        identity = setup.identity_of(specification, self.activations, self.choices, self.widths)
        url = study_records.storage_url(self.resources.runs, self.name, self.resources.storage)
        self.study = setup.open_study(self.name, url, specification, self._sampler, identity)
        if self._joins:
            evaluator.baseline = self.baseline
        else:
            setup.lay_ground(self.study, specification, self._provenance, evaluator, identity, self.activations)
            said = setup.sparse_note(specification, evaluator.sparse_path, self.baseline.measurement)
            for text in (setup.screening_note(specification) if self._shared_latency.screens else None, said):
                setup.note(self.study, text)
            self._settle()
            setup.queue(self.study, self._uniform_parameters[0])
            announce(self.study, specification, self.budget, self._registry.name)
        bounds = resolved_constraints(specification.constraints, self.baseline)
        specification = self.specification = replace(specification, constraints=bounds)
        check_specification(specification)
        finished = self._finished_trials = FinishedTrials(self.study)
        finished.read()
        spared = {each.normalised().digest for each in self._uniform_baselines}
        scores, screens = evaluator.validation_scores, self._shared_latency.screens
        dominance = Dominance(specification, finished, scores, spared, screens)
        self._answers = TrialEvaluation(self.study, evaluator, finished, dominance)
        self._shared_latency.recall(self._finished_trials.seen.values())
        self._record, self._changed = self.record(), False

    def _settle(self) -> None:
        """Hold the trial lock once, to settle what dead workers left."""
        with self._trial_lock:
            study_records.recover(self.study, self.values, self._registry.is_dead)

    def values(self, evaluation: Evaluation) -> tuple[float, ...]:
        """The values of the study's objectives; CandidateError where one could not be had."""
        return objective_values(evaluation, self.specification.objectives, self.specification.size)

    def prepare_sampler(self) -> None:
        """What the guided sampler needs before its first suggestion, the layer tables above all; else it happens
        then."""
        if isinstance(self._sampler, GuidedSampler):
            _ = self.encoded_space

    @property
    def baseline(self) -> Evaluation:
        """The float network's evaluation, as the study holds it."""
        return Evaluation.from_dict(self.study.user_attrs["baseline"])

    def record(self) -> StudyRecord:
        """The study as it stands."""
        return study_records.read_record(self.study, self._finished_trials.trials())

    def run(self, on_trial: OnTrial, budget: Budget | None = None) -> StudyRecord:
        """Run trials until the budget is met, then, unless this only joins, the careful figures of the front; the whole
        study. UnmetError after MOST_FAILURES failed trials in a row."""
        for record in self.records(budget):
            on_trial(record)
        return self.record()

    def records(self, budget: Budget | None = None) -> Iterator[StudyRecord]:
        """As `run`, giving the study each time that trials have finished. Whoever stops asking ends the search between
        two trials; `finish` then adds the careful figures."""
        if budget is not None:
            check_budget(budget)
            self.budget = budget
        self._answers.start()
        if not self._joins:
            announce(self.study, self.specification, self.budget, self._registry.name)
        yield from self._trials()
        if self._joins:
            return
        self._finish()
        reasons = self._finished_trials.failures_in_a_row()
        if len(reasons) >= MOST_FAILURES:
            raise UnmetError(f"the last {MOST_FAILURES} trials failed, the search ends; the last reason: {reasons[0]}")

    def _trials(self) -> Iterator[StudyRecord]:
        """Run what is to come, here and by others."""
        going_on = True
        while going_on:
            going_on = self._step()
            yield from self._news()
        if self._joins:
            return
        withdraw(self.study)
        while running(self.study):  # what others began
            self._wait()
            self._settle()
            self._catch_up()
            yield from self._news()

    def _news(self) -> Iterator[StudyRecord]:
        if self._changed:
            self._changed = False
            yield self._record

    def _step(self) -> bool:
        """Run one trial, or wait while others run those that are still to come; False where nothing is to come.

        One worker at a time looks at the study and begins a trial: so the number of trials is met exactly, and no
        configuration is proposed twice."""
        with self._trial_lock:
            study_records.recover(self.study, self.values, self._registry.is_dead)
            under_way = len(running(self.study))  # before what has finished is read: none may be missed
            self._catch_up()
            goal = goal_of(self.study)
            if goal is None or (self._joins and self._registry.is_dead(goal.by)) or self._enough(goal):
                return False
            exhausted = self._exhausted()
            if exhausted and not under_way:
                return False
            if not exhausted and (goal.trials is None or len(complete(self._record)) + under_way < goal.trials):
                self._run_trial()
                self._catch_up()
                return True
        self._wait()
        return True

    def _wait(self) -> None:
        interrupts.check()
        with self._processors.idle():
            time.sleep(_POLL_S)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # heartbeats are marked experimental
            optuna.storages.fail_stale_trials(self.study)

    def _run_trial(self) -> None:
        self._number: int | None = None
        interrupts.check()
        try:
            with interrupts.held():  # in the middle of Optuna's own work they make a failed trial, or a fault
                self.study.optimize(self._objective, n_trials=1, catch=(CandidateError,))
        except EndsSearch as left:
            ended = left.why
        except ValueError:  # Optuna's, which is told of a trial that has ended; what evaluations raise is a EndsSearch
            if study_records.is_failed(self.study, self._number):  # queued again by a worker that took this for dead
                return
            raise
        else:
            return
        raise ended  # here, so that the traceback shows what it came from and not Optuna

    def _catch_up(self) -> None:
        if self._finished_trials.read():
            self._record, self._changed = self.record(), True

    def _enough(self, goal: SearchGoal) -> bool:
        failing = len(self._finished_trials.failures_in_a_row()) >= MOST_FAILURES
        return failing or goal.is_met(self._record) or (goal.until_flat and is_flat(self._record))

    def _exhausted(self) -> bool:
        """Whether the guided sampler, which proposes nothing twice, has nothing left to propose."""
        # And the float network; counted first: the tables may not be needed yet.
        tried = len(self._finished_trials.records) + 1
        space = configurations(self.activations, self.choices, self.widths)
        if not isinstance(self._sampler, GuidedSampler) or space > tried:
            return False
        return self._sampler.exhausted(self.study.get_trials(deepcopy=False))

    def _objective(self, trial: optuna.Trial) -> tuple[float, ...]:
        """The values of a trial. Optuna is told of a candidate's own fault alone, which has its reason; anything else
        ends the search."""
        try:
            return self._tried(trial, self._suggested(trial))
        except (CandidateError, optuna.TrialPruned):
            raise
        except UpdateFinishedTrialError as end:
            if not study_records.is_failed(self.study, self._number):
                raise EndsSearch(end) from None
            raise
        except BaseException as end:
            raise EndsSearch(end) from None

    def _suggested(self, trial: optuna.Trial) -> Configuration:
        self._number = trial.number
        try:
            return suggest(trial, self.activations, self.choices, self.widths).normalised()
        except CandidateError as fault:  # of a file that the sampler looked at
            raise AutocompressError(f"no configuration can be proposed: {fault}") from fault

    def _tried(self, trial: optuna.Trial, configuration: Configuration) -> tuple[float, ...]:
        twins = self._twins(trial.number, configuration.digest)
        trial.set_user_attr(WORKER, self._registry.name)
        self._trial_lock.release()
        try:
            with interrupts.allowed():
                self._await(twins)
                evaluation = self._answers.evaluated(trial, configuration)
            values = self.values(evaluation)
            for constraint in self.specification.constraints:
                trial.set_constraint(str(constraint), constraint_value(evaluation, constraint))
        except CandidateError as fault:
            store_failure(trial, configuration, fault)
            raise
        except StoppedEarly as stop:
            self._answers.store_stop(trial, configuration, stop)
            raise optuna.TrialPruned(stop.reason) from stop
        return values

    def _twins(self, number: int, digest: str) -> set[int]:
        """The other trials that evaluate this configuration at the moment."""
        offered = (self.activations, self.choices, self.widths)
        others = [trial for trial in running(self.study) if trial.number != number]
        return {trial.number for trial in others if configuration_of(trial, *offered).digest == digest}

    def _await(self, twins: set[int]) -> None:
        """Wait for what others find about the same configuration."""
        while twins:
            self._wait()
            self._settle()
            twins &= {trial.number for trial in running(self.study)}
        self._finished_trials.read()

    def finish(self) -> StudyRecord:
        """The whole study, read again, with the careful figures of its front."""
        self._finished_trials.read()
        self._finish()
        return self.record()

    def _finish(self) -> None:
        if self.specification.latency_source == "measured":
            finalize.measure_front(self.study, self.evaluator, self.record)
        finalize.front_on_test_data(self.study, self.evaluator, self.record)
        finalize.store_importance(self.study, self._sampler, self.record)
