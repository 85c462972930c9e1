"""The leaderboard: what is compared with what, the front, the best, the ranks, and what is left out and why."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial
from typer.testing import CliRunner

from autocompress import pareto
from autocompress.cli import app
from autocompress.errors import AutocompressError
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.constraint import parse_constraint
from autocompress.records.front import Front, evaluated, feasible, plain_int8
from autocompress.records.hypervolume import scaled
from autocompress.records.study import Constraint, SearchRun, StudyRecord
from autocompress.report.leaderboard import groups_of
from autocompress.report.leaderboard_text import csv_text, document, markdown, tables
from autocompress.search.storage.all_studies import read_all
from autocompress.search.storage.study_records import load_study, read_record
from tests.builders.optional import present
from tests.builders.records import ALL, make_record, make_trial
from tests.builders.stored_studies import write_study

SAMPLES: dict[str, Any] = {"latency_source": "measured", "samples_ms": ((0.1, 0.2), (0.3,))}
EVIL = '"samples_ms": [[1]] | <b>=1+1'


def call(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["leaderboard", *map(str, arguments)])


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("accuracy>=0.9", 0.9),
        ("latency_ms <= 8", 8.0),
        ("accuracy >= float", 0.9186),
        ("accuracy>=float-1 point", 0.9086),
        ("accuracy >= float - 2 points", 0.8986),
        ("accuracy>=float-0.005", 0.9136),
        ("download_bytes <= float - 80 %", 57_600.0),
        ("latency_ms<=float+1e-1", 0.4),
    ],
)
def test_a_limit_may_hang_on_the_float_network(text: str, bound: float) -> None:
    constraint = parse_constraint(text).resolved(make_record().baseline)
    assert constraint is not None
    assert constraint.bound == pytest.approx(bound)
    assert constraint.name + constraint.relation in "".join(text.split())


@pytest.mark.parametrize(
    "text", ["", "accuracy", "accuracy>0.9", "accuracy>=floaty", "accuracy>=float-", "accuracy>=1..2"]
)
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AutocompressError, match="is not NAME<=NUMBER"):
        parse_constraint(text)
    with pytest.raises(AutocompressError, match="did you mean 'accuracy'"):
        parse_constraint("acuracy>=0.9")


def test_a_limit_on_what_the_baseline_lacks_is_met_by_none() -> None:
    (group,) = groups_of([make_record(*ALL)], [parse_constraint("energy_mj<=float")])
    assert [best.point for best in group.best] == [None, None, None]


point = st.tuples(st.integers(0, 4).map(lambda v: 0.9 + v / 200), st.integers(1, 4), st.integers(1, 4))


@given(st.lists(st.lists(point, max_size=6), min_size=1, max_size=3), st.booleans())
@settings(deadline=None)
def test_front_and_best_are_their_definitions(studies: list[list[tuple[float, int, int]]], higher: bool) -> None:
    records = [
        make_record(
            *(make_trial(n, a, lat / 10, size * 1000) for n, (a, lat, size) in enumerate(points)),
            name=str(k),
            higher_is_better=higher,
        )
        for k, points in enumerate(studies)
    ]
    (group,) = groups_of(records, [parse_constraint("accuracy>=0.91"), parse_constraint("download_bytes<=2000")])
    every = [(-a if higher else a, lat / 10, size * 1000) for points in studies for a, lat, size in points]
    expected = {v for v in every if not any(w != v and all(p <= q for p, q in zip(w, v, strict=True)) for w in every)}
    found = [
        (p.evaluation.accuracy, p.evaluation.measurement.latency_ms, p.evaluation.download_bytes) for p in group.front
    ]
    vectors = [(-a if higher else a, lat, size) for a, lat, size in found]
    assert sorted(expected) == vectors  # each once, best metric first
    assert sum(standing.on_front for standing in group.standings) == len(vectors)
    fronts = {(p.record.name, p.trial.number) for p in (*group.front, *group.others)}
    assert fronts == {(r.name, t.number) for r in records for t in Front(r).trials}
    for best in group.best:
        name = {"most accurate": 0, "fastest": 1, "smallest": 2}[best.wanted]
        of_fronts = [evaluated(t) for r in records for t in Front(r).trials]
        meets = [
            e for e in of_fronts if (e.accuracy >= 0.91 if best.limit.name == "accuracy" else e.download_bytes <= 2000)
        ]
        values = [
            (-e.accuracy if higher else e.accuracy, present(e.measurement.latency_ms), e.download_bytes)[name]
            for e in meets
        ]
        got = None if best.point is None else best.point.evaluation
        assert (got is None) == (not values)
        if got is not None:
            vector = (
                -got.accuracy if higher else got.accuracy,
                present(got.measurement.latency_ms),
                got.download_bytes,
            )
            assert vector[name] == min(values)


def test_ranks_are_by_hypervolume_and_equal_ones_are_alike() -> None:
    small, better = make_record(ALL[0], name="b"), make_record(*ALL, name="a")
    (group,) = groups_of([small, better, replace(better, name="c")])
    assert [(s.record.name, s.rank) for s in group.standings] == [("a", 1), ("c", 1), ("b", 3)]
    assert group.standings[0].hypervolume == Front(better).hypervolume


def test_studies_of_other_objectives_are_ranked_by_those_of_the_leaderboard() -> None:
    sizes = make_record(*ALL, name="s", objectives=("metric", "size"), size="file")
    whole = make_record(*ALL, name="w")
    (alone,) = groups_of([sizes])
    assert alone.standings[0].hypervolume == Front(sizes).hypervolume != Front(whole).hypervolume
    (group,) = groups_of([sizes, whole])
    assert [(s.rank, s.hypervolume) for s in group.standings] == [(1, Front(whole).hypervolume)] * 2
    assert all(s.steps[-1].hypervolume == s.hypervolume for s in group.standings)


def test_hypervolumes_that_cannot_be_told_apart_share_a_rank() -> None:
    def study(name: str, accuracy: float, half: float) -> StudyRecord:
        delta = accuracy - 0.9186
        return make_record(
            make_trial(0, accuracy, 0.1, 20_000, accuracy_delta_ci=(delta - half, delta + half)), name=name
        )

    def ranks(half: float) -> list[tuple[str, int | None]]:
        (group,) = groups_of([study("a", 0.900, half), study("b", 0.904, half), study("c", 0.870, half)])
        return [(s.record.name, s.rank) for s in group.standings]

    assert ranks(0.001) == [("b", 1), ("a", 2), ("c", 3)]
    assert ranks(0.005) == [("b", 1), ("a", 1), ("c", 3)]


def test_a_common_front_is_thinned_and_so_are_the_best() -> None:
    a = make_record(make_trial(0, 0.910, 0.100, 20_000), name="a")
    b = make_record(make_trial(0, 0.911, 0.101, 20_050), make_trial(1, 0.90, 0.09, 10_000), name="b")
    (group,) = groups_of([a, b], [parse_constraint("accuracy>=0.905")])
    assert [(p.record.name, p.trial.number) for p in group.front] == [("a", 0), ("b", 1)]
    assert [(p.record.name, p.trial.number) for p in group.others] == [("b", 0)]
    found = {best.wanted: best.point and best.point.record.name for best in group.best}
    assert found == {"fastest": "a", "smallest": "a"}
    (group,) = groups_of([a, b], [parse_constraint("accuracy>=0.905")], usable=lambda point: point.record.name != "a")
    assert [(p.record.name, p.trial.number) for p in group.front] == [("b", 0), ("b", 1)]
    assert all(best.point is not None and best.point.trial.number == 0 for best in group.best)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "digits"},
        {"device": "rpi3"},
        {"hashes": {"network": "1"}},
        {"hashes": {"data": "1"}},
        {"hashes": {"device": "1"}},
        {"hashes": {"latency_model": "1"}},
        {"latency_source": "measured"},
        {"metric_name": "recall"},
    ],
)
def test_only_what_can_be_compared_is(changes: dict[str, Any]) -> None:
    record = make_record(*ALL)
    assert len(groups_of([record, replace(record, name="b", seed=2, space="small")])) == 1
    assert len(groups_of([record, replace(record, name="b", **changes)])) == 2


@pytest.mark.parametrize(
    "changes", [{"runtime": "tflite-runtime"}, {"runtime_version": "1"}, {"threads": 4}, {"os_bits": 32}]
)
def test_nor_are_runtimes_mixed(changes: dict[str, Any]) -> None:
    record = make_record(*ALL)
    baseline = replace(record.baseline, measurement=replace(record.baseline.measurement, **changes))
    assert len(groups_of([record, replace(record, name="b", baseline=baseline)])) == 2


def test_a_damaged_file_is_left_out_and_what_it_hid_comes_forward() -> None:
    worst, best = make_trial(0, 0.9, 0.2, 20_000), make_trial(1, 0.91, 0.1, 10_000)
    (group,) = groups_of([make_record(worst), make_record(best, name="b")], usable=lambda p: p.trial.number != 1)
    assert [p.trial.number for p in group.front] == [0]
    assert {b.point.trial.number for b in group.best if b.point} <= {0}


def test_plain_int8_is_8_bits_everywhere_dense_and_static() -> None:
    plain = Configuration(activations="int8", layers={"a": LayerChoice(bits=8, clusters=255), "b": LayerChoice(bits=8)})
    dynamic = replace(plain, activations="float32")
    sparse = replace(plain, layers={"a": LayerChoice(bits=8, sparsity=0.5), "b": LayerChoice(bits=8)})
    trials = [make_trial(n, 0.9, 0.2, 1000, configuration=c) for n, c in enumerate([dynamic, sparse, plain])]
    assert plain_int8(make_record(*trials)) is trials[2]
    assert plain_int8(make_record(*trials[:2])) is None


days = st.integers(0, 3).map(lambda n: 86_400.0 * n + 7)


@given(st.lists(st.tuples(point, days), max_size=8), st.integers(0, 1))
@settings(deadline=None)
def test_nights_are_the_hypervolume_of_all_found_by_then(
    found: list[tuple[tuple[float, int, int], float]], least: int
) -> None:
    trials = [
        replace(make_trial(n, a, lat / 10, size * 10_000), finished_s=at)
        for n, ((a, lat, size), at) in enumerate(found)
    ]
    constraint = (Constraint(name="accuracy", relation=">=", bound=0.9 + 0.01 * least),)
    records = [
        make_record(*trials[::2], constraints=constraint),
        make_record(*trials[1::2], name="b", constraints=constraint),
    ]
    (group,) = groups_of(records)
    for night in group.nights:
        until = 86_400.0 * (int(night.day[-2:]))  # January 1970
        before = [evaluated(t) for t in trials if present(t.finished_s) < until]
        so_far = [e for e in before if e.accuracy >= constraint[0].bound]
        expected = pareto.hypervolume(present(scaled(records[0], so_far)), np.ones(3))
        assert night.hypervolume == pytest.approx(expected)
        assert night.finished_s == until - 86_400.0 + 7
    assert sum(night.trials for night in group.nights) == sum(feasible(records[0], evaluated(t)) for t in trials)


def test_changes_are_against_the_studys_own_float_and_int8_networks() -> None:
    plain = Configuration(activations="int8", layers={"a": LayerChoice(bits=8)})
    int8 = make_trial(0, 0.915, 0.1, 80_000, configuration=plain)
    better = make_trial(1, 0.92, 0.15, 20_000, ratio_to_baseline=0.25, latency_source="measured")
    board = document(groups_of([make_record(int8, better)]), [])
    front = {p["trial"]: p for p in board["groups"][0]["front"]}
    assert front[1]["to_float"] == pytest.approx({"accuracy": 0.92 - 0.9186, "latency": 0.25, "download": 20 / 288})
    assert front[1]["to_int8"] == pytest.approx({"accuracy": 0.005, "latency": 1.5, "download": 0.25})


def test_text_of_users_stays_text_in_markdown_and_csv() -> None:
    run = SearchRun(command=("a",), user="=u", host="h", started_s=0.0)
    record = make_record(*ALL, name="=cmd|x", task=EVIL, runs=(run,), versions={"autocompress": "0.1"})
    board = document(groups_of([record]), [("@x", "a | b\nc <i>")])
    text = markdown(board)
    assert "<b>" not in text
    assert r"\<b\>" in text
    assert r"a \| b c \<i\>" in text
    widths = {
        line.replace(r"\|", "").count("|") for line in text.splitlines() if line.startswith("| ") and "cmd" in line
    }
    assert widths == {3, 6, 8, 9}  # the card, who searched, the front's and the studies', the best's columns
    lines = list(csv.DictReader(io.StringIO(csv_text(board))))
    assert len(lines) == len(Front(record).trials) + 1
    assert lines[0]["study"] == "'=cmd|x"
    assert lines[0]["task"] == EVIL
    assert float(lines[0]["accuracy"]) == 0.917
    about = [lines[0][name] for name in ("rank", "by", "started", "version")]
    assert about == ["1", "'=u on h", "1970-01-01 00:00", "0.1"]
    assert float(lines[0]["hypervolume"]) == pytest.approx(Front(record).hypervolume)
    assert (lines[-1]["best_of"], lines[-1]["left_out_because"]) == ("'@x", "a | b\nc <i>")
    assert any("smallest: accuracy >= float - 1 point" in line["best_of"] for line in lines)
    assert [t.title for t in tables(board)][-1] == "Left out"


# What is stored


@pytest.fixture
def somewhere_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock shows another time than UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC-5")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("somewhere_east")
def test_it_reads_what_optuna_reads_but_for_the_samples(tmp_path: Path) -> None:
    odd = replace(make_trial(3, 0.9, **SAMPLES), finished_s=None)
    layers = {EVIL: LayerChoice(bits=8)}
    named = make_trial(4, 0.8, configuration=Configuration(layers=layers), **SAMPLES)
    run = SearchRun(command=("a", EVIL), user="u", host=None, started_s=1.0)
    record = make_record(
        *ALL[:3],
        odd,
        named,
        *ALL[5:],
        name="a",
        runs=(run,),
        test_accuracy={"baseline": 0.9},
        test_ci={"baseline": (0.8, 1.0)},
        notes=(EVIL,),
    )
    study = write_study(tmp_path, record)
    study.enqueue_trial({})
    for seen in ({"samples": 250, "accuracy": 0.5}, {"samples": 250, "accuracy": 0.5, "latency_ms": 1.0}):
        study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs={"seen": seen, "reason": "hopeless"}))
    (found,), faults = read_all(tmp_path, None)
    assert faults == ()
    read = read_record(load_study(tmp_path, "a", None))
    bare = [
        t
        if t.evaluation is None
        else replace(t, evaluation=replace(t.evaluation, measurement=replace(t.evaluation.measurement, samples_ms=())))
        for t in read.trials
    ]
    assert any(t.evaluation and t.evaluation.measurement.samples_ms for t in read.trials)
    assert found == replace(read, trials=tuple(bare))
    assert evaluated(found.trials[4]).configuration.layers == layers
    assert [trial.state for trial in found.trials[-2:]] == ["stopped_early", "screened"]


def sensitivity(runs: Path) -> None:
    """Four studies that cannot be read, each in its own way."""
    for name in ("garbage", "empty"):
        (runs / name).mkdir()
    (runs / "garbage" / "study.db").write_bytes(b"no database at all" * 100)
    sqlite3.connect(runs / "empty" / "study.db").close()
    write_study(runs, make_record(*ALL, name="older")).set_user_attr("identity", {"task": "x"})
    write_study(runs, make_record(name="no-baseline"))
    with sqlite3.connect(runs / "no-baseline" / "study.db") as database:
        database.execute("DELETE FROM study_user_attributes WHERE key = 'baseline'")
    database.close()


def test_what_cannot_be_read_is_listed_with_the_reason_and_ends_with_1(tmp_path: Path) -> None:
    write_study(tmp_path, make_record(*ALL, name="good"))
    sensitivity(tmp_path)
    done = call("--runs", tmp_path, "--format", "json")
    assert done.exit_code == 1
    board = json.loads(done.stdout)
    assert [s["study"] for group in board["groups"] for s in group["studies"]] == ["good"]
    reasons = {item["what"]: item["reason"] for item in board["left_out"]}
    assert set(reasons) == {"garbage", "empty", "older", "no-baseline"}
    assert "not a database" in reasons["garbage"]
    assert "no such table" in reasons["empty"]
    assert "another version of autocompress" in reasons["older"]
    assert "no baseline yet" in reasons["no-baseline"]
    assert done.stderr.startswith("left out: 4")
    assert done.stderr.count("\n") == 1


def test_a_file_that_changed_is_named_and_left_out(tmp_path: Path) -> None:
    good, bad = b"right", b"changed"
    trials = [
        make_trial(
            n,
            0.9 + n / 100,
            0.2 - n / 100,
            20_000,
            sha256=hashlib.sha256(good).hexdigest(),
            artifact=f"a/artifacts/{n}.tflite",
        )
        for n in range(3)
    ]
    write_study(tmp_path, make_record(*trials, name="a"))
    (tmp_path / "a" / "artifacts").mkdir()
    (tmp_path / "a" / "artifacts" / "2.tflite").write_bytes(bad)
    (tmp_path / "a" / "artifacts" / "1.tflite").write_bytes(good)  # trial 0's is not here: nothing is said against it
    done = call("--runs", tmp_path, "--format", "json")
    board = json.loads(done.stdout)
    assert done.exit_code == 1
    assert [item["what"] for item in board["left_out"]] == ["study a, trial 2"]
    assert 2 not in [p["trial"] for p in board["groups"][0]["front"]]


def test_every_format_and_a_storage_of_many_studies(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/all.db"
    for name in ("a", "b"):
        write_study(tmp_path / "runs", make_record(*ALL, name=name), storage)
    for form, begins in (
        ("table", "\nfashion-mnist on rpi4"),
        ("markdown", "# Leaderboard"),
        ("csv", "task,device,"),
        ("json", "{"),
    ):
        done = call("--storage", storage, "--runs", tmp_path, "--format", form)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.startswith(begins)
        assert "modelled" in done.stdout
    site = tmp_path / "site"
    assert call("--storage", storage, "--html", site).stdout == f"{site / 'index.html'}\n"
    assert {path.name for path in site.iterdir()} == {
        "index.html",
        "leaderboard.csv",
        "leaderboard.json",
        "leaderboard.md",
        "nights.csv",
    }
    board = json.loads((site / "leaderboard.json").read_text())
    assert board["schema"] == 1
    nights = list(csv.DictReader(io.StringIO((site / "nights.csv").read_text())))
    told = [night for group in board["groups"] for night in group["nights"]]
    assert [(n["day"], float(n["hypervolume"]), int(n["trials"])) for n in nights] == [
        (night["day"], night["hypervolume"], night["trials"]) for night in told
    ]
    assert told


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for arguments, said in (
        (("--runs", tmp_path), "there is no study in"),
        (("--format", "html"), "unknown format 'html'"),
        (("--constraint", "accuracy=1"), "is not NAME<=NUMBER"),
    ):
        done = call(*arguments)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr
    for storage, said in (
        ("postgresql+nodriver://me:secret@host/db", "postgresql+nodriver://me:***@host/db"),
        (f"sqlite:///{tmp_path}/none.db", "there is no such file"),
        ("nonsense", "no study can be read in nonsense"),
    ):
        done = call("--storage", storage)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr
        assert "secret" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_fine_tuned_points_say_so(tmp_path: Path) -> None:
    tuned = make_trial(0, 0.92, 0.1, 10_000, finetuned=True)
    board = document(groups_of([make_record(tuned)]), [])
    assert board["groups"][0]["front"][0]["summary"].endswith(" · fine-tuned")


def test_a_runs_folder_with_odd_letters_is_read(tmp_path: Path) -> None:
    write_study(tmp_path / "a", make_record(*ALL, name="x"))
    (tmp_path / "a").rename(tmp_path / "a?b#c %20")
    (found,), _ = read_all(tmp_path / "a?b#c %20", None)
    assert found.name == "x"


def test_the_same_network_and_data_are_one_group_whatever_the_task_is_called() -> None:
    hashes = {"network": "1" * 64, "data": "2" * 64}
    records = [make_record(*ALL, name=name, task=task, hashes=hashes) for name, task in (("a", "net"), ("b", "other"))]
    (group,) = groups_of(records)
    assert dict(group.key)["task"] == "net, other"
    assert len(group.standings) == 2
    another = make_record(*ALL, name="c", task="net", hashes=hashes | {"data": "3" * 64})
    assert len(groups_of([*records, another])) == 2
    assert len(groups_of([make_record(*ALL, name=name, task=name) for name in "ab"])) == 2  # no hashes: by name
