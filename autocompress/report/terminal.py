"""What people see of a search in a terminal: header, progress, front; all of it on the console that is given."""

from __future__ import annotations

import posixpath
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autocompress.records.constraint import value_of, violation
from autocompress.records.front import STATES, Front, complete, evaluated, evaluated_count, front_of, nearest, why_empty
from autocompress.records.measurement import Measurement
from autocompress.records.study import Constraint, Evaluation, StudyRecord, TrialRecord
from autocompress.report import study_document
from autocompress.report.importance import kernel_lines, rough_lines, whole_channel_lines
from autocompress.report.units import alike_line, all_alike, compiled_words, interval, latency_words, score, sizes_shown
from autocompress.report.units import digits as _digits
from autocompress.report.units import duration as _time
from autocompress.report.units import kilobytes as _kb
from autocompress.report.units import memory_estimate as _memory
from autocompress.report.units import text as _text

_STATUS_EVERY_S = 10.0  # between status lines where there is no terminal
_APART_WIDTH = 120  # columns from which test value and file size stand in columns of their own
_ONE_LINE_WIDTH = 190  # columns from which a point of the front takes one line
# Of all columns but the configuration's, by the first word of their headers, so that no number is cut.
_WIDTHS_60 = {"trial": 8, "validation": 10, "latency": 12, "download": 8}
_WIDTHS_80 = {"trial": 8, "validation": 18, "latency": 13, "download": 13}
_LAYERS_NAMED = 4  # of those that keep all channels, a reason

Part = tuple[str, str]  # text, style


def print_header(
    console: Console,
    record: StudyRecord,
    *,
    layers: int,
    configurations_log10: float,
    second_runtime: tuple[str, Measurement] | None = None,
) -> None:
    """What is searched and from where it starts. `layers` counts those of the network, `configurations_log10` is the
    size of the space as a power of ten, `second_runtime` another runtime's name and the baseline's latency there."""
    baseline, unit = record.baseline, _unit(record)
    power = configurations_log10
    size = f"10^{power:.0f}" if power >= 4 else f"{10**power:,.0f}"
    lines = [
        ("task", f"{record.task} · metric {record.metric_name}"),
        ("output", "" if record.output is None else record.output.words),
        ("device", f"{record.device} · latency {_source(baseline.measurement)}"),
        ("space", f"{record.space} · {size} configurations over {layers} layers"),
        ("search", f"{record.sampler} · seed {record.seed} · {', '.join(record.objectives)}"),
        ("", " and ".join(map(str, record.constraints))),
        ("baseline", f"{record.metric_name} {score(baseline.accuracy, record.metric_scale)} on validation data"),
        ("", "" if baseline.measurement.latency_ms is None else _latency_line(baseline.measurement, unit)),
        ("", compiled_words(baseline.measurement)),
    ]
    for n, line in enumerate(whole_channel_lines(record, _LAYERS_NAMED)):
        lines.insert(4 + n, ("channels" if n == 0 else "", f"all stay in {line}"))
    if record.left_out is not None:
        lines.insert(4, ("kernels", record.left_out))
    if second_runtime is not None:
        lines.append(("", f"{_latency_line(second_runtime[1], unit)} with {second_runtime[0]}"))
    sizes = f"{_kb(baseline.download_bytes)} download · {_kb(baseline.file_bytes)} file"
    lines.append(("", sizes + _memory(baseline.measurement)))
    grid = Table.grid(padding=(0, 2, 0, 0))
    for label, value in lines:
        if value:
            grid.add_row(_text(console, label, "bold"), _text(console, value))
    title = _text(console, f"autocompress search · {record.name}", "bold")
    console.print(Panel(grid, title=title, title_align="left", expand=False))


class SearchProgress:
    """The progress of a running search: a context manager whose `update` takes the study as it now is.

    On a terminal a bar with the rate and the best points; elsewhere a line for each new point of the front
    and a status line about every ten seconds. Either way each failed trial is named with its reason.
    """

    def __init__(
        self,
        console: Console,
        record: StudyRecord,
        *,
        trials: int | None = None,
        time_budget_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`record` is the study before this run, whose rate starts from there. The search ends when the
        study holds `trials` complete trials or `time_budget_s` after the entry; None: no such end."""
        self._console, self._clock = console, clock
        self._trials, self._time_budget_s = trials, time_budget_s
        self._record, self._front = record, front_of(record)
        self._complete_before = len(complete(record))
        self._evaluated_before = evaluated_count(record)
        self._front_seen = {trial.number for trial in self._front.trials}
        self._failed_seen = {trial.number for trial in record.trials if trial.state == "failed"}
        self._began_s = self._status_s = clock()
        self._live: Live | None = None

    def __enter__(self) -> SearchProgress:
        self._began_s = self._status_s = self._clock()
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._frame,
                refresh_per_second=4,
                redirect_stdout=not self._console.stderr,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._print(self._status())

    def update(self, record: StudyRecord) -> None:
        """Show the study as it now is."""
        self._record, self._front = record, front_of(record)
        for trial in record.trials:
            if trial.state == "failed" and trial.number not in self._failed_seen:
                self._failed_seen.add(trial.number)
                self._print(f"trial {trial.number} failed: {trial.reason or 'no reason given'}")
        if self._live is None:
            self._print_news()

    def _print_news(self) -> None:
        for trial in self._front.trials:
            if trial.number not in self._front_seen and trial.evaluation is not None:
                self._front_seen.add(trial.number)
                self._print(f"trial {trial.number}: {_point(self._record, trial.evaluation)}")
        if self._clock() - self._status_s >= _STATUS_EVERY_S:
            self._status_s = self._clock()
            self._print(self._status())

    def _print(self, line: str) -> None:
        self._console.print(_text(self._console, line), soft_wrap=self._live is None)

    def _frame(self) -> Table:
        lines = [self._status(), *_best_points(self._record, self._front.trials)]
        elapsed_s = self._clock() - self._began_s
        done = [0.0]
        done += [len(complete(self._record)) / self._trials] if self._trials else []
        done += [elapsed_s / self._time_budget_s] if self._time_budget_s else []
        bar = ProgressBar(total=1.0, completed=min(max(done), 1.0), pulse=len(done) == 1)
        frame = Table.grid(expand=True)
        frame.add_row(bar)
        for line in lines:
            frame.add_row(_text(self._console, line))
        return frame

    def _status(self) -> str:
        elapsed_s = self._clock() - self._began_s
        done = len(complete(self._record))
        parts = [f"{done}/{self._trials} trials" if self._trials is not None else f"{done} trials"]
        if elapsed_s > 0:
            evaluated = evaluated_count(self._record) - self._evaluated_before
            parts.append(f"{60 * evaluated / elapsed_s:.0f} candidates/min")
        parts.append(f"{_time(elapsed_s)} elapsed")
        left_s = self._left_s(done, elapsed_s)
        parts += [] if left_s is None else [f"{_time(left_s)} left"]
        failed = sum(trial.state == "failed" for trial in self._record.trials)
        parts += [f"{failed} failed"] if failed else []
        stopped = sum(trial.state == "stopped_early" for trial in self._record.trials)
        parts += [f"{stopped} stopped early"] if stopped else []
        screened = sum(trial.state == "screened" for trial in self._record.trials)
        parts += [f"{screened} screened"] if screened else []
        return " · ".join(
            [*parts, f"hypervolume {self._front.hypervolume:.4f}", f"{len(self._front.trials)} on the front"]
        )

    def _left_s(self, done: int, elapsed_s: float) -> float | None:
        """What remains of the trials at the pace of this run, or of the time, whichever ends first."""
        left = []
        if self._trials is not None and done > self._complete_before:
            left.append(max(self._trials - done, 0) * elapsed_s / (done - self._complete_before))
        if self._time_budget_s is not None:
            left.append(max(self._time_budget_s - elapsed_s, 0.0))
        return min(left, default=None)


def print_front(console: Console, record: StudyRecord, *, runs: str = "runs", options: Sequence[str] = ()) -> None:
    """The front as a table, where its files are, and the command to type next; if it is empty, why, and what
    comes nearest. `runs` is the runs folder, `options` what that command needs to find it (`--runs DIR
    --storage URL`)."""
    front = front_of(record)
    trials = front.trials
    states = Counter(trial.state for trial in record.trials)
    counts = [f"{states[s]} {s.replace('_', ' ')}" for s in STATES if states[s] or s == "complete"]
    title = f"Front of study {record.name}: {len(trials)} of {len(record.trials)} trials ({', '.join(counts)})"
    console.print(_text(console, f"{title} · hypervolume {front.hypervolume:.4f}", "bold"))
    if trials:
        console.print(_table(console, front))
        alike = alike_line([e.measurement for e in (record.baseline, *map(evaluated, trials))])
        for line in (*(alike or rough_lines(record)), *kernel_lines(record, front.pick("knee"))):
            console.print(_text(console, line))
        _print_next(console, record, trials, runs, options)
    else:
        _print_nearest(console, record)
    for note in record.notes:
        console.print(_text(console, f"note: {note}"))


def _print_next(
    console: Console, record: StudyRecord, trials: Sequence[TrialRecord], runs: str, options: Sequence[str]
) -> None:
    folders = sorted({posixpath.dirname(t.evaluation.artifact) for t in trials if t.evaluation is not None})
    places = ", ".join(posixpath.join(runs, folder, "") for folder in folders)
    command = shlex.join(["autocompress", "export", record.name, "--pick", "knee", *options])
    # Never wrapped by us: both are there to be copied.
    console.print(_text(console, f"Files: {places} (named by their SHA-256)"), soft_wrap=True)
    console.print(_text(console, f"Next:  {command}", "bold"), soft_wrap=True)


def _print_nearest(console: Console, record: StudyRecord) -> None:
    console.print(_text(console, f"The front is empty: {why_empty(record)}."))
    for trial in nearest(record) if record.constraints else ():
        evaluation = trial.evaluation
        if evaluation is not None:
            missed = [c for c in record.constraints if violation(evaluation, c) > 0]
            got = ", ".join(_missed(evaluation, constraint) for constraint in missed)
            line = f"nearest: trial {trial.number}, {got} · {_point(record, evaluation)}"
            console.print(_text(console, line))


def _missed(evaluation: Evaluation, constraint: Constraint) -> str:
    value = value_of(evaluation, constraint.name)
    got = "missing" if value is None else f"{value:g}"
    return f"{constraint.name} {got} (asked {constraint.relation}{constraint.bound:g})"


def _table(console: Console, front: Front) -> Table:
    record, picked = front.record, dict[int, list[Part]]()
    for name, trial in front.picks.items():
        picked.setdefault(trial.number, []).append((name, "bold"))
    points = [([(str(t.number), ""), *picked.get(t.number, [])], t.evaluation) for t in front.trials]
    listed = [([("baseline", "")], record.baseline), *((name, e) for name, e in points if e is not None)]
    lines = [_cells(record, name, evaluation, console.width) for name, evaluation in listed]
    if all_alike([evaluation.measurement for _, evaluation in listed]):
        lines = [{header: parts for header, parts in cells.items() if header != "latency"} for cells in lines]
    between = " " if console.width >= _ONE_LINE_WIDTH else "\n"
    apart = 0 if between == " " else 1
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), leading=apart)
    fixed = {} if console.width >= _APART_WIDTH else _WIDTHS_80 if console.width >= 80 else _WIDTHS_60
    for header in lines[0]:
        width = fixed.get(header.partition(" ")[0])
        table.add_column(_text(console, header), overflow="fold", width=width)
    for cells in lines:
        texts = ([_text(console, *part) for part in parts] for parts in cells.values())
        table.add_row(*(Text(between).join(text) for text in texts))
    return table


def _cells(record: StudyRecord, name: list[Part], evaluation: Evaluation, width: int) -> dict[str, list[Part]]:
    """Column header -> what stands in that column for one point."""
    metric, tests = _metric_parts(record, evaluation), _test_parts(record, evaluation)
    source = [(part, "dim") for part in _source_parts(evaluation.measurement, _unit(record), short=True)]
    latency = _latency(evaluation.measurement, _unit(record))
    latency = f"{latency} {_latency_change(record, evaluation)}".strip()
    counted, other = sizes_shown(evaluation.measurement)
    size, beside_it = (_size(record, evaluation, name) for name in (counted, other))
    artifact = (f"{evaluation.sha256[:8]}….tflite", "dim")
    narrow = width < _APART_WIDTH
    beside = [(f"test {tests[0][0]}", ""), *tests[1:]] if tests else []
    return {
        "trial": name,
        f"validation {record.metric_name}": metric + beside * narrow,
        **({} if narrow or not record.test_accuracy else {f"test {record.metric_name}": tests or [("-", "")]}),
        "latency": [(latency, ""), *source],
        counted: [(size, "")] + [(other, "dim"), (beside_it, "dim")] * narrow,
        **({} if narrow else {other: [(beside_it, "")]}),
        "configuration": [(study_document.summary(evaluation.configuration), "")] + [artifact] * (not narrow),
        **_optional_cells(record, evaluation),
    }


def _optional_cells(record: StudyRecord, evaluation: Evaluation) -> dict[str, list[Part]]:
    """Memory and energy where the study has them for objectives."""
    memory, energy = evaluation.measurement.peak_memory_bytes, evaluation.energy_mj
    ram = evaluation.measurement.ram_bytes
    cells: dict[str, list[Part]] = {
        "memory": [("-" if memory is None else _kb(memory), "")],
        "ram": [("-" if ram is None else _kb(ram), "")],
        "energy": [("-", "")] if energy is None else [(f"{_digits(energy)} mJ", ""), ("estimated", "dim")],
    }
    return {name: parts for name, parts in cells.items() if name in record.objectives}


def _test_parts(record: StudyRecord, evaluation: Evaluation) -> list[Part]:
    """The value on the test split and its interval; nothing where it was not computed."""
    tested, ends = record.test_accuracy.get(evaluation.sha256), record.test_ci.get(evaluation.sha256)
    if tested is None:
        return []
    scale = record.metric_scale
    return [(score(tested, scale), "")] + ([] if ends is None else [(interval(ends, scale), "dim")])


def _metric_parts(record: StudyRecord, evaluation: Evaluation) -> list[Part]:
    scale = record.metric_scale
    value = score(evaluation.accuracy, scale)
    if evaluation is record.baseline:
        return [(value, ""), (interval(evaluation.accuracy_ci, scale), "dim")]
    parts = [(f"{value} {score(evaluation.accuracy - record.baseline.accuracy, scale, '+')}", "")]
    delta_ci = evaluation.accuracy_delta_ci
    return parts if delta_ci is None else [*parts, (interval(delta_ci, scale, "+"), "dim")]


def _point(record: StudyRecord, evaluation: Evaluation) -> str:
    """One point in one line."""
    delta, scale = evaluation.accuracy - record.baseline.accuracy, record.metric_scale
    measurement = evaluation.measurement
    latency = f"{_latency(measurement, _unit(record))} ({_latency_change(record, evaluation)})"
    counted, _ = sizes_shown(measurement)
    return " · ".join(
        [
            f"{record.metric_name} {score(evaluation.accuracy, scale)} ({score(delta, scale, '+')})",
            *([f"{latency} {_source(measurement, _unit(record))}"] if measurement.latency_ms is not None else []),
            f"{_size(record, evaluation, counted)} {counted}",
            study_document.summary(evaluation.configuration),
        ]
    )


def _best_points(record: StudyRecord, front: Sequence[TrialRecord]) -> list[str]:
    """The smallest and the fastest point that loses next to nothing: one point of a metric in [0, 1], one
    percent of one that has no upper end."""
    baseline, sign = record.baseline, 1 if record.higher_is_better else -1
    margin, said = (0.01, "1 point") if record.higher_is_better else (0.01 * abs(baseline.accuracy), "1 %")
    points = [(t.number, t.evaluation) for t in front if t.evaluation is not None]
    within = [(n, e) for n, e in points if sign * (baseline.accuracy - e.accuracy) <= margin]
    if not within:
        return [f"no point within {said} of the baseline yet"]
    small, smallest = min(within, key=lambda pair: pair[1].download_bytes)
    lines = [f"smallest within {said} of the baseline: trial {small}, {_kb(smallest.download_bytes)} download"]
    if record.latency_source == "none":
        return lines
    fast, fastest = min(within, key=lambda pair: pair[1].measurement.known_latency_ms)
    latency = _latency_line(fastest.measurement, _unit(record))
    return [*lines, f"fastest within {said} of the baseline: trial {fast}, {latency}"]


def _unit(record: StudyRecord) -> str:
    return "ms" if (record.baseline.measurement.latency_ms or 1.0) >= 1 else "µs"


def _latency(measurement: Measurement, unit: str) -> str:
    if measurement.latency_ms is None:
        return "latency"
    return f"{_digits(measurement.latency_ms * (1000 if unit == 'µs' else 1))} {unit}"


def _latency_line(measurement: Measurement, unit: str) -> str:
    return f"{_latency(measurement, unit)} {_source(measurement, unit)}"


def _latency_change(record: StudyRecord, evaluation: Evaluation) -> str:
    """Against the baseline measured in the same minutes where there is one."""
    if evaluation is record.baseline or evaluation.measurement.latency_ms is None:
        return ""
    ratio = evaluation.measurement.ratio_to_baseline
    if ratio is None:
        ratio = evaluation.measurement.latency_ms / record.baseline.measurement.known_latency_ms
    return f"{100 * (ratio - 1):+.0f} %"


def _source(measurement: Measurement, unit: str | None = None) -> str:
    return " ".join(_source_parts(measurement, unit))


def _source_parts(measurement: Measurement, unit: str | None, *, short: bool = False) -> list[str]:
    """Where a latency comes from and how sure it is; the interval of a measured one only with its unit."""
    parts = [latency_words(measurement, short=short)]
    if unit is not None and measurement.latency_ci_ms is not None:
        low, high = (_digits(end * (1000 if unit == "µs" else 1)) for end in measurement.latency_ci_ms)
        parts.append(f"[{low}, {high}]")
    return parts


def _size(record: StudyRecord, evaluation: Evaluation, name: str) -> str:
    value = value_of(evaluation, f"{name}_bytes")
    return "-" if value is None else f"{_kb(value)} {_ratio(record, evaluation, f'{name}_bytes')}".strip()


def _ratio(record: StudyRecord, evaluation: Evaluation, name: str) -> str:
    if evaluation is record.baseline:
        return ""
    value, baseline = value_of(evaluation, name), value_of(record.baseline, name)
    return f"×{value / baseline:.2f}" if value is not None and baseline else "-"
