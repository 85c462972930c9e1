"""A search: its trials, from the first to the last that was asked for, alone or with other workers."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from functools import cached_property

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from autocompress import interrupts
from autocompress.errors import AutocompressError, CandidateError, UnmetError
from autocompress.evaluate.early_stopping import Screened, StoppedEarly
from autocompress.evaluate.evaluator import Evaluator, Known, Latency
from autocompress.records.configuration import Configuration
from autocompress.records.front import complete, is_flat
from autocompress.records.study import Evaluation, StudyRecord
from autocompress.search import finalize, setup
from autocompress.search.dominance import Dominance
from autocompress.search.objectives import constraint_value, objective_values
from autocompress.search.request import Request, check_request, resolved
from autocompress.search.sampler.encoding import EncodedSpace, configurations, encode_space
from autocompress.search.sampler.guided import GuidedSampler
from autocompress.search.sampler.history import Reference
from autocompress.search.sampler.stock import GUIDED, make_sampler, parameters, suggest, uniform_baselines
from autocompress.search.storage import study_records
from autocompress.search.storage.finished_trials import FinishedTrials
from autocompress.search.storage.patient import running
from autocompress.search.workers.goal import SearchGoal, announce, goal_of, withdraw
from autocompress.search.workers.locks import ProcessorLock, TrialLock, WorkerRegistry, locked
from autocompress.search.workers.shared_latency import SharedLatency
from autocompress.specs import CalibratedModel

Progress = Callable[[StudyRecord], None]
MOST_FAILURES = 20  # in a row, then the search ends
_POLL_S = 0.2  # while others run what is still to come


class _Left(BaseException):
    """Carries what ends a search out of Optuna, which would store any Exception as a failure of the trial: a device or
    a storage that is away, Ctrl-C, and every fault of ours. The trial stays running and is recovered when the search
    goes on."""

    def __init__(self, why: BaseException) -> None:
        self.why = why


class Search:
    """One study opened for searching, as a context manager: it holds the study's lock, or `joins` the process that
    does.

    AutocompressError, before anything is written, for a request that cannot be met."""

    def __init__(
        self, request: Request, latency: Latency, *, expected: Known | None = None, joins: bool = False
    ) -> None:
        """`expected`: what a calibrated model says of a file, where latencies are measured: what it shows to be
        hopeless is not measured."""
        check_request(request)
        self.request, self._joins = request, joins
        self._folder = study_records.study_folder(request.runs, request.study_name)
        self._processors, self._remarked = ProcessorLock(), set[str]()
        self._shared_latency = SharedLatency(
            request, latency, expected, self._processors, self._folder, lambda: self.study
        )
        self.evaluator = Evaluator(
            request.task,
            request.profile,
            self._shared_latency.latency,
            runs=request.runs,
            artifacts=self._folder / "artifacts",
            seed=request.seed,
            threads=request.threads,
            tier=request.tier,
            size=request.size,
            pause=self._processors.pause,
            known=self._shared_latency.known,
            expected=self._shared_latency.expected,
        )
        _ = self.evaluator.batch  # whether the network runs at all
        sparse = self.evaluator.sparse_path.layers
        self.activations, self.choices = resolved(request, self.evaluator.layers, sparse)
        self.widths = self.evaluator.base_networks.widths(request.space)
        self._uniform_baselines = uniform_baselines(self.activations, self.choices, self.widths)
        self._sampler = make_sampler(request.sampler, request.seed, self._guided)
        self._stack = contextlib.ExitStack()
        self._trial_lock, self._registry = TrialLock(self._folder / "turn"), WorkerRegistry(self._folder / "workers")

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
        request = self.request
        return GuidedSampler(
            seed=request.seed,
            encoded_space=lambda: self.encoded_space,
            reference=lambda: self._reference,
            objectives=request.objectives,
            size=request.size,
            constraints=request.constraints,
            uniform_baselines=self._uniform_parameters[1],
        )

    @cached_property
    def _uniform_parameters(self) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        """Of the uniform baselines that are queued, and of those that the guided sampler has among its own suggestions."""
        every = [
            parameters(uniform_baseline, self.activations, self.choices, self.widths)
            for uniform_baseline in self._uniform_baselines
        ]
        queued = len(self.activations) if self.request.sampler == GUIDED else len(every)
        return every[:queued], every[queued:]

    @cached_property
    def encoded_space(self) -> EncodedSpace:
        """The space as the guided sampler sees it. AutocompressError where the network's layers cannot be looked at."""
        with interrupts.allowed():  # it may be needed in the middle of a suggestion
            try:
                tables, note = self.evaluator.tables(self.choices)
            except CandidateError as fault:  # of the float network: no candidate's
                raise AutocompressError(f"the layer tables cannot be made: {fault}; try another --sampler") from fault
        if note is not None:
            setup.note(self.study, note)
        return encode_space(self.evaluator, self.activations, self.choices, tables)

    @cached_property
    def _reference(self) -> Reference:
        return Reference(
            baseline=self.baseline,
            int8_download_bytes=self.study.user_attrs["int8_download_bytes"],
            higher_is_better=self.request.task.metric.higher_is_better,
        )

    def _open(self) -> None:
        request, evaluator = self.request, self.evaluator
        identity = setup.identity_of(request, self.activations, self.choices, self.widths)
        self.study = setup.open_study(request, self._sampler, identity)
        if self._joins:
            evaluator.baseline = self.baseline
        else:
            setup.lay_ground(self.study, request, evaluator, identity, self.activations)
            if self._shared_latency.screens:
                setup.note(self.study, self._screening())
            if (said := setup.sparse_note(request, evaluator.sparse_path, self.baseline.measurement)) is not None:
                setup.note(self.study, said)
            self._settle()
            setup.queue(self.study, self._uniform_parameters[0])
            announce(self.study, request, self._registry.name)
        self._finished_trials = FinishedTrials(self.study)
        self._finished_trials.read()
        spared = {uniform_baseline.normalised().digest for uniform_baseline in self._uniform_baselines}
        self._dominance = Dominance(request, self._finished_trials, evaluator.validation_scores, spared)
        self._shared_latency.recall(self._finished_trials.seen.values())
        self._record = self.record()

    def _screening(self) -> str:
        model = self.request.profile.latency_model
        when = f" of {model.measured_on}" if isinstance(model, CalibratedModel) else ""
        return f"latencies were predicted first, by the calibration{when}: what cannot enter the front was not measured"

    def _settle(self) -> None:
        """Take the turn once, to settle what dead workers left."""
        with self._trial_lock:
            study_records.recover(self.study, self.values, self._registry.is_dead)

    def values(self, evaluation: Evaluation) -> tuple[float, ...]:
        """The values of the study's objectives; CandidateError where one could not be had."""
        return objective_values(evaluation, self.request.objectives, self.request.size)

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

    def run(self, on_trial: Progress) -> StudyRecord:
        """Run trials until the request is met, then, unless this only joins, the careful figures of the front; the
        whole study.

        UnmetError after MOST_FAILURES failed trials in a row."""
        self._lap = time.perf_counter()
        if not self._joins:
            announce(self.study, self.request, self._registry.name)
        while self._step(on_trial):
            pass
        if self._joins:
            return self.record()
        withdraw(self.study)
        while running(self.study):  # what others began
            self._wait()
            self._settle()
            self._catch_up(on_trial)
        self._finish()
        reasons = self._finished_trials.failures_in_a_row()
        if len(reasons) >= MOST_FAILURES:
            raise UnmetError(f"the last {MOST_FAILURES} trials failed, the search ends; the last reason: {reasons[0]}")
        return self.record()

    def _step(self, on_trial: Progress) -> bool:
        """Run one trial, or wait while others run those that are still to come; False where nothing is to come.

        One worker at a time looks at the study and begins a trial: so the number of trials is met exactly, and no
        configuration is proposed twice."""
        with self._trial_lock:
            study_records.recover(self.study, self.values, self._registry.is_dead)
            under_way = len(running(self.study))  # before what has finished is read: none may be missed
            self._catch_up(on_trial)
            goal = goal_of(self.study)
            if goal is None or (self._joins and self._registry.is_dead(goal.by)) or self._enough(goal):
                return False
            exhausted = self._exhausted()
            if exhausted and not under_way:
                return False
            if not exhausted and (goal.trials is None or len(complete(self._record)) + under_way < goal.trials):
                self._run_trial()
                self._catch_up(on_trial)
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
        except _Left as left:
            ended = left.why
        except ValueError:  # Optuna's, which is told of a trial that has ended; what evaluations raise is a _Left
            if self._taken():
                return
            raise
        else:
            return
        raise ended  # here, so that the traceback shows what it came from and not Optuna

    def _taken(self) -> bool:
        """Whether the last trial was failed and queued again by a worker of another machine that took this for dead."""
        failed = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return any(trial.number == self._number for trial in failed)

    def _catch_up(self, on_trial: Progress) -> None:
        if self._finished_trials.read():
            self._record = self.record()
            on_trial(self._record)

    def _enough(self, goal: SearchGoal) -> bool:
        failing = len(self._finished_trials.failures_in_a_row()) >= MOST_FAILURES
        return failing or goal.is_met(self._record) or (goal.until_flat and is_flat(self._record))

    def _exhausted(self) -> bool:
        """Whether the guided sampler, which proposes nothing twice, has nothing left to propose."""
        tried = (
            len(self._finished_trials.records) + 1
        )  # and the float network; counted first: the tables may not be needed yet
        space = configurations(self.activations, self.choices, self.widths)
        if not isinstance(self._sampler, GuidedSampler) or space > tried:
            return False
        return self._sampler.exhausted(self.study.get_trials(deepcopy=False))

    def _objective(self, trial: optuna.Trial) -> tuple[float, ...]:
        """The values of a trial. Optuna is told of a candidate's own fault alone, which has its reason; anything else
        ends the search."""
        try:
            return self._tried(trial)
        except (CandidateError, optuna.TrialPruned):
            raise
        except UpdateFinishedTrialError as end:
            if not self._taken():
                raise _Left(end) from None
            raise
        except BaseException as end:
            raise _Left(end) from None

    def _tried(self, trial: optuna.Trial) -> tuple[float, ...]:
        self._number = trial.number
        configuration = suggest(trial, self.activations, self.choices, self.widths).normalised()
        twins = self._twins(trial.number, configuration.digest)
        trial.set_user_attr("worker", self._registry.name)
        self._trial_lock.release()
        try:
            with interrupts.allowed():
                self._await(twins)
                evaluation = self._evaluated(trial, configuration)
            values = self.values(evaluation)
            for constraint in self.request.constraints:
                trial.set_constraint(str(constraint), constraint_value(evaluation, constraint))
        except CandidateError as fault:
            trial.set_user_attr("digest", configuration.digest)
            trial.set_user_attr("reason", str(fault))
            raise
        except StoppedEarly as stop:
            self._store_stop(trial, configuration, stop)
            raise optuna.TrialPruned(stop.reason) from stop
        return values

    def _twins(self, number: int, digest: str) -> set[int]:
        """The other trials that evaluate this configuration at the moment."""
        others = [trial for trial in running(self.study) if trial.number != number]
        return {trial.number for trial in others if self._digest(trial) == digest}

    def _digest(self, trial: FrozenTrial) -> str:
        fixed = optuna.trial.FixedTrial(trial.params)
        return suggest(fixed, self.activations, self.choices, self.widths).normalised().digest

    def _await(self, twins: set[int]) -> None:
        """Wait for what others find about the same configuration."""
        while twins:
            self._wait()
            self._settle()
            twins &= {trial.number for trial in running(self.study)}
        self._finished_trials.read()

    def _store_stop(self, trial: optuna.Trial, configuration: Configuration, stop: StoppedEarly) -> None:
        """What was seen of a candidate that was stopped early, under names of its own: never mixed with full values."""
        self._finished_trials.stopped[configuration.digest] = stop
        trial.set_user_attr("digest", configuration.digest)
        trial.set_user_attr("reason", stop.reason)
        trial.set_user_attr("divergence", stop.divergence)
        seen: dict[str, float] = {"samples": stop.samples, "accuracy": stop.accuracy}
        if isinstance(stop, Screened):
            seen |= {
                "latency_ms": stop.latency_ms,
                "file_bytes": stop.file_bytes,
                "download_bytes": stop.download_bytes,
            }
        trial.set_user_attr("seen", seen)
        self._lapse(trial)

    def _lapse(self, trial: optuna.Trial) -> None:
        now = time.perf_counter()
        trial.set_user_attr("wall_s", now - self._lap)
        self._lap = now

    def _evaluated(self, trial: optuna.Trial, configuration: Configuration) -> Evaluation:
        """The evaluation of a configuration, from the study's records where it has been seen; stored in the trial."""
        if (reason := self._finished_trials.failed.get(configuration.digest)) is not None:
            raise CandidateError(reason)
        if (stop := self._finished_trials.stopped.get(configuration.digest)) is not None:
            raise stop
        known = self._finished_trials.seen.get(configuration.digest)
        try:
            if known is not None:
                evaluation, divergence = known, None
            elif self._dominance.may_end(configuration):
                screen = self._dominance.screen if self._shared_latency.screens else None
                evaluation, divergence = self.evaluator.evaluate(configuration, self._dominance.threshold, screen)
            else:
                evaluation, divergence = self.evaluator.evaluate(configuration)
        except CandidateError as fault:
            self._finished_trials.failed[configuration.digest] = str(fault)
            raise
        self._finished_trials.seen[configuration.digest] = evaluation
        self._remark()
        self._lapse(trial)
        if known is not None:
            trial.set_user_attr("cached", True)
        if divergence is not None:
            trial.set_user_attr("divergence", divergence)
        trial.set_user_attr("evaluation", evaluation.to_dict())
        return evaluation

    def _remark(self) -> None:
        for remark in self.evaluator.remarks:
            if remark not in self._remarked:
                self._remarked.add(remark)
                setup.note(self.study, remark)

    def finish(self) -> StudyRecord:
        """The whole study, read again, with the careful figures of its front."""
        self._finished_trials.read()
        self._finish()
        return self.record()

    def _finish(self) -> None:
        if self.request.latency_source == "measured":
            finalize.measure_front(self.study, self.evaluator, self.record)
        finalize.front_on_test_data(self.study, self.evaluator, self.record)
        finalize.store_importance(self.study, self._sampler, self.record)
