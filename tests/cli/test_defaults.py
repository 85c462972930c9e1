"""Defaults of the user's own: variables, the table of a pyproject.toml, and what comes before what."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from autocompress.cli import app
from tests.builders.command_line import call, fault_of


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(text: str) -> None:
    Path("pyproject.toml").write_text(text)


def stored(folder: Path, *words: str) -> tuple[str, ...]:
    """The words of its command as a study stores them."""
    from autocompress.search.storage.all_studies import read_all

    done = call("search", "--study", "a", *words)
    assert done.exit_code == 0, done.output
    (study,), _ = read_all(folder / "mine", None)
    return study.runs[-1].command


def test_what_comes_before_what(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(
        "[tool.autocompress]\nruns = 'mine'\nseed = 1\nsampler = 'random'\n"
        "[tool.autocompress.search]\ndevice = 'rpi4'\nseed = 2\nspace = 'quick'\n"
        "constraint = 'accuracy>=0.1'\ntrials = 2\n"
    )
    monkeypatch.setenv("AUTOCOMPRESS_SEED", "3")
    monkeypatch.setenv("AUTOCOMPRESS_TRIALS", "9")
    words = stored(folder, "--trials", "1")
    pairs = dict(zip(words[2::2], words[3::2], strict=True))
    assert pairs == {
        "--device": "rpi4",
        "--space": "quick",
        "--trials": "1",
        "--sampler": "random",
        "--constraint": "accuracy>=0.1",
        "--study": "a",
        "--runs": "mine",
        "--seed": "3",
    }


def test_a_path_of_the_table_counts_from_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table("[tool.autocompress]\nruns = 'mine'\n")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert str(folder / "mine") in fault_of(call("report", "a").stderr)


def test_one_command_comes_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_RUNS", "everywhere")
    monkeypatch.setenv("AUTOCOMPRESS_REPORT_RUNS", "here")
    assert "in here" in fault_of(call("report", "a").stderr)
    assert "in everywhere" in fault_of(call("export", "a").stderr)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.autocompress]\nrunz = 'x'\n", "unknown option 'runz'; did you mean 'runs'?"),
        ("[tool.autocompress.search]\ntrails = 3\n", "did you mean 'search.trials'?"),
        ("[tool.autocompress.search]\ntrials = 'many'\n", "search.trials: "),
        ("[tool]\nautocompress = 3\n", "is no table"),
        ("[tool.autocompress\n", "cannot read"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(text: str, said: str) -> None:
    table(text)
    done = call("report", "a")
    assert done.exit_code == 2
    assert said in fault_of(done.stderr)
    assert "pyproject.toml" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_variable_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_TRIALS", "many")
    done = call("report", "a")
    assert done.exit_code == 2
    assert fault_of(done.stderr).startswith("error: AUTOCOMPRESS_TRIALS: ")


def test_a_variable_that_is_no_default_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_SEARCH_TRAILS", "3")
    done = call("device", "list")
    assert done.exit_code == 0
    assert done.stderr == (
        "warning: AUTOCOMPRESS_SEARCH_TRAILS is not used; did you mean 'AUTOCOMPRESS_SEARCH_TRIALS'?\n"
    )


def test_other_tables_of_a_project_are_not_ours() -> None:
    table("[tool.black]\nline-length = 3\n")
    assert call("device", "list").exit_code == 0


def test_several_values_in_a_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CONSTRAINT", "accuracy>=float - 1 point; nonsense")
    done = call("leaderboard")
    assert done.exit_code == 2
    assert "nonsense" in fault_of(done.stderr)


def test_studies_and_devices_are_completed(folder: Path) -> None:
    for name in ("first", "second"):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "study.db").touch()

    def completed(words: str) -> list[str]:
        variables = {
            "_AUTOCOMPRESS_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        return CliRunner().invoke(app, [], env=variables, prog_name="autocompress").stdout.split()

    assert completed("autocompress report f") == ["first"]
    assert completed("autocompress search --device rpi4") == ["rpi4", "rpi4-32bit"]
    assert "leaderboard" in completed("autocompress le")
