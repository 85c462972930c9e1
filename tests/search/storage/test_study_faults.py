"""Studies that cannot be used as they lie there: of another schema, of another Optuna, in use, with a changed file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from autocompress.errors import AutocompressError
from autocompress.records.front import Front
from autocompress.search.storage import study_records
from autocompress.search.storage.artifacts import without_altered
from tests.builders.command_line import call
from tests.builders.records import ALL, make_record, make_trial
from tests.builders.stored_studies import write_study


@contextlib.contextmanager
def database(runs: Path, study: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(runs / study / "study.db")
    with connection:
        yield connection
    connection.close()


READERS = ["report", "export", "finetune"]


@pytest.mark.parametrize("command", READERS)
def test_a_study_of_another_schema_is_refused_with_the_remedy(tmp_path: Path, command: str) -> None:
    study = write_study(tmp_path, make_record(*ALL, name="a", versions={"autocompress": "7.1"}))
    study.set_user_attr("schema", study_records.SCHEMA + 1)
    with database(tmp_path, "a") as connection:  # and evaluations that this version cannot read
        key = "key = 'evaluation'"
        for row, text in connection.execute(
            f"SELECT trial_user_attribute_id, value_json FROM trial_user_attributes WHERE {key}"
        ).fetchall():
            changed = json.dumps(json.loads(text) | {"unheard_of": 1})
            connection.execute(
                "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?", (changed, row)
            )
    more = ["--trial", "0"] if command == "finetune" else ["--to", str(tmp_path / "out")] if command == "export" else []
    done = call(command, "a", "--runs", tmp_path, *more)
    said = f"study 'a' has schema {study_records.SCHEMA + 1}, this version reads {study_records.SCHEMA} and older"
    remedy = "read it with the version of autocompress that wrote it (7.1)"
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert f"{said}; {remedy}" in done.stderr
    board = json.loads(call("leaderboard", "--runs", tmp_path, "--format", "json").stdout)
    assert [item["what"] for item in board["left_out"]] == ["a"]
    assert said in board["left_out"][0]["reason"]


def test_a_search_does_not_go_on_with_a_study_of_another_schema(tmp_path: Path) -> None:
    words = ("--device", "rpi4", "--task", "digits", "--space", "quick", "--study", "a", "--runs", tmp_path)
    assert call("search", *words, "--trials", "1").exit_code == 0
    study = study_records.load_study(tmp_path, "a", None)
    assert study.user_attrs["schema"] == study_records.SCHEMA
    study.set_user_attr("schema", 9)
    done = call("search", *words, "--trials", "2")
    assert done.exit_code == 2
    assert f"study 'a' has schema 9, this version reads {study_records.SCHEMA} and older" in done.stderr
    assert len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) == 1


def test_a_study_that_names_no_schema_is_of_the_first(tmp_path: Path) -> None:
    study = write_study(tmp_path, make_record(*ALL, name="a"))
    assert "schema" not in study.user_attrs
    assert call("report", "a", "--runs", tmp_path).exit_code == 0


def test_the_tables_of_an_older_optuna_are_refused_with_its_remedy(tmp_path: Path) -> None:
    write_study(tmp_path, make_record(*ALL, name="a"))
    with database(tmp_path, "a") as connection:
        connection.execute("UPDATE version_info SET schema_version = 3")
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    done = call("report", "a", "--runs", tmp_path)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "optuna storage upgrade --storage" in done.stderr
    assert "study.db" in done.stderr


def test_a_leaderboard_names_a_storage_in_use_and_shows_the_rest(tmp_path: Path) -> None:
    write_study(tmp_path, make_record(*ALL, name="free"))
    write_study(tmp_path / "elsewhere", make_record(*ALL, name="used"))
    (tmp_path / "used").mkdir()
    with database(tmp_path, "used") as connection:
        with database(tmp_path / "elsewhere", "used") as source:  # whose own connection stays open
            source.backup(connection)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        done = call("leaderboard", "--runs", tmp_path, "--format", "json")
        connection.rollback()
    board = json.loads(done.stdout)
    assert done.exit_code == 1
    assert [s["study"] for group in board["groups"] for s in group["studies"]] == ["free"]
    (left,) = board["left_out"]
    assert left["what"] == "used"
    assert "database is locked" in left["reason"]
    assert call("leaderboard", "--runs", tmp_path).exit_code == 0


def test_a_leaderboard_reads_what_is_being_searched(tmp_path: Path) -> None:
    write_study(tmp_path, make_record(*ALL, name="a"))
    with database(tmp_path, "a") as connection:
        connection.execute("BEGIN IMMEDIATE")  # a writer at work
        connection.execute("INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, 'x', '1')")
        done = call("leaderboard", "--runs", tmp_path, "--format", "json")
        connection.rollback()
    assert done.exit_code == 0
    assert len(json.loads(done.stdout)["groups"]) == 1


GOOD = b"right"


def with_files(runs: Path, altered: set[int]) -> None:
    """Study `a`, three trials with files, each better than the one before; those of `altered` hold something else."""
    sha256 = hashlib.sha256(GOOD).hexdigest()
    trials = [
        make_trial(n, 0.9 + n / 100, 0.2 - n / 100, 20_000, sha256=sha256, artifact=f"a/artifacts/{n}.tflite")
        for n in range(3)
    ]
    write_study(runs, make_record(*trials, name="a"))
    (runs / "a" / "artifacts").mkdir()
    for n in range(3):
        (runs / "a" / "artifacts" / f"{n}.tflite").write_bytes(b"changed" if n in altered else GOOD)


def test_a_report_names_a_file_that_changed_and_leaves_it_out(tmp_path: Path) -> None:
    with_files(tmp_path, {1, 2})
    done = call("report", "a", "--runs", tmp_path, "--json")
    assert done.exit_code == 1
    assert [point["trial"] for point in json.loads(done.stdout)["front"]] == [0]
    path = tmp_path / "a" / "artifacts" / "2.tflite"
    assert f"trial 2 is left out: its file has changed since it was measured: {path}" in done.stderr
    assert "trial 1 is left out" in done.stderr  # it had come forward
    page = tmp_path / "page.html"
    assert call("report", "a", "--runs", tmp_path, "--html", page).exit_code == 1
    assert "Note: trial 2 is left out" in page.read_text(encoding="utf-8")


def test_files_that_are_right_or_not_here_stay(tmp_path: Path) -> None:
    with_files(tmp_path, set())
    record = study_records.read_record(study_records.load_study(tmp_path, "a", None))
    assert without_altered(record, tmp_path) == (record, ())
    assert without_altered(record, tmp_path / "elsewhere") == (record, ())
    assert [trial.number for trial in Front(record).trials] == [2]


def test_an_identity_with_other_keys_is_of_another_version(tmp_path: Path) -> None:
    write_study(tmp_path, make_record(*ALL, name="a")).set_user_attr("identity", {"task": "x"})
    with pytest.raises(AutocompressError, match="made by another version of autocompress"):
        study_records.read_record(study_records.load_study(tmp_path, "a", None))
