"""One cell of a night: canary, the accepted files again, the search, a second look, canary."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from autocompress.errors import AutocompressError, CandidateError, DeviceError
from autocompress.files import unchanged
from autocompress.latency.host.client import at_host
from autocompress.latency.host.retry import PatientHost
from autocompress.latency.source import LatencySource, latency_on
from autocompress.network.graph.kernel_pattern import kernel_pattern
from autocompress.records.configuration import Configuration
from autocompress.records.constraint import parse_constraint
from autocompress.records.front import Front, complete, front_of
from autocompress.records.hypervolume import reference_of
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord
from autocompress.report.units import latency_words
from autocompress.search.setup import versions
from autocompress.search.specification import Budget, Provenance, Resources, Specification
from autocompress.search.study import Search
from autocompress.session import cores, open_search
from autocompress.specs import Sweep, load_device, load_space
from autocompress.sweep import compare
from autocompress.sweep.causes import device_facts
from autocompress.sweep.compare import Pairs, Race
from autocompress.sweep.night import CellNight, Check, FileFigures, packed, spread
from autocompress.sweep.plan import Cell, study_name
from autocompress.tasks import LoadedTask, SignatureChoice, load_task

CANARY_PROCESSES = 10
_SPANNED = ("metric", "latency", "size")  # what the hypervolume of a night is over, whatever the sweep's objectives
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CellJob:
    """What a cell needs to know. `accepted`: what it was on the accepted night. `comparisons`: of the whole night.
    `time_s`: its share of it."""

    sweep: Sweep
    cell: Cell
    runs: Path
    accepted: CellNight | None
    comparisons: int
    time_s: float | None


def run_cell(job: CellJob, say: Say, remember_start: Callable[[int], int]) -> CellNight:
    """One cell of a night from its first canary to its last; where the device goes away for too long, or the search has
    to give up, what was compared by then. `remember_start` is told how many complete trials the study holds and gives
    back how many it held when the night first came here.

    DeviceError where the device does not answer at all, AutocompressError where the cell cannot be begun."""
    sweep, cell, began_s = job.sweep, job.cell, time.monotonic()
    asked = SignatureChoice(output=cell.task.output, signature=cell.task.signature)
    task = load_task(cell.task.task, cell.task.model, cell.task.data, cell.task.metric, asked)
    profile = at_host(load_device(cell.device.profile), cell.device.host)
    with latency_on(profile, wait_s=sweep.host_wait_s, say=say) as latency:
        specification = Specification(
            task=task,
            profile=profile,
            space=load_space(cell.space.space),
            latency_source=latency.source,
            sampler=sweep.sampler,
            seed=sweep.seed,
            objectives=sweep.objectives,
            size=sweep.size,
            constraints=tuple(parse_constraint(text, compiled=profile.tells_flash) for text in cell.budget.constraints),
        )
        name = study_name(sweep, cell, *_made_with(task), *_runtime(latency))
        resources = Resources(runs=job.runs, name=name, threads=max(1, cores() // len(sweep.devices)))
        named = {"device": cell.device.profile, "host": cell.device.host, "space": cell.space.space}
        budget, provenance = Budget(trials=1), Provenance(named=named)  # the budget is given when it is searched
        with open_search(
            specification, resources, latency, budget=budget, provenance=provenance, screens=False
        ) as opened:
            work = _Work(job, opened, latency.host, say)
            try:
                first = work.canary()
                work.judge_accepted()
                work.search(began_s, remember_start)
                work.confirm()
                return work.found(first)
            except AutocompressError as fault:
                return work.cut(fault)


def _made_with(task: LoadedTask) -> tuple[str, ...]:
    judged = None if task.output is None else task.output.named
    return task.network_sha256, task.data_sha256, *(() if judged is None else (judged,))


def _runtime(latency: LatencySource) -> tuple[str, ...]:
    if latency.host is None:
        return ("modelled",)
    host = latency.host.host
    return host.runtime, host.runtime_version, str(host.facts["os_bits"])


class _Work:
    """The steps of a cell whose study is open."""

    def __init__(self, job: CellJob, opened: Search, host: PatientHost | None, say: Say) -> None:
        self._job, self._opened, self._host, self._say = job, opened, host, say
        self._rules = job.sweep.rules
        self._races: dict[str, tuple[Race, bytes, bytes]] = {}  # by file: what is compared with what
        self._known: dict[str, Pairs] = {}  # by kernel pattern: pairs with the float network
        self.checks: list[Check] = []

    def canary(self) -> tuple[float, ...] | None:
        """The float network's latency now, a process each; None where it is modelled."""
        if self._host is None:
            return None
        found = compare.steady(self._float_processes, self._rules.drift)
        self._say(f"canary {median(found):.4g} ms")
        return found

    def _float_processes(self) -> tuple[float, ...]:
        assert self._host is not None
        with self._opened.undisturbed():
            measured = self._host.measure(self._opened.evaluator.float_network, processes=CANARY_PROCESSES)
        return tuple(median(samples) for samples in measured.samples_ms)

    def _pairs(self, model: bytes, reference: bytes, count: int) -> Pairs:
        """`count` pairs of fresh processes, a process of each file in turn."""
        assert self._host is not None
        found = Pairs()
        for _ in range(count):
            with self._opened.undisturbed():
                one = self._host.measure(model, baseline=reference, processes=1)
            assert one.ratio_to_baseline is not None
            memory = () if one.peak_memory_bytes is None else (one.peak_memory_bytes,)
            found += Pairs(log_ratios=(math.log(one.ratio_to_baseline),), memory_bytes=memory)
        return found

    # The accepted files

    def judge_accepted(self) -> None:
        """Build and measure each accepted file again and compare."""
        accepted = self._job.accepted
        for was in () if accepted is None else accepted.front:
            label = was.sha256[:12]
            try:
                checks = self._checks(was, label)
            except CandidateError as fault:
                checks = [compare.broken(label, "build", str(fault))]
            self.checks += checks
            self._say(f"accepted file {label}: {', '.join(c.metric for c in checks)} compared")

    def _checks(self, was: FileFigures, label: str) -> list[Check]:
        now, _ = self._opened.evaluator.evaluate(Configuration.from_dict(was.configuration).normalised())
        sizes = [
            compare.certain(label, name, getattr(was, name), getattr(now, name))
            for name in ("file_bytes", "download_bytes")
        ]
        found = [*sizes, self._metric_check(was, now, label)]
        kept = unchanged(self._job.runs / was.artifact, was.sha256)
        if kept is None:
            found.append(compare.broken(label, "artifact", f"{was.artifact} is missing or changed"))
        if self._host is None:
            latency = compare.certain(label, "latency_ms", was.latency_ms, now.measurement.known_latency_ms)
            return [*found, replace(latency, note=latency_words(now.measurement))]
        return [*found, *self._measured_checks(was, now, kept, label)]

    def _metric_check(self, was: FileFigures, now: Evaluation, label: str) -> Check:
        task, accepted = self._opened.specification.task, self._job.accepted
        if accepted is not None and accepted.data_sha256 != task.data_sha256:
            return Check(
                file=label, metric="accuracy", before=was.accuracy, after=now.accuracy, note="the data changed"
            )
        rises = task.metric.higher_is_better
        return compare.metric_check(label, was, now.accuracy, self._scores(now), rises=rises)

    def _measured_checks(self, was: FileFigures, now: Evaluation, kept: bytes | None, label: str) -> list[Check]:
        """Latency and memory: in turn with the accepted file itself or, where tonight's is the same, with the float
        network, as on the accepted night."""
        same, floats = now.sha256 == was.sha256, self._opened.evaluator.float_network
        if kept is None or (same and not was.log_ratios):
            why = "the accepted file is missing" if kept is None else "the accepted night measured no pairs"
            return [Check(file=label, metric="latency_ms", before=was.latency_ms, after=None, note=why)]
        model = kept if same else (self._job.runs / now.artifact).read_bytes()
        reference = floats if same else kept
        before = Pairs(log_ratios=was.log_ratios, memory_bytes=was.memory_bytes)
        race = Race(before if same else None, self._rules, self._job.comparisons)
        race.run(lambda count: self._pairs(model, reference, count))
        if race.is_worse_or_better():
            self._races[label] = (race, model, reference)
        memory = compare.memory_check(label, was.memory_bytes, race.pairs.memory_bytes)
        return [race.latency_check(label, was.latency_ms), *([] if memory is None else [memory])]

    def confirm(self) -> None:
        """Look again, at the end of the night, at every latency that seems to have changed."""
        for label, (race, model, reference) in self._races.items():
            again = race.confirms(self._pairs(model, reference, self._rules.pairs[1]))
            self._say(f"accepted file {label}: the change of its latency {'stands' if again else 'was not seen again'}")
            self.checks = [
                replace(check, confirmed=again) if (check.file, check.metric) == (label, "latency_ms") else check
                for check in self.checks
            ]

    # The search

    def search(self, began_s: float, remember_start: Callable[[int], int]) -> None:
        """Go on with the study until its budget or the cell's share of the night is used up."""
        budget, held = self._job.cell.budget, _complete(self._opened.record())
        start = remember_start(held)
        more = None if budget.trials_per_night is None else start + budget.trials_per_night
        wanted = [count for count in (budget.trials, more) if count is not None]
        left = [budget.time_s] if budget.time_s is not None else []
        if self._job.time_s is not None:
            left.append(self._job.time_s - (time.monotonic() - began_s) - self._reserved_s())
        time_s, trials = min(left, default=None), min(wanted, default=None)
        if time_s is not None and time_s <= 0:
            self._say("no time left to search")
        elif trials is None or held < trials:
            tonight = Budget(trials=trials, time_budget_s=time_s)
            self._opened.run(lambda record: self._said(record, trials), tonight)
            return
        if held:  # the careful figures of the front, where some are missing
            self._opened.run(lambda _: None, Budget(trials=held))

    def _reserved_s(self) -> float:
        """What the figures of the front will take, at a second a pair and file."""
        return 0.0 if self._host is None else 1.0 * self._rules.pairs[1] * self._rules.files

    def _said(self, record: StudyRecord, trials: int | None) -> None:
        done = _complete(record)
        self._say(f"trial {done}" + (f" of {trials}" if trials is not None else ""))

    # What the night stores

    def cut(self, fault: AutocompressError) -> CellNight:
        """The cell where it had to end early: what was compared stands, but no change of a latency that was seen only
        once."""
        note = "the cell ended before a second look"
        return CellNight(
            cell=self._job.cell.name,
            state="away" if isinstance(fault, DeviceError) else "failed",
            reason=str(fault),
            study=self._opened.name,
            metric=self._opened.specification.task.metric.name,
            higher_is_better=self._opened.specification.task.metric.higher_is_better,
            data_sha256=self._opened.specification.task.data_sha256,
            latency_source=self._opened.specification.latency_source,
            trials=_complete(self._opened.record()),
            checks=tuple(
                replace(check, p=None, note=note)
                if check.metric == "latency_ms" and check.file in self._races and check.confirmed is None
                else check
                for check in self.checks
            ),
        )

    def found(self, first: tuple[float, ...] | None) -> CellNight:
        """The cell as it stands at the end of the night."""
        record, specification, accepted = self._opened.record(), self._opened.specification, self._job.accepted
        trials, spanning = front_of(record).trials, Front(replace(record, objectives=_SPANNED, size="download")).strict
        front = self._front([trials[n] for n in spread(len(trials), self._rules.files)])
        last = self.canary()
        night = CellNight(
            cell=self._job.cell.name,
            state="done",
            study=record.name,
            metric=record.metric_name,
            higher_is_better=record.higher_is_better,
            data_sha256=specification.task.data_sha256,
            latency_source=record.latency_source,
            canary_ms=None if first is None or last is None else (first, last),
            trials=_complete(record),
            front=front,
            points=tuple(_point(trial) for trial in spanning),
            scales=_scales(record),
            metric_scale=record.metric_scale,
            versions=_versions(record),
            network_sha256=specification.task.network_sha256,
            device=None if self._host is None else device_facts(self._host.host.facts),
        )
        night = replace(night, hypervolume=night.volume())
        volume = () if accepted is None else (compare.hypervolume_check(accepted, night),)
        return replace(night, checks=(*self.checks, *volume))

    def _front(self, trials: Sequence[TrialRecord]) -> tuple[FileFigures, ...]:
        """The figures of these files. One that is not what it was stored as is named and left out."""
        found = []
        for trial in trials:
            assert trial.evaluation is not None
            model = unchanged(self._job.runs / trial.evaluation.artifact, trial.evaluation.sha256)
            if model is not None:
                found.append(self._figures(trial.number, trial.evaluation, model))
            elif ("artifact", label := trial.evaluation.sha256[:12]) not in {(c.metric, c.file) for c in self.checks}:
                why = f"{trial.evaluation.artifact} is missing or changed"
                self.checks.append(compare.broken(label, "artifact", why))
        return tuple(found)

    def _figures(self, number: int, evaluation: Evaluation, model: bytes) -> FileFigures:
        pairs = self._reference_pairs(model)
        return FileFigures(
            trial=number,
            configuration=evaluation.configuration.to_dict(),
            sha256=evaluation.sha256,
            artifact=evaluation.artifact,
            file_bytes=evaluation.file_bytes,
            download_bytes=evaluation.download_bytes,
            accuracy=evaluation.accuracy,
            latency_ms=evaluation.measurement.known_latency_ms,
            extrapolated=evaluation.measurement.extrapolated,
            log_ratios=pairs.log_ratios,
            memory_bytes=pairs.memory_bytes,
            scores=self._scores(evaluation),
        )

    def _reference_pairs(self, model: bytes) -> Pairs:
        """Pairs with the float network, once a kernel pattern: files of one take the same time."""
        if self._host is None:
            return Pairs()
        pattern = kernel_pattern(model)
        if pattern not in self._known:
            self._known[pattern] = self._pairs(model, self._opened.evaluator.float_network, self._rules.pairs[1])
        return self._known[pattern]

    def _scores(self, evaluation: Evaluation) -> str | None:
        return packed(self._opened.evaluator.validation_scores(evaluation))


def _complete(record: StudyRecord) -> int:
    return len(complete(record))


def _point(trial: TrialRecord) -> tuple[float, ...]:
    evaluation = trial.evaluation
    assert evaluation is not None
    latency = evaluation.measurement.known_latency_ms
    low, high = evaluation.measurement.latency_ci_ms or (latency, latency)
    return evaluation.accuracy, latency, low, high, float(evaluation.download_bytes)


def _scales(record: StudyRecord) -> tuple[float, float, float]:
    reference = reference_of(record)
    latency_ms, download = reference.unit("latency_ms"), reference.unit("download_bytes")
    return record.baseline.accuracy, latency_ms, download


def _versions(record: StudyRecord) -> Mapping[str, str]:
    measured = record.baseline.measurement
    device: dict[str, Any] = (
        {} if measured.runtime is None else {"device": f"{measured.runtime} {measured.runtime_version}"}
    )
    return versions() | device
