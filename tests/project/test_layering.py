"""The floors and fences of docs/design.md: who may import whom, and who may import the heavy packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.project import ROOT

PACKAGE = ROOT / "autocompress"
# From the ground up. A module imports from floors below its own, or from its own room.
FLOORS = (
    {"pareto", "stats", "errors", "files", "interrupts", "latency.host.agent"},
    {"records"},
    {"metrics"},
    {"specs"},
    {"network"},
    {"tasks", "compression", "latency", "report"},
    {"evaluate", "export", "finetune"},
    {"devices", "search"},
    {"session"},
    {"sweep", "api"},
    {"cli"},
)
KERAS = {"network.tflite.conversion", "network.keras", "finetune", "tasks"}
FENCES = {
    "tensorflow": KERAS,
    "tf_keras": KERAS,
    "keras": KERAS,
    "tensorflow_model_optimization": {"finetune"},
    "optuna": {"search"},
    "rich": {"cli", "report.terminal", "report.live_progress", "report.measurement", "report.units"},
    "pydantic": {"specs"},
    "yaml": {"specs", "cli"},
}
DRAWERS = {"utils", "common", "helpers", "helper", "base", "misc", "manager"}
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


def test_imports_point_down() -> None:
    known = {name_of(path) for path in MODULES}
    assert not [line for path in MODULES if name_of(path) for line in upward(path, known)]


def upward(path: Path, known: set[str]) -> Iterator[str]:
    """What a module imports from its own floor or above, and from other rooms."""
    name = name_of(path)
    if name == "__init__":  # the package: it gives out the Python interface when it is asked for
        return
    if floor_of(name) < 0:
        yield f"{name} stands on no floor"
    for imported in imports_of(path):
        target = imported.removeprefix("autocompress.")
        if not imported.startswith("autocompress.") or target not in known or room_of(target) == room_of(name):
            continue
        if floor_of(target) >= floor_of(name):
            yield f"{name} imports {target}, of its own floor or above"


def test_heavy_packages_stay_behind_their_fences() -> None:
    assert not [
        f"{name_of(path)} imports {package}"
        for path in MODULES
        for package in {imported.split(".")[0] for imported in imports_of(path)} & set(FENCES)
        if not inside(name_of(path), FENCES[package])
    ]


def test_modules_are_no_drawers() -> None:
    assert not [path for path in MODULES if path.stem in DRAWERS]
    # The agent goes over the pipe as one file that needs nothing of ours.
    most = {path: 720 if path.name == "agent.py" else 400 for path in MODULES}
    assert not [f"{path}: split it" for path in MODULES if len(path.read_text().splitlines()) > most[path]]


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
