"""Every command in docs/*.md is run: the blocks of a page in order, in a folder of their own.

A block is marked by a comment on a line before it: `<!-- file: NAME -->` writes it into that folder, `<!-- exit: N -->`
expects that exit code, `<!-- board -->` gives the page the sshd fixture (an ssh destination named `board`), and
`<!-- not run: REASON -->` makes it an illustration, which is skipped with its reason. `sh` blocks are scripts; in
`console` blocks the lines after `$ ` are commands and the others what they print, which is not compared."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from autocompress.errors import AutocompressError
from autocompress.specs import SCHEMA_KINDS, json_schema
from autocompress.specs.reference import reference
from tests.builders.project import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
TEXTS = [*PAGES, *DECISIONS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(
    r"(?P<marks>(?:^ *<!--[^\n]*-->\n+)*)^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^ *```$", re.M | re.S
)
MARK = re.compile(r"<!-- *(file|exit|board|not run)(?:: *(.*?))? *-->")
COMMANDS = ("sh", "console")
TIMEOUT_S = 400


@dataclass(frozen=True, kw_only=True)
class Block:
    page: str
    line: int
    language: str
    body: str
    marks: dict[str, str]

    @property
    def runs(self) -> bool:
        return self.language in COMMANDS and "not run" not in self.marks

    @property
    def script(self) -> str:
        if self.language == "sh":
            return self.body
        lines = re.sub(r"\\\n", "", self.body).splitlines()
        return "\n".join(line.removeprefix("$ ") for line in lines if line.startswith("$ "))


def blocks_of(text: str, page: str) -> list[Block]:
    found = []
    for match in FENCE.finditer(text):
        indent = match["indent"]
        body = "".join(line.removeprefix(indent) for line in match["body"].splitlines(keepends=True))
        marks = dict(MARK.findall(match["marks"]))
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(page=page, line=line, language=match["language"], body=body, marks=marks))
    return found


BLOCKS = {path.name: blocks_of(path.read_text(encoding="utf-8"), path.name) for path in PAGES}
ILLUSTRATIONS = [block for blocks in BLOCKS.values() for block in blocks if "not run" in block.marks]


def environment(folder: Path) -> dict[str, str]:
    """Words of the docs that mean ours: autocompress, python and python3."""
    folder.mkdir()
    for name, words in (("autocompress", "-m autocompress.cli"), ("python", ""), ("python3", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (folder / name).chmod(0o755)
    own = {"PATH": f"{folder}:{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    return os.environ | own


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name, blocks in BLOCKS.items() if any(block.runs for block in blocks)])
def test_commands_of_the_docs_run(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    blocks = BLOCKS[page]
    if any("board" in block.marks for block in blocks):
        request.getfixturevalue("board")
    words, folder = environment(tmp_path / "bin"), tmp_path / "work"
    folder.mkdir()
    for block in blocks:
        if "file" in block.marks:
            (folder / block.marks["file"]).write_text(block.body, encoding="utf-8")
        if not block.runs:
            continue
        command = ["bash", "-euo", "pipefail", "-c", block.script]
        done = subprocess.run(
            command, cwd=folder, env=words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        said = f"{page}, line {block.line}:\n{block.script}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == int(block.marks.get("exit", 0)), said


@dataclass(frozen=True, kw_only=True)
class Nightly:
    """A home folder as the examples of docs/sweeps.md want it: ~/sweeps/nightly.yaml and ~/venv/bin/autocompress."""

    home: Path
    env: dict[str, str]

    @property
    def sweeps(self) -> Path:
        return self.home / "sweeps"

    def run(self, command: list[str], code: int = 0) -> None:
        done = subprocess.run(
            command, cwd=self.sweeps, env=self.env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == code, f"{command}:\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def nightly(tmp_path: Path) -> Nightly:
    (tmp_path / "venv").mkdir()
    words = environment(tmp_path / "venv" / "bin")
    (tmp_path / "venv" / "bin" / "mail").write_text('#!/bin/sh\n{ echo "$2, to $3"; cat; } >"$HOME/mail"\n')
    (tmp_path / "venv" / "bin" / "mail").chmod(0o755)
    (tmp_path / "sweeps").mkdir()
    (file,) = (block for block in BLOCKS["sweeps.md"] if block.marks.get("file") == "nightly.yaml")
    (tmp_path / "sweeps" / "nightly.yaml").write_text(file.body)
    page = {"GITHUB_STEP_SUMMARY": str(tmp_path / "page"), "HOME": str(tmp_path)}
    return Nightly(home=tmp_path, env=words | page)


def examples(language: str, words: str) -> list[str]:
    """The blocks of docs/sweeps.md in a language that hold these words."""
    return [block.body for block in BLOCKS["sweeps.md"] if block.language == language and words in block.body]


def test_the_workflow_of_the_docs_runs(nightly: Nightly) -> None:
    (text,) = examples("yaml", "jobs:")
    workflow = yaml.safe_load(text)
    (timer,) = workflow[True]["schedule"]  # YAML 1.1 reads "on" so
    assert re.fullmatch(r"(\S+ ){4}\S+", timer["cron"])
    steps = workflow["jobs"]["sweep"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[0] == "pip install autocompress"
    for command in commands[1:]:
        nightly.run(["bash", "-e", "-c", command])
    assert (nightly.home / "page").read_text().startswith("## night 1 of sweep nightly: 1 cells done")
    (uploaded,) = (step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", ""))
    assert all((nightly.sweeps / name).is_file() for name in uploaded.split())
    assert list(nightly.home.glob("runs/sweeps/nightly/night-*.json"))  # stays when the checkout is gone


def test_the_systemd_units_of_the_docs_run(nightly: Nightly) -> None:
    service, timer = (_unit(text) for text in examples("ini", "[Unit]"))
    assert timer["Timer"]["OnCalendar"]
    assert service["Service"]["WorkingDirectory"].replace("%h", str(nightly.home)) == str(nightly.sweeps)
    nightly.run(shlex.split(service["Service"]["ExecStart"].replace("%h", str(nightly.home))))
    assert (nightly.sweeps / "summary.md").is_file()


def _unit(text: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(text)
    return found


def test_the_cron_line_of_the_docs_runs_and_tells_of_a_fault(nightly: Nightly) -> None:
    (text,) = examples("", "* * *")
    (line,) = text.splitlines()
    *times, command = line.split(None, 5)
    assert len(times) == 5
    assert "%" not in command  # cron would end the command there
    nightly.run(["sh", "-c", command])
    assert "night 1 of sweep nightly: 1 cells done" in (nightly.sweeps / "sweep.log").read_text()
    assert not (nightly.home / "mail").exists()
    (nightly.sweeps / "nightly.yaml").write_text("schema: 1\n")
    nightly.run(["sh", "-c", command])
    subject, *rest = (nightly.home / "mail").read_text().splitlines()
    assert subject == "sweep: 2, to me"
    assert any("$.name" in told for told in rest)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_benchmarks_that_a_page_names_are_there(path: Path) -> None:
    for name in re.findall(r"benchmarks/[\w/]+\.\w+", path.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("path", [path for path in TEXTS if path.name != "field.md"], ids=lambda path: path.name)
def test_modules_that_a_page_names_are_there(path: Path) -> None:
    """Those in a folder, as `room/module.py`; the page on other tools names theirs."""
    for name in re.findall(r"`(\w+/[\w/*]+\.py)`", path.read_text(encoding="utf-8")):
        assert [*ROOT.glob(name), *(ROOT / "autocompress").glob(name)], name


@pytest.mark.parametrize("block", ILLUSTRATIONS, ids=lambda block: f"{block.page}:{block.line}")
def test_illustrations_say_why_they_are_not_run(block: Block) -> None:
    assert len(block.marks["not run"]) > 10, "give the reason"
    pytest.skip(f"{block.page}, line {block.line}, is not run: {block.marks['not run']}")


@pytest.mark.slow
@pytest.mark.parametrize("block", ILLUSTRATIONS, ids=lambda block: f"{block.page}:{block.line}")
def test_commands_of_illustrations_are_there_and_take_their_options(block: Block, tmp_path: Path) -> None:
    own = environment(tmp_path / "bin")
    own["PATH"] += f":{Path(sys.executable).parent}"  # where optuna-dashboard is
    for words in map(shlex.split, block.script.splitlines()):
        if words[0] == "pip":
            continue
        command = f"{shlex.join(words[: _depth(words)])} --help"
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=own, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        for option in (word for word in words if word.startswith("--")):
            assert option in done.stdout, f"{command} tells of no {option}"


def _depth(words: list[str]) -> int:
    """How many words name the command itself: `python -m MODULE` are three."""
    return {"autocompress": 3 if words[1] == "device" else 2, "python": 3}.get(words[0], 1)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_command_hides_in_a_block_without_a_language(path: Path) -> None:
    if path.name == "formats.md":  # its synopsis is a grammar, no commands
        return
    for block in BLOCKS[path.name]:
        hidden = re.search(r"^(\$ )?(autocompress|python3?|make) ", block.body, re.M)
        assert block.language in (*COMMANDS, "json") or hidden is None, f"line {block.line}: mark it as sh or console"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        page = path.parent / target if target else path
        assert page.exists(), target
        assert not anchor or anchor in anchors_of(page), f"{target}#{anchor}"


@pytest.mark.parametrize(("name", "most"), [("README.md", 70), ("docs/design.md", 250)])
def test_what_is_read_first_is_short(name: str, most: int) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= most, "move what is long to a page in docs/"


def test_the_index_names_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w.]+)\)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8")))
    assert linked == {page.name for page in PAGES} - {"index.md"}


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "\n## [Unreleased]\n" in text
    kinds = re.findall(r"^### (.+)$", text.split("## [Unreleased]")[1].split("\n## ")[0], re.M)
    allowed = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    assert set(kinds) <= set(allowed)
    assert len(kinds) == len(set(kinds)), "one section of a kind"


def anchors_of(page: Path) -> set[str]:
    """What a link may lead to on a page: its headings as GitHub names them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def decisions_of(page: Path) -> list[int]:
    return [int(number) for number in re.findall(r"^### Decision (\d+)$", page.read_text(encoding="utf-8"), re.M)]


def test_each_decision_is_on_one_page_and_in_the_index() -> None:
    pages = [page for page in DECISIONS if page.name != "README.md"]
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    themes = re.findall(r"^\| [^|]+ \| \[(.+)\]\((.+)\) \|$", index, re.M)
    assert sorted(themes) == [(page.name, page.name) for page in pages]
    found = sorted((number, page.name, title_of(page, number)) for page in pages for number in decisions_of(page))
    rows = [line for line in index.splitlines() if re.match(r"\| \[\d", line)]
    assert rows == [f"| [{n}]({page}#decision-{n}) | {title} | [{page}]({page}) |" for n, page, title in found]


def title_of(page: Path, number: int) -> str:
    """A decision's first words, which are bold: in one line and without a full stop."""
    found = re.search(rf"^### Decision {number}\n\n\*\*(.+?)\*\*", page.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None, f"decision {number} begins without a bold title"
    return " ".join(found[1].split()).rstrip(".")


def test_decisions_that_are_named_anywhere_are_there() -> None:
    numbers = [number for page in DECISIONS for number in decisions_of(page)]
    assert len(numbers) == len(set(numbers)), "a number is given twice"
    sources = [path for folder in ("autocompress", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")]
    profiles = [path for folder in ("search_spaces", "device_profiles") for path in (ROOT / folder).glob("*.yaml")]
    for path in [*TEXTS, *sources, *profiles]:
        named = re.findall(r"\bdecision[ -](\d+)", path.read_text(encoding="utf-8"), re.I)
        assert {int(number) for number in named} <= set(numbers), path


def test_the_reference_is_made_of_the_schemas_of_today() -> None:
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference(), (
        "run: python -m autocompress.specs.reference > docs/reference.md"
    )


def test_the_reference_leaves_no_kind_of_file_out() -> None:
    with pytest.raises(AutocompressError, match=f"choose one of: {', '.join(sorted(SCHEMA_KINDS))}$"):
        json_schema("???")


def test_blocks_are_found_as_the_docs_say() -> None:
    text = (
        "<!-- file: a.py -->\n```python\nx = 1\n```\n\n<!-- exit: 2 -->\n\n```sh\nfalse\n```\n"
        "<!-- not run: needs a board -->\n```console\n$ one \\\n  two\nout\n$ three\n```\n```yaml\na: 1\n```\n"
    )
    blocks = blocks_of(text, "p.md")
    assert [block.language for block in blocks] == ["python", "sh", "console", "yaml"]
    assert [block.marks for block in blocks] == [{"file": "a.py"}, {"exit": "2"}, {"not run": "needs a board"}, {}]
    assert [block.runs for block in blocks] == [False, True, False, False]
    assert blocks[2].script == "one   two\nthree"
    assert [block.line for block in blocks] == [2, 8, 12, 18]
