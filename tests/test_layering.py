"""The floors and fences of docs/design.md: who may import whom, and who may import the heavy packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "autocompress"
# From the ground up. A module imports from floors below its own, or from its own room.
FLOORS = (
    {"pareto", "stats", "errors", "files", "interrupts", "measure.agent"},
    {"metrics", "records"},
    {"specs"},
    {"network"},
    {"tasks", "compress", "measure", "report"},
    {"search", "finetune"},
    {"sweep"},
    {"cli"},
)
KERAS = {"network.convert", "network.keras", "network.keras_layers", "network.keras_operators", "finetune", "tasks"}
FENCES = {
    "tensorflow": KERAS,
    "tf_keras": KERAS,
    "keras": KERAS,
    "tensorflow_model_optimization": {"finetune"},
    "optuna": {"search"},
    "rich": {"cli", "report.terminal", "report.measurement", "report.units"},
    "pydantic": {"specs"},
    "yaml": {"specs", "cli"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def inside(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def floor_of(name: str) -> int:
    fitting = [level for level, rooms in enumerate(FLOORS) if inside(name, rooms)]
    return min(fitting) if fitting else -1


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def room_of(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    name = name_of(path)
    if not name or name == "__init__":
        return
    assert floor_of(name) >= 0, f"{name} stands on no floor"
    known = {name_of(module) for module in MODULES}
    for imported in imports_of(path):
        target = imported.removeprefix("autocompress.")
        if not imported.startswith("autocompress.") or target not in known or room_of(target) == room_of(name):
            continue
        assert floor_of(target) < floor_of(name), f"{name} imports {target} of its own floor or above"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_stay_behind_their_fences(path: Path) -> None:
    name = name_of(path)
    for imported in imports_of(path):
        package = imported.split(".")[0]
        if package in FENCES:
            assert inside(name, FENCES[package]), f"{name} imports {package}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_no_drawers(path: Path) -> None:
    assert path.stem not in {"utils", "common", "helpers", "helper", "base", "misc", "manager"}
    # The agent goes over the pipe as one file that needs nothing of ours.
    most = 700 if path.name == "agent.py" else 400
    assert len(path.read_text().splitlines()) <= most, "split it"


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"tensorflow", "optuna", "numpy", "pydantic", "ai_edge_litert", "sklearn"}),
        (["device", "list"], {"tensorflow", "optuna", "ai_edge_litert", "sklearn"}),
        (["report", "nothing-here"], {"tensorflow"}),
    ],
    ids=["help", "device list", "report"],
)
def test_commands_load_only_what_they_need(arguments: list[str], absent: set[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom autocompress.cli import app\n"
        f"try:\n    app({arguments!r}, prog_name='autocompress')\nexcept SystemExit:\n    pass\n"
        f"loaded = {absent!r} & set(sys.modules)\nassert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
