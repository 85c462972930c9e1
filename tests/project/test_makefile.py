"""Which Python `make` takes for a .venv, with executables on PATH that only look like Pythons: nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.builders.project import ROOT

MAKEFILE = ROOT / "Makefile"
COST = "local-tflite-runtime cannot be measured"
# As the Makefile asks, and as it makes a .venv: with a Python there whose pip does nothing.
FAKE = """#!/bin/sh
test "$1" = -c && echo {name} && exit
test "$1 $2" = "-m venv" && mkdir -p "$3/bin" && echo '#!/bin/sh' > "$3/bin/python" && chmod +x "$3/bin/python" &&
echo {name} > "$3/made-with"
"""
SHIM = '#!/bin/sh\necho "pyenv: {name}: command not found"; exit {code}\n'
BARE = '#!/bin/sh\necho "ModuleNotFoundError: No module named ensurepip" >&2; exit 1\n'  # Debian without python3-venv

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile, and beside it one for all programs that are found."""
    (tmp_path / "project").mkdir()
    shutil.copy(MAKEFILE, tmp_path / "project")
    (tmp_path / "project/pyproject.toml").write_text("")
    for name in ("make", "sh", "mkdir", "chmod", "touch"):
        found = shutil.which(name)
        assert found is not None, name
        (tmp_path / "programs").mkdir(exist_ok=True)
        (tmp_path / "programs" / name).symlink_to(found)
    return tmp_path / "project"


def there(project: Path, *names: str, text: str = FAKE, code: int = 127) -> None:
    for name in names:
        program(project.parent / "programs" / name, text.format(name=name, code=code))


def make(project: Path, *words: str | Path, environment: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    known |= {"PATH": str(project.parent / "programs"), **dict(word.split("=", 1) for word in environment)}
    command = ["make", ".venv/.installed", *map(str, words)]
    return subprocess.run(command, cwd=project, env=known, text=True, capture_output=True, check=False, timeout=60)


def taken(project: Path, done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    name = (project / ".venv/made-with").read_text().strip()
    assert f".venv is made with {name}, which is {name}\n" in done.stdout
    return name


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("python3.10", "python3.11", "python3.12", "python3.13"), "python3.11"),
        (("python3.10", "python3.12", "python3.13"), "python3.12"),
        (("python3.10", "python3.13"), "python3.13"),
        (("python3.10",), "python3.10"),
    ],
)
def test_the_first_that_is_there_is_taken_and_named(project: Path, names: Sequence[str], wanted: str) -> None:
    there(project, *names)
    done = make(project)
    assert taken(project, done) == wanted
    assert (COST in done.stdout) == (wanted in ("python3.12", "python3.13"))
    assert "command not found" not in done.stderr
    assert (project / ".venv/.installed").exists()


@pytest.mark.parametrize("code", [0, 127])
@pytest.mark.parametrize("text", [SHIM, BARE, FAKE.replace("{name}", "python3.8")], ids=["shim", "bare", "other"])
def test_what_only_has_the_name_is_passed_over(project: Path, text: str, code: int) -> None:
    there(project, "python3.11", "python3.12", text=text, code=code)
    there(project, "python3.13")
    done = make(project)
    assert taken(project, done) == "python3.13"
    assert done.stdout.count(COST) == 1


def test_python_overrides(project: Path) -> None:
    there(project, "python3.11", "python3.12")
    mine = program(project.parent / "elsewhere/python", FAKE.format(name="python3.13"))
    done = make(project, f"PYTHON={mine}")
    assert f".venv is made with {mine}, which is python3.13\n" in done.stdout
    assert COST in done.stdout
    shutil.rmtree(project / ".venv")
    assert taken(project, make(project, environment=["PYTHON=python3.12"])) == "python3.12"


def test_none_there_says_what_to_install(project: Path) -> None:
    there(project, "python3.9", "python3.14")
    there(project, "python3.11", text=BARE)
    done = make(project)
    assert done.returncode == 2
    assert "install Python 3.11 with both (Debian 12: apt-get install python3.11-venv)" in done.stderr
    assert not (project / ".venv").exists()


def test_an_override_that_does_not_start_says_so(project: Path) -> None:
    there(project, "python3.11")
    there(project, "shim", text=SHIM)
    done = make(project, "PYTHON=shim")
    assert done.returncode == 2
    assert "shim does not start, or lacks venv or ensurepip" in done.stderr
    assert not (project / ".venv").exists()


def test_a_venv_that_is_there_is_kept(project: Path) -> None:
    there(project, "python3.11")
    assert taken(project, make(project)) == "python3.11"
    there(project, "python3.12")
    (project / ".venv/.installed").unlink()
    done = make(project, "PYTHON=python3.12")
    assert done.returncode == 0, done.stderr
    assert (project / ".venv/made-with").read_text() == "python3.11\n"
    assert (project / ".venv/.installed").exists()


def test_a_venv_cut_while_it_was_made_is_made_again(project: Path) -> None:
    """venv puts bin/python there first and pip last: what failed in between must not be taken for a .venv."""
    there(project, "python3.11", text=FAKE + "exit 1\n")
    assert make(project).returncode == 2
    assert not (project / ".venv/bin/python").exists()
    there(project, "python3.11")
    assert taken(project, make(project)) == "python3.11"
