"""A device with neither a host nor a latency model: searched for all but latency, from the command line to the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import autocompress as ac
from tests.builders.command_line import call, fault_of

DEVICE = "rpi-zero2w"
LEFT_OUT = f"latency is left out: '{DEVICE}' has neither a latency model nor a host; --host DEST measures it there"


def search(runs: Path, *more: str) -> Any:
    words = ("--task", "digits", "--space", "quick", "--trials", "6", "--study", "a")
    return call("search", "--device", DEVICE, "--runs", runs, *words, *more)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    runs = tmp_path_factory.mktemp("runs")
    done = search(runs)
    assert done.exit_code == 0, done.output
    return runs, done.stdout


def test_it_is_searched_without_latency_and_says_so(searched: tuple[Path, str]) -> None:
    runs, said = searched
    assert LEFT_OUT in " ".join(said.split())
    assert "memory, estimated" in said
    document = json.loads(call("report", "a", "--runs", runs, "--json").stdout)
    assert document["latency_source"] == "none"
    assert document["front"]
    assert all(point["latency_ms"] is None for point in document["front"])
    assert document["hypervolume"] > 0


def test_all_that_reads_studies_takes_it(searched: tuple[Path, str], tmp_path: Path) -> None:
    runs, _ = searched
    for words in (
        ("report", "a", "--html", tmp_path / "a.html"),
        ("export", "a", "--pick", "knee", "--to", tmp_path),
        ("leaderboard",),
        ("leaderboard", "--format", "csv"),
        ("leaderboard", "--html", tmp_path / "board"),
        ("list",),
        ("compare", "a", "a"),
    ):
        done = call(*words, "--runs", runs)
        assert done.exit_code == 0, (words, done.output)
    assert "latency not known" in call("leaderboard", "--runs", runs).stdout
    assert "knows no latency" in fault_of(call("export", "a", "--pick", "fastest", "--runs", runs).stderr)


def test_it_goes_on_and_python_sees_it(searched: tuple[Path, str]) -> None:
    runs, _ = searched
    done = search(runs, "--trials", "7")
    assert done.exit_code == 0, done.output
    with ac.open_study(runs / "a") as study:
        assert study.front.knee.latency.ms is None
        assert study.front.knee.latency.source == "none"


@pytest.mark.parametrize(
    "asked",
    [("--objective", "latency"), ("--objective", "energy"), ("--constraint", "latency_ms<=8")],
)
def test_what_hangs_on_latency_cannot_be_asked_for(tmp_path: Path, asked: tuple[str, ...]) -> None:
    done = search(tmp_path, *asked)
    assert done.exit_code == 2
    assert "add --host DEST to measure there, or leave it out" in fault_of(done.stderr)
    assert not list(tmp_path.iterdir())


def test_memory_is_an_objective_there(tmp_path: Path) -> None:
    done = search(tmp_path, "--objective", "metric", "--objective", "memory")
    assert done.exit_code == 0, done.output
    document = json.loads(call("report", "a", "--runs", tmp_path, "--json").stdout)
    taken = [point["peak_memory_bytes"] for point in document["front"]]
    assert min(taken) < document["baseline"]["peak_memory_bytes"]


def test_whether_it_fits_has_an_answer(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(ac.task("digits").network)
    said = " ".join(call("measure", tmp_path / "net.tflite", "--device", DEVICE).stdout.replace("│", " ").split())
    assert "estimated from the file alone, and some 10 MB of the runtime · fits: rpi-zero2w has 512 MiB" in said
    assert "not known: the device has neither a latency model nor a host" in said
