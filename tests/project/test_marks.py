"""The tables of `make quick` name what is there, and `make quick` leaves out what they mark."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from marks import FILES, FIXTURES, is_left_out, marks_of

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def fixtures() -> set[str]:
    found = set()
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(one) for one in node.decorator_list):
                found.add(node.name)
    return found


def test_every_file_and_fixture_is_there() -> None:
    assert {name for names in FILES.values() for name in names} <= {
        path.stem.removeprefix("test_") for path in TESTS.rglob("test_*.py")
    }
    assert {name for names in FIXTURES.values() for name in names} <= fixtures()


def test_the_marks_are_registered_and_left_out(request: pytest.FixtureRequest) -> None:
    registered = {line.split(":")[0] for line in request.config.getini("markers")}
    assert {*FILES, *FIXTURES} <= registered
    chosen = re.search(r'-m "(.*)"', (ROOT / "Makefile").read_text())
    assert chosen is not None
    assert set(chosen[1].split(" and ")) == {f"not {mark}" for mark in {*FILES, *FIXTURES}}


def test_a_test_is_marked_by_file_and_by_fixture() -> None:
    assert marks_of("test_ssh", ["tmp_path"]) == ["service"]
    assert marks_of("test_sweep", ["board", "tmp_path"]) == ["service", "slow"]
    assert marks_of("test_stats", ["tmp_path"]) == []


@pytest.mark.parametrize(
    ("file", "expression", "wanted"),
    [
        ("test_ssh", "not service", True),
        ("test_ssh", "not slow and not service", True),
        ("test_stats", "not slow and not service", False),
        ("test_ssh", "not slow", False),
        ("test_ssh", "service", False),
        ("test_ssh", "", False),
        ("test_ssh", "not service or slow", False),
        ("test_ssh", "slow and (not service or training)", False),
    ],
)
def test_a_file_is_not_imported_where_all_of_it_is_left_out(file: str, expression: str, wanted: bool) -> None:
    assert is_left_out(file, expression) == wanted


def test_collected_tests_carry_their_marks(request: pytest.FixtureRequest) -> None:
    """Of all that this run collected."""
    for item in request.session.items:
        carried = {mark.name for mark in item.iter_markers()}
        assert carried >= set(marks_of(item.path.stem, getattr(item, "fixturenames", ()))), item.nodeid
