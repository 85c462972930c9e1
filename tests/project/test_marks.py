"""The tables of `make quick` name what is there, and `make quick` leaves out what they mark."""

from __future__ import annotations

import ast
import re

import pytest

from tests.builders.project import ROOT
from tests.marks import FILES, FIXTURES, LONG, file_of, is_left_out, marks_of

TESTS = ROOT / "tests"


def fixtures() -> set[str]:
    found = set()
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(one) for one in node.decorator_list):
                found.add(node.name)
    return found


def test_every_file_and_fixture_is_there() -> None:
    assert {name for names in FILES.values() for name in names} | {*LONG} <= {
        file_of(path) for path in TESTS.rglob("test_*.py")
    }
    assert {name for names in FIXTURES.values() for name in names} <= fixtures()


def test_the_marks_are_registered_and_left_out(request: pytest.FixtureRequest) -> None:
    registered = {line.split(":")[0] for line in request.config.getini("markers")}
    assert {*FILES, *FIXTURES} <= registered
    chosen = re.search(r'-m "(.*)"', (ROOT / "Makefile").read_text())
    assert chosen is not None
    assert set(chosen[1].split(" and ")) == {f"not {mark}" for mark in {*FILES, *FIXTURES}}


def test_a_test_is_marked_by_file_and_by_fixture() -> None:
    assert marks_of("latency/host/test_ssh.py", ["tmp_path"]) == ["service"]
    assert marks_of("sweep/test_sweep.py", ["board", "tmp_path"]) == ["service", "slow"]
    assert marks_of("test_stats.py", ["tmp_path"]) == []


@pytest.mark.parametrize(
    ("file", "expression", "wanted"),
    [
        ("latency/host/test_ssh.py", "not service", True),
        ("latency/host/test_ssh.py", "not slow and not service", True),
        ("test_stats.py", "not slow and not service", False),
        ("latency/host/test_ssh.py", "not slow", False),
        ("latency/host/test_ssh.py", "service", False),
        ("latency/host/test_ssh.py", "", False),
        ("latency/host/test_ssh.py", "not service or slow", False),
        ("latency/host/test_ssh.py", "slow and (not service or training)", False),
    ],
)
def test_a_file_is_not_imported_where_all_of_it_is_left_out(file: str, expression: str, wanted: bool) -> None:
    assert is_left_out(file, expression) == wanted


def test_collected_tests_carry_their_marks(request: pytest.FixtureRequest) -> None:
    """Of all that this run collected."""
    for item in request.session.items:
        carried = {mark.name for mark in item.iter_markers()}
        assert carried >= set(marks_of(file_of(item.path), getattr(item, "fixturenames", ()))), item.nodeid
