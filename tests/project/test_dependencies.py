"""What pyproject.toml asks for: every package that is imported, and no later version of one whose private parts are."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.builders.project import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Used without an underscore, but beyond what is documented.
UNDOCUMENTED = {"ai-edge-litert", "ai-edge-quantizer"}
INSTALLED = packages_distributions()


def requirements(*extras: str) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    for line in lines:
        asked = Requirement(line)
        found.setdefault(canonicalize_name(asked.name), []).append(asked)
    return found


def imported(folder: Path) -> Iterator[tuple[str, str]]:
    """Modules of other packages that are imported, with the file."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                if name.split(".")[0] not in {*sys.stdlib_module_names, "autocompress"}:
                    yield name, str(path.relative_to(ROOT))


def distributions(module: str) -> set[str]:
    """The packages that a module may be of; its own name where that package is not installed here."""
    top = module.split(".")[0]
    return {canonicalize_name(name) for name in INSTALLED.get(top, [top])}


IMPORTED = list(imported(ROOT / "autocompress"))


def test_what_is_imported_is_asked_for() -> None:
    # pydantic gives its errors and its core's types through its core's package, of the very version that it needs
    asked = {*requirements("ethos-u", "gp", "mcu", "pandas"), "pydantic-core"}
    missing = {f"{path}: {name}" for name, path in IMPORTED if not distributions(name) & asked}
    assert not missing


def test_what_is_asked_for_is_imported() -> None:
    used = {each for name, _ in IMPORTED for each in distributions(name)}
    assert set(requirements()) - used == set()


def is_bounded(line: Requirement) -> bool:
    return any(one.operator in ("<", "==") for one in line.specifier)


def test_what_is_used_in_private_is_bounded() -> None:
    private = {name for name, _ in IMPORTED if any(part.startswith("_") for part in name.split("."))}
    packages = {each for name in private for each in distributions(name)} | UNDOCUMENTED
    assert "optuna" in packages
    asked = requirements()
    unbounded = {name for name in packages if not all(map(is_bounded, asked[name]))}
    assert not unbounded


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_tflite_runtime_is_left_out_where_it_has_no_wheel(version: str) -> None:
    environment = {"python_version": version, "sys_platform": "linux"}
    markers = [line.marker for line in requirements()["tflite-runtime"]]
    wanted = any(marker is None or marker.evaluate(environment) for marker in markers)
    assert wanted == (version in ("3.10", "3.11"))
