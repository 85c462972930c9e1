"""`list`, `compare` and `rm`: what is there, how two differ, and what goes and what stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autocompress.search.storage.study_records import load_study
from autocompress.search.workers.locks import locked
from autocompress.sweep.night import CellNight, FileFigures, Night, Nights
from tests.builders.command_line import call, fault_of
from tests.builders.records import ALL, make_record
from tests.builders.stored_studies import write_study


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two studies, each with the files of its trials and one of nobody."""
    for name, seed in (("a", 0), ("b", 1)):
        record = make_record(*ALL, name=name, seed=seed)
        write_study(tmp_path, record)
        for evaluation in (record.baseline, *(t.evaluation for t in record.trials if t.evaluation)):
            path = tmp_path / evaluation.artifact
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"file")
    return tmp_path


def files(runs: Path) -> set[str]:
    return {path.relative_to(runs).as_posix() for path in runs.glob("*/artifacts/*")}


def nobodys(runs: Path, study: str = "a") -> Path:
    path = runs / study / "artifacts" / f"{'0' * 64}.tflite"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")
    return path


def test_studies_are_listed_in_80_columns(runs: Path) -> None:
    done = call("list", "--runs", runs)
    assert done.exit_code == 0, done.output
    assert {line.split()[0] for line in done.stdout.splitlines() if line.startswith(("a ", "b "))} == {"a", "b"}
    assert max(map(len, done.stdout.splitlines())) <= 80
    document = json.loads(call("list", "--runs", runs, "--json").stdout)
    assert {study["study"] for study in document["studies"]} == {"a", "b"}


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    done = call("list", "--runs", tmp_path)
    assert done.exit_code == 2
    assert "start one with: autocompress search" in fault_of(done.stderr)


def test_two_studies_are_compared(runs: Path) -> None:
    done = call("compare", "a", "b", "--runs", runs)
    assert done.exit_code == 0, done.output
    assert ["seed", "0", "1"] in [line.split() for line in done.stdout.splitlines()]
    assert max(map(len, done.stdout.splitlines())) <= 80
    document = json.loads(call("compare", "a", "b", "--runs", runs, "--json").stdout)
    assert document["differences"] == [{"what": "seed", "a": "0", "b": "1"}]
    assert document["picks"]["knee"][0] == document["picks"]["knee"][1] is not None


def test_what_cannot_be_compared_is_said(runs: Path) -> None:
    write_study(runs, make_record(*ALL, name="c", device="another"), network_sha256="1" * 64, data_sha256="2" * 64)
    lines = call("compare", "a", "c", "--runs", runs).stdout
    assert "not to be compared: their accuracy values are of another network and data" in " ".join(lines.split())
    assert "their latencies are of another device" in " ".join(lines.split())


def test_a_study_is_removed_with_its_files_and_no_other(runs: Path) -> None:
    others = {name for name in files(runs) if name.startswith("b/")}
    done = call("rm", "a", "--runs", runs, "--yes")
    assert done.exit_code == 0, done.output
    assert not (runs / "a").exists()
    assert files(runs) == others
    assert call("report", "b", "--runs", runs).exit_code in (0, 1)


def test_in_a_storage_the_study_goes_and_the_others_stay(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    for name in ("a", "b"):
        write_study(tmp_path, make_record(*ALL, name=name), url)
    assert call("rm", "a", "--runs", tmp_path, "--storage", url, "--yes").exit_code == 0
    assert "unknown study 'a'" in fault_of(call("report", "a", "--runs", tmp_path, "--storage", url).stderr)
    assert load_study(tmp_path, "b", url).study_name == "b"


def test_nothing_goes_without_a_yes(runs: Path) -> None:
    before = files(runs)
    done = call("rm", "a", "--runs", runs)
    assert done.exit_code == 2
    assert "Add --yes" in fault_of(done.stderr)
    assert files(runs) == before
    assert "give STUDY ..., or --unreferenced" in fault_of(call("rm", "--runs", runs).stderr)
    assert "did you mean" in fault_of(call("rm", "aa", "--runs", runs, "--yes").stderr)


def test_of_several_none_goes_where_one_cannot(runs: Path) -> None:
    assert call("rm", "a", "bb", "--runs", runs, "--yes").exit_code == 2
    assert (runs / "a" / "study.db").is_file()


def test_a_study_that_is_searched_stays(runs: Path) -> None:
    path = nobodys(runs)
    with locked(runs / "a"):
        assert "is being searched" in fault_of(call("rm", "a", "--runs", runs, "--yes").stderr)
        done = call("rm", "--unreferenced", "--runs", runs, "--yes")
    assert path.is_file()
    assert "left as it is: a: study 'a' is being searched by another process" in done.stderr


def test_files_of_nobody_go_and_all_others_stay(runs: Path) -> None:
    before, path = files(runs), nobodys(runs)
    done = call("rm", "--unreferenced", "--runs", runs, "--yes")
    assert done.exit_code == 0, done.output
    assert not path.exists()
    assert files(runs) == before
    assert "every file is some study's" in call("rm", "--unreferenced", "--runs", runs, "--yes").stdout


def test_files_of_a_study_that_cannot_be_read_stay(runs: Path) -> None:
    path = nobodys(runs)
    (runs / "a" / "study.db").write_bytes(b"no database")
    done = call("rm", "--unreferenced", "--runs", runs, "--yes")
    assert path.is_file()
    assert "left as it is: a: its storage cannot be read" in done.stderr


def figures(artifact: str) -> dict[str, Any]:
    sizes = {"file_bytes": 1, "download_bytes": 1}
    return {
        "trial": 1,
        "configuration": {},
        "sha256": "0",
        "artifact": artifact,
        "accuracy": 0.5,
        "latency_ms": 1.0,
    } | sizes


def test_what_nights_name_stays(runs: Path) -> None:
    path = nobodys(runs)
    front = (FileFigures(**figures(path.relative_to(runs).as_posix())),)
    cells = (CellNight(cell="c", state="done", study="a", front=front),)
    nights = Nights(runs, "nightly")
    nights.folder.mkdir(parents=True)
    nights.save(Night(number=1, sweep="nightly", began="", ended="", accepted=None, cells=cells))
    assert call("rm", "--unreferenced", "--runs", runs, "--yes").exit_code == 0
    assert path.is_file()
    nights.accept(1)
    assert "sweep 'nightly' compares its nights" in fault_of(call("rm", "a", "--runs", runs, "--yes").stderr)
    assert call("rm", "b", "--runs", runs, "--yes").exit_code == 0
