"""Nights of sweeps: files and their faults, verdicts, and whole nights on real devices that are killed or go away."""

from __future__ import annotations

import hashlib
import html
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import AutocompressError
from autocompress.network.tflite import flatbuffer
from autocompress.records.front import complete
from autocompress.records.study import StudyRecord
from autocompress.search.storage import study_records
from autocompress.search.workers.locks import locked
from autocompress.specs import VerdictRules, load_sweep
from autocompress.sweep import compare, summary, verdict
from autocompress.sweep import run as whole
from autocompress.sweep.causes import causes
from autocompress.sweep.compare import Pairs, Race
from autocompress.sweep.findings import findings
from autocompress.sweep.night import CellNight, Check, FileFigures, Night, Nights, packed, spread, unpacked
from autocompress.sweep.page import night_page
from autocompress.sweep.plan import cells, check, lanes
from autocompress.sweep.summary import Findings
from autocompress.tasks import load_task
from tests.builders.command_line import call
from tests.builders.edge_host import Board
from tests.builders.optional import present
from tests.builders.processes import children, is_dead, wait_for
from tests.builders.project import ROOT
from tests.builders.standstill import counted, family, go_on, stop_when

RULES = VerdictRules()
PAIRS = ROOT / "benchmarks" / "sweep" / "pairs.json"


def written(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def sweep_file(folder: Path, devices: str, **more: str) -> Path:
    settings = {
        "tasks": "[digits]",
        "spaces": "[quick]",
        "budgets": "[{trials: 3}]",
        "verdicts": "{files: 2, pairs: [5, 10]}",
    } | more
    lines = [f"{key}: {value}" for key, value in settings.items()]
    return written(folder, "\n".join(["schema: 1", "name: s", f"devices: {devices}", *lines, ""]))


# The file


def test_all_faults_of_a_file_come_at_once_with_their_paths(tmp_path: Path) -> None:
    text = """schema: 1
name: my sweep
tasks: [digits, {model: a.tflite}]
devices: [locl, {profile: rpi4, hots: pi}]
budgets: [{time: soon}, {}]
verdicts: {alpha: 2, pairs: [40, 5]}
"""
    with pytest.raises(AutocompressError) as caught:
        load_sweep(written(tmp_path, text))
    said = str(caught.value)
    for part in (
        "8 faults",
        "$.name: 'my sweep'",
        "$.tasks[1]: names no task",
        "$.devices[0]: unknown device 'locl'",
        "$.devices[1].hots: unknown key; did you mean 'host'?",
        "$.budgets[0].time: 'soon' is no duration",
        "$.budgets[1]: has no end",
        "$.verdicts.alpha: 2 is not below 1",
        "$.verdicts.pairs: [40, 5] begins with the larger",
    ):
        assert part in said


def test_what_is_not_there_is_said_before_the_night_begins(tmp_path: Path) -> None:
    file = sweep_file(
        tmp_path,
        "[rpi4]",
        tasks="[digts, mine.py]",
        spaces="[own.yaml]",
        budgets="[{trials: 3, constraints: [latensy<=8]}]",
    )
    with pytest.raises(AutocompressError) as caught:
        check(load_sweep(file))
    said = str(caught.value)
    assert "4 faults" in said
    assert "$.tasks[0]: unknown task 'digts'; did you mean 'digits'?" in said
    assert f"$.tasks[1]: {tmp_path}/mine.py not found" in said
    assert "$.spaces[0]: search space file" in said
    assert "$.budgets[0].constraints[0]: unknown constraint 'latensy'; did you mean 'latency" in said


def test_two_entries_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    with pytest.raises(AutocompressError, match=r"\$\.devices\[1\]: is named 'rpi4' like \$\.devices\[0\]"):
        load_sweep(sweep_file(tmp_path, "[rpi4, {profile: rpi4, host: pi@board}]"))
    twice = {"spaces": "[quick, quick, default]", "budgets": "[{trials: 1}, {trials: 1}]"}
    with pytest.raises(AutocompressError) as caught:
        load_sweep(sweep_file(tmp_path, "[rpi4]", **twice))
    for part in ("2 faults: $.spaces[1]: is named 'quick' like $.spaces[0]", "; $.budgets[1]: is named '1trials'"):
        assert part in str(caught.value)
    sweep = load_sweep(sweep_file(tmp_path, "[rpi4, {name: kitchen, profile: rpi4, host: pi@board}]"))
    assert [cell.name for cell in cells(sweep)] == ["digits+rpi4+quick+3trials", "digits+kitchen+quick+3trials"]
    assert list(lanes(sweep)) == ["rpi4", "kitchen"]


# What a night leaves


@given(st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-9, 9, width=32)), min_size=1, max_size=40))
def test_scores_are_unpacked_as_they_were(scores: list[float]) -> None:
    text = packed(np.array(scores))
    assert text is not None
    assert unpacked(text).tolist() == scores


@given(st.integers(1, 60), st.integers(1, 12))
def test_the_files_to_judge_spread_over_the_front(count: int, most: int) -> None:
    found = list(spread(count, most))
    assert len(found) == len(set(found)) == min(count, most)
    assert found[0] == 0
    assert most == 1 or found[-1] == count - 1


def figures(**changes: Any) -> FileFigures:
    made = FileFigures(
        trial=0,
        configuration={},
        sha256="a" * 64,
        artifact="a.tflite",
        file_bytes=100,
        download_bytes=80,
        accuracy=0.5,
        latency_ms=1.0,
        scores=packed(np.array([1.0, 0.0] * 500)),
    )
    return replace(made, **changes)


def a_check(**changes: Any) -> Check:
    made = Check(
        file="f",
        metric="latency_ms",
        before=1.0,
        after=1.06,
        effect=0.06,
        p=1e-6,
        interval=(0.04, 0.08),
        pairs=20,
        confirmed=True,
    )
    return replace(made, **changes)


def a_night(*checks: Check, number: int = 2, **changes: Any) -> Night:
    still = ((1.0,) * 10, (1.0,) * 10)
    cell = replace(CellNight(cell="c", state="done", checks=checks, canary_ms=still), **changes)
    return Night(number=number, sweep="s", began="b", ended="e", accepted=1, cells=(cell,))


def test_a_night_is_read_as_it_was_stored_and_another_schema_is_refused(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "s")
    nights.folder.mkdir(parents=True)
    night = a_night(a_check(), front=(figures(),), points=((1.0, 2.0, 1.9, 2.1, 3.0),), scales=(0.9, 1.0, 2.0))
    (cell,) = night.cells
    night = replace(night, cells=(replace(cell, hypervolume=cell.volume()),))  # read, it is computed from the points
    nights.save(night)
    assert nights.night(2) == night
    assert nights.accept(None) == night == nights.accepted()
    with pytest.raises(AutocompressError, match=r"there is no night 7 in .*; nights: 2"):
        nights.accept(7)
    nights.path(2).write_text(nights.path(2).read_text().replace('"schema": 1', '"schema": 9'))
    with pytest.raises(AutocompressError, match="has schema 9, this version reads 1"):
        nights.accepted()


def test_a_night_that_was_cut_goes_on_under_its_number(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "s")
    assert nights.begin("first") == (1, "first")
    nights.save_cell(CellNight(cell="c", state="done"))
    assert nights.begin("later") == (1, "first")
    assert nights.cell("c") is not None
    nights.save(a_night(number=1))  # killed before it was cleared up
    assert nights.begin("next") == (2, "next")
    assert nights.cell("c") is None


def test_a_night_that_was_cut_may_be_begun_again(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "s")
    nights.begin("first")
    nights.save_cell(CellNight(cell="c", state="done"))
    (nights.open_folder / "c.lock").touch()  # held by a process that is about to end
    assert nights.begin("later", resume=False) == (1, "later")
    assert nights.cell("c") is None
    assert (nights.open_folder / "c.lock").exists()
    nights.close()
    assert list(nights.open_folder.iterdir()) == []


# Verdicts


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "worse"),
        ({"effect": -0.06, "interval": (-0.08, -0.04)}, "better"),
        ({"confirmed": False}, "unknown"),
        ({"p": 0.02}, "unknown"),
        ({"p": 0.5, "effect": 0.001, "interval": (-0.01, 0.012)}, "same"),
        ({"effect": 0.01, "interval": (0.005, 0.015)}, "same"),  # surely, but too little to count
        ({"p": None, "effect": None, "interval": None, "note": "away"}, "unknown"),
    ],
)
def test_a_verdict_needs_effect_and_evidence(changes: dict[str, Any], expected: str) -> None:
    (found,) = verdict.verdicts(a_night(a_check(**changes)), RULES)
    assert found.verdict == expected
    assert verdict.exit_code(a_night(), [found]) == (1 if expected == "worse" else 0)


def test_many_comparisons_need_more_evidence_each_but_certain_ones_do_not_count() -> None:
    one, null = a_check(p=0.004), a_check(p=0.9, effect=0.0, interval=(-0.001, 0.001))
    certain = compare.certain("f", "file_bytes", 100, 100)
    assert verdict.verdicts(a_night(one, *[certain] * 9), RULES)[0].verdict == "worse"
    assert verdict.verdicts(a_night(one, *[null] * 9), RULES)[0].verdict == "unknown"


def test_all_metrics_of_all_cells_are_corrected_together() -> None:
    """p = .004 is enough for the only comparison; beside two more, in the same cell or in another, it is not."""
    one = a_night(a_check(p=0.004)).cells[0]
    for other in (
        a_check(p=0.9, effect=0.0),
        a_check(metric="accuracy", p=0.9, effect=0.0),
        a_check(metric="peak_memory_bytes", p=0.9, effect=0.0),
        a_check(metric="hypervolume", p=0.9, effect=0.0),
    ):
        rest = (other,) * 2
        same_cell = replace(a_night(), cells=(replace(one, checks=(*one.checks, *rest)),))
        other_cell = replace(a_night(), cells=(one, replace(one, cell="d", checks=rest)))
        for found in (same_cell, other_cell):
            first = verdict.verdicts(found, RULES)[0]
            assert first.p == pytest.approx(0.012)
            assert first.verdict == "unknown"
    assert verdict.verdicts(a_night(a_check(p=0.004)), RULES)[0].verdict == "worse"


def test_a_cell_that_did_not_end_is_unknown_and_what_it_compared_stands() -> None:
    lost = a_night(state="away", reason="gone", canary_ms=None)
    (found,) = verdict.verdicts(lost, RULES)
    assert (found.verdict, found.check.metric, found.note) == ("unknown", "cell", "away: gone")
    assert verdict.exit_code(lost, [found]) == 3
    partly = a_night(compare.certain("f", "file_bytes", 100, 100), state="away", reason="gone", canary_ms=None)
    judged = verdict.verdicts(partly, RULES)
    assert [each.verdict for each in judged] == ["same", "unknown"]
    assert verdict.exit_code(partly, judged) == 0
    worse = a_night(compare.certain("f", "file_bytes", 100, 120), state="away", reason="gone", canary_ms=None)
    assert verdict.exit_code(worse, verdict.verdicts(worse, RULES)) == 1
    said = Findings(night=lost, verdicts=(found,), events=(), exit_code=3)
    assert "the whole cell, away: gone" in summary.markdown(said)
    assert ElementTree.fromstring(summary.junit(said))[0].attrib["failures"] == "0"
    assert verdict.verdicts(replace(lost, accepted=None), RULES) == ()


@pytest.mark.parametrize(
    ("states", "accepted", "code"),
    [
        (("away", "away"), None, 3),
        (("away", "done"), None, 0),
        (("away", "late"), None, 3),
        (("late", "late"), None, 0),
        (("away", "failed"), None, 1),
        (("away", "done"), 1, 3),  # a new cell is done, but nothing of the accepted night was compared
    ],
)
def test_exit_code_3_only_where_nothing_could_be_judged(
    states: tuple[str, ...], accepted: int | None, code: int
) -> None:
    cells = tuple(CellNight(cell=f"c{n}", state=state, reason="r") for n, state in enumerate(states))
    found = replace(a_night(), cells=cells, accepted=accepted)
    assert verdict.exit_code(found, verdict.verdicts(found, RULES)) == code


def test_a_canary_that_drifts_makes_worse_unknown() -> None:
    slower = ((1.0,) * 10, tuple(1.2 + 0.001 * n for n in range(10)))
    found = verdict.verdicts(a_night(a_check(), a_check(metric="file_bytes"), canary_ms=slower), RULES)
    assert [each.verdict for each in found] == ["unknown", "worse"]
    assert "the canary drifted by" in (found[0].note or "")
    assert (
        verdict.verdicts(a_night(a_check(), canary_ms=((1.0,) * 10, (1.2, *(1.0,) * 9))), RULES)[0].verdict == "worse"
    )


def test_a_canary_is_the_fastest_of_rows_that_agree() -> None:
    seen = iter([(1.3,) * 10, (1.0,) * 10, (1.01,) * 10, (5.0,) * 10])
    assert compare.steady(lambda: next(seen), 0.05) == (1.0,) * 10
    assert next(seen) == (5.0,) * 10


def test_what_stays_worse_is_told_since_when() -> None:
    before = [
        a_night(a_check(), number=4),
        a_night(a_check(), number=3),
        a_night(a_check(p=1.0), number=2),
        a_night(a_check(), number=1),
    ]
    (found,) = verdict.with_history(verdict.verdicts(a_night(a_check(), number=5), RULES), before, RULES)
    assert found.since == 3


def test_a_slow_week_is_one_event() -> None:
    rng = np.random.default_rng(0)
    slow = [1.2 if 10 <= n < 17 else 1.0 for n in range(26)]
    nights = [
        a_night(
            a_check(after=s * (1 + 0.01 * rng.standard_normal())),
            number=n + 1,
            canary_ms=((s * (1 + 0.01 * rng.standard_normal()),) * 10,) * 2,
        )
        for n, s in enumerate(slow)
    ]
    began, ended = verdict.events(nights, RULES)
    assert (began.night, began.until, ended.night, ended.until) == (11, 18, 18, None)
    assert len(began.series) == 2
    assert began.change == pytest.approx(0.2, abs=0.02)


def measured_pairs(start: int, count: int, slower: float = 1.0) -> Pairs:
    """Really measured pairs, as benchmarks/sweep/gather_pairs.py stored them."""
    found = json.loads(PAIRS.read_text())["pairs"][start : start + count]
    ratios = tuple(float(np.log(row["int8_ms"] / row["float_ms"] * slower)) for row in found)
    return Pairs(log_ratios=ratios, memory_bytes=tuple(row["memory_bytes"] for row in found))


@pytest.mark.parametrize(("slower", "worse"), [(1.0, False), (1.05, True), (1 / 1.05, False)])
def test_pairs_are_added_until_it_is_clear(slower: float, worse: bool) -> None:
    race, taken = Race(measured_pairs(0, 40), RULES, comparisons=30), 40

    def measure(count: int) -> Pairs:
        nonlocal taken
        taken += count
        return measured_pairs(taken - count, count, slower)

    race.run(measure)
    found = race.latency_check("f", 1.0)
    assert 5 <= found.pairs < 40
    assert found.effect == pytest.approx(slower - 1, abs=0.01)
    assert race.is_worse_or_better() == (slower != 1)
    verdicts = verdict.verdicts(
        a_night(replace(found, confirmed=race.confirms(measured_pairs(100, 40, slower)))), RULES
    )
    assert verdicts[0].verdict == ("worse" if worse else "same" if slower == 1 else "better")
    assert slower == 1 or not race.confirms(measured_pairs(100, 40))


def test_forty_pairs_are_the_most_where_it_does_not_become_clear() -> None:
    """A ratio on the threshold itself is neither clear of it nor different by more."""
    race, taken = Race(measured_pairs(0, 40), RULES, comparisons=30), list[int]()

    def measure(count: int) -> Pairs:
        taken.append(count)
        return measured_pairs(40 + sum(taken[:-1]), count, 1 + RULES.latency)

    race.run(measure)
    assert taken == [5, 5, 10, 20]
    assert race.latency_check("f", 1.0).pairs == 40


def test_the_metric_is_compared_sample_by_sample() -> None:
    right = np.array([1.0, 0.0] * 500)
    lost = right.copy()
    lost[:60:2] = 0.0
    was = figures(scores=packed(right))
    worse = compare.metric_check("f", was, float(lost.mean()), packed(lost), rises=True)
    assert worse.effect == pytest.approx(0.03)
    assert worse.p == pytest.approx(2 / 2**30)
    assert compare.metric_check("f", was, 0.5, packed(right), rises=True).p == 1.0
    assert compare.metric_check("f", was, 0.47, packed(lost[:10]), rises=True).note == "validation data changed"
    error = right + np.linspace(0.05, 0.15, len(right))
    larger = compare.metric_check("f", was, float(error.mean()), packed(error), rises=False)
    assert larger.effect == pytest.approx(0.1)
    assert larger.p is not None
    assert larger.p < 1e-9


def test_hypervolumes_are_compared_by_what_their_latencies_leave_open() -> None:
    def front(ms: float, width: float) -> CellNight:
        points = ((0.9, ms, ms * (1 - width), ms * (1 + width), 50.0),)
        night = CellNight(cell="c", state="done", points=points, scales=(0.9, 1.0, 100.0))
        return replace(night, hypervolume=night.volume())

    sure = compare.hypervolume_check(front(0.5, 0.01), front(0.6, 0.01))
    open_ = compare.hypervolume_check(front(0.5, 0.4), front(0.6, 0.4))
    ratio = (1 - math.log(0.6, 8)) / (1 - math.log(0.5, 8))
    assert sure.effect == open_.effect == pytest.approx(1 - ratio)
    assert sure.p is not None
    assert open_.p is not None
    assert sure.p < 1e-6 < 0.1 < open_.p
    assert compare.hypervolume_check(front(0.5, 0.0), front(0.6, 0.0)).certain


def test_a_night_of_an_older_version_gets_the_hypervolume_of_today() -> None:
    night = a_night()
    stored = json.loads(json.dumps(asdict(night)))
    points, scales = ((0.85, 2.0, 1.9, 2.1, 50.0),), (0.9, 1.0, 100.0)
    stored["cells"][0] |= {"points": points, "scales": scales, "hypervolume": 0.0}
    assert Night.from_dict(stored).cells[0].hypervolume == pytest.approx(0.5 * (2 / 3) * (4 / 3))
    stored["cells"][0] |= {"scales": None}
    assert Night.from_dict(stored).cells[0].hypervolume is None


def test_names_are_no_markup() -> None:
    night = a_night(a_check(file="<script>|x"), cell="a_b*<b>")
    found = Findings(night=night, verdicts=verdict.verdicts(night, RULES), events=(), exit_code=1)
    text = summary.markdown(found)
    assert "<script>" not in text
    assert "&lt;script>\\|x" in text
    suite = ElementTree.fromstring(summary.junit(found)).find("testsuite")
    assert suite is not None
    assert suite.attrib["name"] == "a_b*<b>"
    assert suite.attrib["failures"] == "1"


# Whole nights


def night(file: Path, runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "autocompress.cli", "sweep", str(file), "--runs", str(runs), *more]


def run(command: list[str], code: int = 0) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def accept(file: Path, runs: Path) -> str:
    command = [sys.executable, "-m", "autocompress.cli", "sweep", "accept", str(file), "--runs", str(runs)]
    return str(run(command).stdout)


def records(runs: Path) -> dict[str, StudyRecord]:
    names = [path.parent.name for path in runs.glob("*/study.db")]
    return {name: study_records.read_record(study_records.load_study(runs, name, None)) for name in names}


def digests(runs: Path) -> Counter[str]:
    return Counter(e.configuration.digest for record in records(runs).values() for _, e in complete(record))


def test_a_worse_network_is_found_and_the_page_says_so(tmp_path: Path) -> None:
    task = load_task("digits")
    splits = {name: next(iter(getattr(task, name).values())) for name in ("x_validation", "x_test", "x_calibration")}
    np.savez(tmp_path / "d.npz", y_validation=present(task.y_validation), y_test=present(task.y_test), **splits)
    (tmp_path / "net.tflite").write_bytes(task.network)
    file, runs = sweep_file(tmp_path, "[rpi4]", tasks="[{model: net.tflite, data: d.npz, metric: accuracy}]"), tmp_path
    first = json.loads(run(night(file, runs, "--json")).stdout)
    assert (first["night"], first["accepted"], first["verdicts"]) == (1, None, [])
    assert f"night 1 of sweep s is accepted: {len(first['cells'][0]['front'])} files in 1 cells" in accept(file, runs)
    (tmp_path / "net.tflite").write_bytes(damaged(task.network))
    page, junit = tmp_path / "page.md", tmp_path / "junit.xml"
    second = json.loads(run(night(file, runs, "--json", "--markdown", str(page), "--junit", str(junit)), 1).stdout)
    verdicts = {(each["file"], each["metric"]): each["verdict"] for each in second["verdicts"]}
    assert {kind for (_, metric), kind in verdicts.items() if metric == "accuracy"} == {"worse"}
    assert {kind for (_, metric), kind in verdicts.items() if metric == "latency_ms"} == {"same"}
    assert "❌ **worse** net+rpi4+quick+3trials" in page.read_text()
    suites = ElementTree.parse(junit).getroot()
    assert int(suites[0].attrib["failures"]) == list(verdicts.values()).count("worse") >= 1
    assert len(records(runs)) == 2  # another network, another study
    said = (runs / "sweeps" / "s" / "index.html").read_text()
    before, now = (hashlib.sha256(each).hexdigest()[:8] for each in (task.network, damaged(task.network)))
    assert f"the network is another one: {before} then, {now} now" in said
    assert "<td>worse</td>" in said
    assert re.search(r"net\+rpi4\+quick\+3trials trial \d+ \([^;]+; [0-9a-f]{8}\): accuracy, ", said)
    check_links(runs / "sweeps" / "s" / "index.html")
    assert f"what is another: the network is another one: {before} then" in page.read_text()


def check_links(page: Path) -> None:
    """Every link of a page leads to something, at least to a study, a report and a file."""
    found = [unquote(html.unescape(link)) for link in re.findall(r'href="([^"#:]+)"', page.read_text())]
    assert not [link for link in found if not (page.parent / link).exists()]
    assert {".html", ".tflite"} <= {Path(link).suffix for link in found}
    assert any((page.parent / link).is_dir() for link in found)


def test_status_and_list_say_how_far_it_is(tmp_path: Path) -> None:
    file, runs = sweep_file(tmp_path, "[rpi4]"), tmp_path / "runs"
    assert "there is no sweep in" in call("sweep", "list", "--runs", runs).stderr
    assert "no night is finished yet" in call("sweep", "status", file, "--runs", runs).stdout
    nights = Nights(runs, "s")
    nights.begin("now")
    nights.save_cell(CellNight(cell="digits+rpi4+quick+3trials", state="late", reason="no time"))
    with locked(nights.folder):
        found = json.loads(call("sweep", "status", file, "--runs", runs, "--json").stdout)
        assert (found["running"], found["open"]["cells"]) == (True, {"digits+rpi4+quick+3trials": "late"})
    said = call("sweep", "status", file, "--runs", runs).stdout
    assert "night 1 is not finished: 1 late; the same command goes on with it" in said
    nights.save(a_night(number=1))
    nights.close()
    said = call("sweep", "status", file, "--runs", runs).stdout
    assert "night 1 of sweep s: 1 cells done" in said
    listed = call("sweep", "list", "--runs", runs).stdout
    assert ["s", "1", "1", "done", "e", "-", "no"] in [line.split() for line in listed.splitlines()]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "nothing that is known: network, data, runtime, versions and device are the same"),
        ({"data_sha256": "e" * 64}, "the data is another one: dddddddd then, eeeeeeee now"),
        (
            {"versions": {"device": "rt 2", "numpy": "1"}},
            "the runtime on the device is another version: rt 1 then",
        ),
        ({"versions": {"device": "rt 1", "numpy": "2"}}, "numpy is another version: 1 then, 2 now"),
        ({"device": {"governor": "powersave"}}, "the device has another governor: performance then, powersave now"),
        ({"canary_ms": ((1.2,) * 5, (1.2,) * 5)}, "the device itself is 20 % slower, float network and all"),
    ],
)
def test_what_is_another_is_named(changes: dict[str, Any], said: str) -> None:
    accepted = CellNight(
        cell="c",
        state="done",
        data_sha256="d" * 64,
        network_sha256="a" * 64,
        versions={"device": "rt 1", "numpy": "1"},
        device={"governor": "performance"},
        canary_ms=((1.0,) * 5, (1.0,) * 5),
    )
    (found,) = causes(replace(accepted, **changes), accepted, RULES)
    assert said in found
    assert causes(accepted, None, RULES) == ()


def test_names_are_no_markup_on_the_page(tmp_path: Path) -> None:
    file = figures(sha256="<b>" + "a" * 61, artifact="<i>/a.tflite")
    night = a_night(a_check(file=file.sha256[:12]), cell="<u>", study="<s>", metric="<m>", front=(file,))
    nights = Nights(tmp_path, "s")
    page = night_page(findings(night, nights, RULES), tmp_path, nights.folder, {"<u>": "<u>.html"})
    assert not re.findall(r"<[bismu]>", page)


def test_a_stored_file_that_was_changed_is_named_and_left_out(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "[rpi4]")
    run(night(file, tmp_path))
    accept(file, tmp_path)
    first, *others = Nights(tmp_path, "s").night(1).cells[0].front
    (tmp_path / first.artifact).write_bytes(b"something else")
    found = json.loads(run(night(file, tmp_path, "--json"), 1).stdout)
    (worse,) = (each for each in found["verdicts"] if each["verdict"] == "worse")
    assert (worse["metric"], worse["note"]) == ("artifact", f"{first.artifact} is missing or changed")
    assert [each["sha256"] for each in found["cells"][0]["front"]] == [each.sha256 for each in others]


def damaged(network: bytes) -> bytes:
    """The network with noise in the weights of its last layer."""
    tree, rng = flatbuffer.read(network), np.random.default_rng(0)
    weights = [b for b in tree.buffers if b.data is not None and len(b.data) > 400]
    values = np.frombuffer(bytes(present(weights[-1].data)), np.float32)
    noisy = values + rng.normal(0, 2 * values.std(), values.shape)
    weights[-1].data = np.frombuffer(noisy.astype(np.float32).tobytes(), np.uint8)
    return flatbuffer.write(tree)


def test_killed_with_9_a_night_ends_with_the_trials_of_an_undisturbed_one(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "[rpi4]", budgets="[{trials: 20}]")
    run(night(file, tmp_path / "whole"))
    runs = tmp_path / "killed"
    for more in (1, 4):
        enough = partial(have_done, runs, more + done_in(runs))
        with subprocess.Popen(night(file, runs), stdout=subprocess.DEVNULL, start_new_session=True) as process:
            _, cell = stop_when(enough, partial(family, process))
            process.kill()
        go_on([cell])
        wait_for(partial(is_dead, cell))  # a cell does not outlive its night
    run(night(file, runs))
    assert digests(runs) == digests(tmp_path / "whole")
    assert set(digests(runs).values()) == {1}
    assert [path.name for path in runs.glob("sweeps/s/night-*.json")] == ["night-0001.json"]
    assert not list(runs.glob("sweeps/s/open/*"))


def done_in(runs: Path) -> int:
    """Complete trials of all studies."""
    return sum(counted(database) for database in runs.glob("*/study.db"))


def have_done(runs: Path, trials: int) -> bool:
    return done_in(runs) >= trials


class Lanes:
    """A night whose cells are no processes: each is stored as done after it took `took_s`, by the night's own clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, took_s: float = 0.0, parties: int = 1) -> None:
        self.shares: dict[str, float | None] = {}
        self.order: list[str] = []
        self.active: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._took_s, self._together, self._lock = took_s, threading.Barrier(parties, timeout=30), threading.Lock()
        monkeypatch.setattr(whole._Running, "_followed", lambda *given: self._followed(*given))

    def _followed(self, running: Any, command: list[str], log: Path, cell: Any) -> int:
        share = command[-2]
        with self._lock:
            self.shares[cell.name] = None if share == "-" else float(share)
            self.order.append(cell.name)
            self.active[cell.device.name] += 1
            self.most[cell.device.name] = max(self.most[cell.device.name], self.active[cell.device.name])
        self._together.wait()  # until a cell of each device runs
        running._nights.save_cell(CellNight(cell=cell.name, state="done", elapsed_s=self._took_s))
        with self._lock:
            self.active[cell.device.name] -= 1
        return 0


FOUR_CELLS = {"budgets": "[{trials: 1}, {trials: 2}, {trials: 3}, {trials: 4}]"}


def test_cells_of_devices_run_side_by_side_and_those_of_one_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_sweep(sweep_file(tmp_path, "[rpi4, {name: b, profile: rpi4}]", **FOUR_CELLS))
    seen = Lanes(monkeypatch, parties=2)  # a lane that waited for the other would break the barrier
    ended = whole.run_night(sweep, tmp_path, lambda cell, line: None)
    assert seen.most == {"rpi4": 1, "b": 1}
    for lane in lanes(sweep).values():
        assert [name for name in seen.order if name in {c.name for c in lane}] == [c.name for c in lane]
    assert [cell.cell for cell in ended.night.cells] == [cell.name for cell in cells(sweep)]


def test_the_time_budget_is_shared_out_and_what_is_left_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_sweep(sweep_file(tmp_path, "[rpi4]", time_budget="100s", **FOUR_CELLS))
    seen = Lanes(monkeypatch, took_s=10.0)
    whole.run_night(sweep, tmp_path, lambda cell, line: None)
    assert list(seen.shares.values()) == pytest.approx([100 / 4, 90 / 3, 80 / 2, 70])
    late = Lanes(monkeypatch, took_s=60.0)
    night = whole.run_night(sweep, tmp_path, lambda cell, line: None).night
    assert list(late.shares.values()) == pytest.approx([25, 40 / 3], abs=1e-3)  # it is passed on in milliseconds
    assert [cell.state for cell in night.cells] == ["done", "done", "late", "late"]
    assert night.cells[-1].reason == "the time budget of the night is used up"


def test_a_cell_keeps_to_its_share_of_the_night(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "[rpi4]", time_budget="1s", budgets="[{trials: 500}, {trials: 501}]")
    done = run(night(file, tmp_path, "--json"))
    first, second = json.loads(done.stdout)["cells"]
    assert (first["state"], second["state"]) == ("done", "late")
    assert first["trials"] < 500
    assert first["elapsed_s"] > 0


def test_two_nights_do_not_overlap_and_a_cell_that_dies_fails_alone(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "[rpi4, {name: other, profile: rpi4}]")
    with subprocess.Popen(night(file, tmp_path), stdout=subprocess.DEVNULL) as process:
        _, second = wait_for(lambda: found if len(found := sorted(children(process.pid))) == 2 else None)
        os.kill(second, signal.SIGSTOP)
        said = run(night(file, tmp_path), 2).stderr
        os.kill(second, signal.SIGKILL)
        assert process.wait(300) == 1
    assert f"error: sweep 's' is running already in {tmp_path}/sweeps/s; wait until that night ends" in said
    states = {cell.cell.split("+")[1]: (cell.state, cell.reason) for cell in Nights(tmp_path, "s").night(1).cells}
    assert sorted(state for state, _ in states.values()) == ["done", "failed"]
    assert any("its process was killed by SIGKILL" in (reason or "") for _, reason in states.values())


def test_a_night_on_this_machine_is_measured_and_judged(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "[local]")
    run(night(file, tmp_path))
    accept(file, tmp_path)
    done = subprocess.run(night(file, tmp_path, "--json"), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # the machine may really have become slower
    found = json.loads(done.stdout)
    (cell,) = found["cells"]
    assert [len(row) for row in cell["canary_ms"]] == [10, 10]
    assert cell["latency_source"] == "measured"
    by_metric = {each["metric"]: each for each in found["verdicts"]}
    assert 5 <= by_metric["latency_ms"]["pairs"] <= 10
    assert by_metric["peak_memory_bytes"]["before"] > 0
    assert by_metric["download_bytes"]["verdict"] == by_metric["accuracy"]["verdict"] == "same"
    stored = Nights(tmp_path, "s").night(2).cells[0].front[0]
    assert len(stored.log_ratios) == len(stored.memory_bytes) == 10


def test_a_board_that_goes_away_costs_its_own_cell_and_nothing_else(board: Board, tmp_path: Path) -> None:
    devices, alone = (
        "[rpi4, {name: board, profile: local, host: board}]",
        "[{name: board, profile: local, host: board}]",
    )
    file = sweep_file(tmp_path, devices, host_wait="2s")
    with subprocess.Popen(night(file, tmp_path), stdout=subprocess.DEVNULL) as process:
        wait_for_measuring(board, process)
        board.stop()
        assert process.wait(300) == 0
    states = {cell.cell.split("+")[1]: cell for cell in Nights(tmp_path, "s").night(1).cells}
    assert states["rpi4"].state == "done"
    assert states["board"].state == "away"
    assert "gave up after 2 s" in (states["board"].reason or "")
    sweep_file(tmp_path, alone, host_wait="1s")
    assert "1 away" in run(night(file, tmp_path), 3).stdout
    board.start()
    sweep_file(tmp_path, devices, host_wait="2s")
    run(night(file, tmp_path))
    assert {cell.state for cell in Nights(tmp_path, "s").night(3).cells} == {"done"}
    board.assert_quiet()
    accept(file, tmp_path)
    board.stop()
    found = json.loads(run(night(file, tmp_path, "--json")).stdout)
    verdicts = {each["cell"].split("+")[1]: each for each in found["verdicts"]}
    assert (verdicts["board"]["metric"], verdicts["board"]["verdict"]) == ("cell", "unknown")
    assert verdicts["board"]["note"].startswith("away: ")
    assert verdicts["rpi4"]["verdict"] == "same"
    sweep_file(tmp_path, alone, host_wait="1s")
    run(night(file, tmp_path), 3)  # without the other device nothing can be judged


def test_what_was_compared_before_a_board_went_away_stands(board: Board, tmp_path: Path) -> None:
    devices = "[{name: board, profile: local, host: board}]"
    more = {"budgets": "[{trials_per_night: 4}]", "verdicts": "{files: 1, pairs: [5, 5]}", "host_wait": "1s"}
    file = sweep_file(tmp_path, devices, **more)
    run(night(file, tmp_path))
    accept(file, tmp_path)
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(night(file, tmp_path, "--json"), stdout=subprocess.PIPE, stderr=said, text=True)
    with process:
        night_and_cell = stop_when(lambda: "compared" in (tmp_path / "said").read_text(), partial(family, process))
        board.stop()
        go_on(night_and_cell)
        output, _ = process.communicate()
    found = json.loads(output)
    by_metric = {each["metric"]: each for each in found["verdicts"]}
    assert found["cells"][0]["state"] == "away"
    assert by_metric["download_bytes"]["verdict"] == by_metric["accuracy"]["verdict"] == "same"
    assert by_metric["latency_ms"]["verdict"] in ("same", "unknown")
    assert by_metric["cell"]["verdict"] == "unknown"
    assert "gave up after 1 s" in by_metric["cell"]["note"]
    assert found["exit_code"] == process.returncode == 0


def wait_for_measuring(board: Board, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 400
    while not board.processes():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
