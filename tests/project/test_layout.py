"""Tests lie as the package does, and share what they need by way of tests/builders."""

from __future__ import annotations

import ast

from tests.builders.project import ROOT

TESTS = ROOT / "tests"
# Beside the rooms of the package: what makes cases, documents, the project's own rules, whole commands across rooms.
OWN = {"builders", "docs", "project", "system"}


def test_every_folder_is_a_room_of_the_package() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("*.py")}
    assert not [str(each) for each in folders if str(each) not in OWN and not (ROOT / "autocompress" / each).is_dir()]


def test_no_test_file_is_imported() -> None:
    assert not [
        f"{path.relative_to(TESTS)} imports {module}"
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in imported(node)
        if module.rpartition(".")[2].startswith("test_")
    ]


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return [module, *(f"{module}.{alias.name}" for alias in node.names if module.split(".")[0] == "tests")]
    return []
