"""What is printed: rendered to a console of fixed width and read as text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from autocompress.records.front import Front, evaluated
from autocompress.records.study import Constraint, StudyRecord, TrialRecord
from autocompress.report import study_document, terminal
from autocompress.report.leaderboard import groups_of
from autocompress.report.progress import hypervolume_steps
from autocompress.report.units import EXTRAPOLATED
from tests.builders.records import ALL, BEST, FAILED, KNEE, make_evaluation, make_record, make_trial

MEASURED: dict[str, Any] = {"latency_source": "measured", "latency_error": None}
WIDTHS = [60, 72, 80, 100, 119, 120, 150, 190, 200]


def make_console(width: int = 200, **changes: Any) -> Console:
    options: dict[str, Any] = {"force_terminal": False, "_environ": {}}
    return Console(file=io.StringIO(), width=width, **options | changes)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def front_text(record: StudyRecord, width: int = 200, **changes: Any) -> str:
    console = make_console(width)
    terminal.print_front(console, record, **changes)
    return printed(console)


def header_text(record: StudyRecord, width: int = 200, **changes: Any) -> str:
    console = make_console(width)
    terminal.print_header(console, record, **({"layers": 10, "configurations_log10": 23.4} | changes))
    return printed(console)


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_header_says_what_is_searched_and_from_where() -> None:
    text = header_text(make_record())
    for words in (
        *("autocompress search · a", "fashion-mnist · metric accuracy", "rpi4 · latency modelled ± 3.4 %"),
        *("default · 10^23 configurations over 10 layers", "tpe · seed 1 · metric, latency, size"),
        *("accuracy 0.9186 on validation data", "300 µs modelled ± 3.4 %", "288 KB download · 316 KB file"),
    ):
        assert words in text
    assert "with" not in text


def test_header_shows_constraints_small_spaces_and_a_second_runtime() -> None:
    constraint = Constraint(name="latency_ms", relation="<=", bound=8)
    second = make_evaluation(latency_ms=0.19, latency_ci_ms=(0.18, 0.2), **MEASURED).measurement
    text = header_text(
        make_record(constraints=(constraint,)),
        configurations_log10=3,
        second_runtime=("tflite-runtime", second),
    )
    assert "latency_ms<=8" in text
    assert "1,000 configurations" in text
    assert "190 µs measured [180, 200] with tflite-runtime" in text


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({}, "modelled ± 3.4 %"),
        ({"extrapolated": True}, f"modelled, {EXTRAPOLATED}"),
        ({"latency_error": None}, "modelled, error unknown"),
        ({**MEASURED, "latency_ci_ms": (0.1234, 0.25)}, "measured [123, 250]"),
        ({**MEASURED, "latency_ci_ms": (0.1, 0.2), "doubtful": True}, "measured, doubtful [100, 200]"),
    ],
)
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_where_a_latency_comes_from_stands_beside_it(measured: dict[str, Any], expected: str, width: int) -> None:
    record = make_record(make_trial(0, 0.9, 0.2, 30_000, **measured))
    text = front_text(record, width)
    assert "200 µs -33 %" in text
    short = expected.split(", outside")[0]  # in the table; the line below it says what that stands for
    if width == 200:
        assert f"200 µs -33 % {short}" in text
    assert all(word in text for word in short.split())
    said = "outside what the model was fitted to" in " ".join(text.split())
    assert said == bool(measured.get("extrapolated"))
    console = make_console()
    with terminal.SearchProgress(console, make_record()) as progress:
        progress.update(record)
    assert f"200 µs (-33 %) {expected}" in printed(console)


def test_front_is_a_table_with_deltas_to_the_baseline() -> None:
    record = make_record(*ALL, test_accuracy={"baseline": 0.918, evaluated(BEST).sha256: 0.9155})
    lines = front_text(record).splitlines()
    title = "Front of study a: 4 of 9 trials (6 complete, 1 stopped early, 1 failed, 1 running)"
    assert lines[0] == f"{title} · hypervolume {Front(make_record(*ALL)).hypervolume:.4f}"
    headers = (
        "trial",
        "validation accuracy",
        "test accuracy",
        "latency",
        "download",
        "file",
        "configuration",
    )
    assert all(header in lines[1] for header in headers)
    rows = {line.split()[0]: " ".join(line.split()) for line in lines[3:8]}
    assert list(rows) == ["baseline", "2", "1", "3", "0"]
    assert rows["baseline"].startswith(
        "baseline 0.9186 [0.9086, 0.9286] 0.9180 300 µs modelled ± 3.4 % 288 KB 316 KB float32 · 32b×2"
    )
    assert rows["2"].startswith(
        "2 best 0.9170 -0.0016 [-0.0036, +0.0004] 0.9155 250 µs -17 % modelled ± 3.4 % 70.0 KB ×0.24"
        " 140 KB ×0.44 int8 · 8b×1 4b×1 · 0-50 % zeros · 8 cl"
    )
    assert rows["1"].startswith("1 knee 0.9100 -0.0086 [-0.0106, -0.0066] - 130 µs")
    assert "3 fastest" in rows["3"]
    assert "0 smallest" in rows["0"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("extrapolated", [False, True])
def test_everything_fits_and_no_number_is_cut_at_any_width(width: int, extrapolated: bool) -> None:
    more: dict[str, Any] = {"peak_memory_bytes": 1_234_567, "extrapolated": extrapolated}
    trials = [make_trial(n, 0.882 + n / 100, 0.06 + 3 * n / 100, 123_456, **more) for n in range(5)]
    tests = {evaluated(trials[2]).sha256: 0.9012}
    record = make_record(*trials, test_accuracy=tests, objectives=("metric", "latency", "size", "memory"))
    text = front_text(record, width) + header_text(record, width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for words in ("0.9020", "-0.0166", "[-0.0186,", "-0.0146]", "0.9012", "120 µs", "-60 %", "modelled"):
        assert words in text
    for words in ("order of" if extrapolated else "± 3.4 %", "123 KB", "×0.43", "247 KB", "×0.78", "1,235", "8b×1"):
        assert words in text


def test_memory_and_energy_have_a_column_where_they_are_objectives() -> None:
    trial = make_trial(0, 0.9, 0.2, 1000, peak_memory_bytes=2_500_000, energy_mj=1.25)
    text = front_text(make_record(trial, objectives=("metric", "memory", "energy")))
    assert "2,500 KB" in text
    assert "1.25 mJ" in text
    assert "estimated" in text
    plain = front_text(make_record(trial))
    assert "mJ" not in plain
    assert "estimated" not in plain


def test_files_and_the_next_command_can_be_copied_whole() -> None:
    lines = front_text(make_record(*ALL), 60, runs="/data/some/very/long/folder/of/runs", options=["--runs", "a b"])
    assert "Files: /data/some/very/long/folder/of/runs/a/artifacts/ (named by their SHA-256)\n" in lines
    assert "Next:  autocompress export a --pick knee --runs 'a b'\n" in lines


def test_one_unit_of_latency_for_the_whole_study() -> None:
    trials = make_trial(0, 0.9, 0.5, 1000), make_trial(1, 0.91, 12.3456, 1000)
    slow = make_evaluation(0.92, 40.0, 2000, sha256="baseline")
    text = front_text(make_record(*trials, baseline=slow))
    assert "0.500 ms" in text
    assert "12.3 ms" in text
    assert "40.0 ms" in text
    assert "µs" not in text


def test_a_measured_latency_is_compared_with_the_baseline_of_the_same_minutes() -> None:
    trial = make_trial(0, 0.9, 0.2, 1000, ratio_to_baseline=0.5, **MEASURED)
    assert "200 µs -50 %" in front_text(make_record(trial))


def test_notes_are_shown() -> None:
    assert "note: validation inputs serve" in front_text(make_record(KNEE, notes=("validation inputs serve",)))


def test_an_empty_front_says_why_and_what_comes_nearest() -> None:
    latency = Constraint(name="latency_ms", relation="<=", bound=0.05)
    energy = Constraint(name="energy_mj", relation="<=", bound=3)
    text = front_text(make_record(*ALL, constraints=(latency, Constraint(name="accuracy", relation=">=", bound=0.9))))
    assert "The front is empty: none of 6 complete trials meets latency_ms<=0.05 and accuracy>=0.9." in text
    assert "nearest: trial 3, latency_ms 0.1 (asked <=0.05), accuracy 0.86 (asked >=0.9) · accuracy 0.8600" in text
    assert text.count("nearest:") == 3
    assert "Next:" not in text
    assert "energy_mj missing (asked <=3)" in front_text(make_record(KNEE, constraints=(energy,)))
    failed = front_text(make_record(FAILED))
    assert "none of 1 trials is complete; the last failure: no kernel for int4 CONV_2D." in failed
    assert "nearest" not in failed


names = st.sampled_from(["[red]x", "[/]", "[/red]", "a[link=x]b", ":smile:", "[bold", "\\[x]", "x\x1b[31m", "a\nb"])


@given(name=names | st.text(max_size=15), width=st.sampled_from([60, 120, 200]))
@settings(deadline=None)
def test_names_are_shown_as_they_are_and_cannot_write_markup_or_control_codes(name: str, width: int) -> None:
    failed = replace(FAILED, reason=name)
    record = make_record(*ALL, name=name, task=name, device=name, space=name, metric_name=name, notes=(name,))
    console = make_console(width, force_terminal=True, color_system="truecolor", _environ={"NO_COLOR": "1"})
    terminal.print_header(
        console, record, layers=1, configurations_log10=1, second_runtime=(name, evaluated(KNEE).measurement)
    )
    terminal.print_front(console, record)
    with terminal.SearchProgress(make_console(width), make_record()) as progress:
        progress.update(replace(record, trials=(failed,)))
    text = printed(console)
    assert "\x1b[3" not in text  # no colour, asked for or smuggled in
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert squeezed(shown) in squeezed(text.split("note: ")[-1])


def test_no_colour_and_no_escape_codes_away_from_a_terminal() -> None:
    assert "\x1b" not in front_text(make_record(*ALL)) + header_text(make_record())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_console_that_lacks_a_character_gets_another(encoding: str) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding, newline="\n"), width=80, _environ={})
    record = make_record(*ALL, name="ünïcode 模型")
    terminal.print_header(console, record, layers=10, configurations_log10=20)
    terminal.print_front(console, record)
    with terminal.SearchProgress(console, make_record()) as progress:
        progress.update(record)
    console.file.flush()
    text = raw.getvalue().decode(encoding)
    assert "\\u6a21\\u578b" in text
    assert ("250 us" if encoding == "ascii" else "250 µs") in text


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def progress_lines(record: StudyRecord, steps: Sequence[TrialRecord], seconds: float = 3, **changes: Any) -> list[str]:
    """The lines printed while the study grows from `record` by one of `steps` every few seconds."""
    console, clock = make_console(), Clock()
    with terminal.SearchProgress(console, record, clock=clock, **changes) as progress:
        for end in range(1, len(steps) + 1):
            clock.now_s += seconds
            progress.update(replace(record, trials=(*record.trials, *steps[:end])))
    return printed(console).splitlines()


def test_progress_away_from_a_terminal_is_one_line_a_new_front_point_and_a_status() -> None:
    lines = progress_lines(make_record(), ALL, trials=12)
    starts = ["trial 0:", "trial 1:", "trial 2:", "trial 3:", "4/12", "trial 6 failed:", "6/12", "6/12"]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 8
    assert lines[1] == (
        "trial 1: accuracy 0.9100 (-0.0086) · 130 µs (-57 %) modelled ± 3.4 % · 20.0 KB ×0.07 download"
        " · int8 · 8b×1 4b×1 · 0-50 % zeros · 8 cl"
    )
    volume = Front(make_record(*ALL[:4])).hypervolume
    assert lines[4] == (
        f"4/12 trials · 20 candidates/min · 0:00:12 elapsed · 0:00:24 left · hypervolume {volume:.4f} · 4 on the front"
    )
    assert lines[5] == "trial 6 failed: no kernel for int4 CONV_2D"
    assert "1 failed" in lines[-1]


def test_progress_of_a_resumed_study_counts_only_this_run() -> None:
    before = make_record(*ALL[:4], FAILED)
    lines = progress_lines(before, [make_trial(n, 0.5, 9, 9_000_000) for n in range(10, 16)], 10, trials=20)
    assert not any(line.startswith("trial") for line in lines)
    assert lines[-1].startswith("10/20 trials · 6 candidates/min · 0:01:00 elapsed · 0:01:40 left")


def test_time_left_is_that_of_whatever_ends_first() -> None:
    slow = [make_trial(n, 0.5, 9, 9) for n in range(2)]
    assert "0:00:20 left" in progress_lines(make_record(), slow, 20, trials=100, time_budget_s=60)[-1]
    assert "0:00:40 left" in progress_lines(make_record(), slow, 20, trials=4, time_budget_s=600)[-1]
    assert "left" not in progress_lines(make_record(), [], trials=4)[-1]
    assert progress_lines(make_record(), [])[-1] == ("0 trials · 0:00:00 elapsed · hypervolume 0.0000 · 0 on the front")


def live_text(record: StudyRecord, after: Sequence[TrialRecord], width: int = 70, **changes: Any) -> str:
    console = make_console(width, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    clock = Clock()
    with terminal.SearchProgress(console, record, clock=clock, **changes) as progress:
        clock.now_s += 30
        progress.update(replace(record, trials=tuple(after)))
    return printed(console).split("\x1b[2K")[-1]


@pytest.mark.parametrize("width", [60, 100, 200])
def test_progress_on_a_terminal_ends_with_bar_rate_and_best_points(width: int) -> None:
    text = live_text(make_record(), ALL, width, trials=12)
    flat = " ".join(text.split())
    assert "━" in text
    assert "6/12 trials · 12 candidates/min · 0:00:30 elapsed · 0:00:30 left · 1 failed · 1 stopped early" in flat
    assert f"hypervolume {Front(make_record(*ALL)).hypervolume:.4f} · 4 on the front" in flat
    assert "smallest within 1 point of the baseline: trial 1, 20.0 KB download" in flat
    assert "fastest within 1 point of the baseline: trial 1, 130 µs modelled ± 3.4 %" in flat
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_progress_on_a_terminal_with_a_time_budget_or_no_end_or_no_good_point() -> None:
    assert "no point within 1 point of the baseline yet" in live_text(make_record(), [])
    text = live_text(make_record(), [], time_budget_s=40)
    assert "0:00:10 left" in text
    lower = make_record(higher_is_better=False, metric_name="mae")
    assert "within 1 % of the baseline" in live_text(lower, [make_trial(0, 0.9186, 0.1, 10)])


def test_a_failure_is_named_on_a_terminal_too() -> None:
    console = make_console(force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    with terminal.SearchProgress(console, make_record()) as progress:
        progress.update(make_record(FAILED))
        progress.update(make_record(FAILED, KNEE))
    assert printed(console).count("trial 6 failed: no kernel for int4 CONV_2D") == 1


def test_a_dumb_terminal_gets_plain_lines() -> None:
    console = make_console(force_terminal=True, _environ={"TERM": "dumb"})
    with terminal.SearchProgress(console, make_record()) as progress:
        progress.update(make_record(KNEE))
    assert "\x1b" not in printed(console)
    assert "trial 1: accuracy" in printed(console)


def test_one_hypervolume_live_in_the_report_on_the_page_and_on_the_leaderboard() -> None:
    record = make_record(*ALL)
    said = f"hypervolume {study_document.document(record)['hypervolume']:.4f}"
    assert said in progress_lines(make_record(), ALL)[-1]
    assert said in front_text(record)
    (group,) = groups_of([record])
    assert said == f"hypervolume {group.standings[0].hypervolume:.4f}"
    assert said == f"hypervolume {hypervolume_steps(record)[-1].hypervolume:.4f}"
