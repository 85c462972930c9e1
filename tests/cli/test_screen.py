"""The screen while something is done: a line per stage, how much is said, and nobody's lines across a bar."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autocompress.search.storage.all_studies import read_all
from autocompress.search.storage.study_records import load_study
from tests.builders.command_line import call
from tests.builders.project import ROOT

# A bar is moved while a library below Python and a child process write to standard error.
NOISY = """
import os, subprocess, sys
from rich.console import Console
from rich.live import Live
from autocompress.cli import screen

console = Console(stderr=sys.argv[1] == "stderr")
with screen.unbroken(console), Live("bar 1", console=console, auto_refresh=False) as live:
    live.refresh()
    os.write(2, b"W0000 half a ")
    live.update("bar 2", refresh=True)
    os.write(2, b"line\\n")
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'of a child\\\\n')"], check=True)
    live.update("bar 3", refresh=True)
os.write(2, b"afterwards\\n")
"""


def shown(written: str) -> list[str]:
    """The lines that a terminal shows at the end: what was written over or erased is gone. Knows what Rich writes for a
    bar of one line: carriage return, erase the line, one line up, colours."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|.|\n", written, re.DOTALL):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\x1b[1A":
            row -= 1
        elif not part.startswith("\x1b"):
            lines[row] = (lines[row][:column].ljust(column) + part + lines[row][column + 1 :]).rstrip("\0")
            column += 1
    return [line.rstrip() for line in lines if line.strip()]


def on_terminal(*command: str) -> str:
    """What a command writes on a terminal of its own."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env={**os.environ, "TERM": "xterm"}
    ):
        os.close(slave)
        written = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # Linux says so when nobody has the other end any more
                break
            if not piece:
                break
            written += piece
    os.close(master)
    return written.decode()


@pytest.mark.parametrize("where", ["stdout", "stderr"])
def test_lines_of_libraries_and_children_stand_whole_above_the_bar(where: str) -> None:
    assert shown(on_terminal(sys.executable, "-c", NOISY, where)) == [
        "W0000 half a line",
        "of a child",
        "bar 3",
        "afterwards",
    ]


def test_the_terminal_of_this_test_shows_a_broken_bar() -> None:
    broken = NOISY.replace("screen.unbroken(console), ", "")
    assert shown(on_terminal(sys.executable, "-c", broken, "stdout"))[0] != "W0000 half a line"


def search(runs: Path, *more: str | Path) -> Any:
    return call("search", "--device", "rpi4", "--runs", runs, "--space", "quick", "--study", "a", *more)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A runs folder with a study of three trials, and what was said while it was made."""
    runs = tmp_path_factory.mktemp("runs")
    done = search(runs, "--trials", "3")
    assert done.exit_code == 0, done.output
    return runs, done


def test_stages_are_said_on_standard_error_before_the_header(begun: tuple[Path, Any]) -> None:
    _, done = begun
    stages = done.stderr.splitlines()
    assert stages[0] == "reading the task digits"
    assert "running the float network on calibration, validation and test data" in stages
    assert "modelling the latency on rpi4" in stages
    assert done.stdout.startswith("╭─ autocompress search")


def test_the_first_line_comes_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys\n"
        "from autocompress.cli import app, screen\n"
        "def first(line, *values):\n"
        "    heavy = {'optuna', 'tensorflow', 'numpy', 'scipy', 'ai_edge_litert'} & set(sys.modules)\n"
        "    sys.exit(f'{line % values}; {heavy}')\n"
        "screen.stage = first\n"
        "app(['search', '--device', 'rpi4'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == "reading the task digits; set()\n"


def test_a_complete_study_says_how_to_go_on(begun: tuple[Path, Any]) -> None:
    runs, _ = begun
    done = search(runs, "--trials", "3")
    assert done.exit_code == 0
    assert "study a is complete, with 3 trials; --trials 100 goes on" in done.stdout
    assert "candidates/min" not in done.stdout
    assert "Front of study a" in done.stdout


def test_quiet_shows_results_only(begun: tuple[Path, Any]) -> None:
    runs, _ = begun
    for words in (["-q", "search"], ["search", "--quiet"]):
        done = call(*words, "--device", "rpi4", "--runs", runs, "--space", "quick", "--study", "a", "--trials", "3")
        assert done.exit_code == 0
        assert done.stderr == ""
        assert done.stdout.startswith("Ship this  trial")
        assert "\nFront of study a" in done.stdout
    studies, _ = read_all(runs, None)
    assert all(word not in studies[0].runs[-1].command for word in ("-q", "--quiet"))


def test_objectives_are_named_for_the_tools_of_optuna(begun: tuple[Path, Any]) -> None:
    runs, _ = begun
    assert load_study(runs, "a", None).metric_names == ["accuracy", "latency_ms", "download_bytes"]


def test_verbose_says_when(begun: tuple[Path, Any]) -> None:
    runs, _ = begun
    done = search(runs, "--trials", "3", "-v")
    assert re.match(r" +\d+\.\d s  reading the task digits\n", done.stderr)
    assert call("report", "a", "--runs", runs).stderr == ""
