"""How soon the command line answers, and what it imports: `--help`, `device list`, a search on a `.tflite`.

Wall times of the console script beside a Python that does nothing, in turn. Then what each command has
imported at its end, and which of the heavy packages any process of a search on a `.tflite` ever looked for:
an import hook in every Python started by it, agents too, writes down their names.
Under a minute: `python -m benchmarks.system.startup`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.goals import Goal, judge, print_run, print_table

GOAL_S = 0.4
COMMANDS = {"--help": ["--help"], "device list": ["device", "list"]}
NOTHING = "python -c pass"
HEAVY = (
    "tensorflow",
    "tf_keras",
    "keras",
    "tensorflow_model_optimization",
    "optuna",
    "sqlalchemy",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "tflite_runtime",
    "scipy",
    "sklearn",
    "numpy",
    "pydantic",
    "yaml",
    "rich",
    "typer",
)
TENSORFLOW = ("tensorflow", "tf_keras", "keras", "tensorflow_model_optimization")
UNWANTED = (*TENSORFLOW, "optuna")

# Runs the command in this process, then prints the modules it has imported.
LISTING = """
import io, json, contextlib, sys
from autocompress.cli import app
with contextlib.redirect_stdout(io.StringIO()):
    try:
        app({arguments!r})
    except SystemExit as end:
        assert not end.code, end.code
print(json.dumps(sorted(sys.modules)))
"""
# Put first on every Python's path as sitecustomize.py: writes down each top-level import that reaches the finders.
HOOK = """
import os, sys

class Recorder:
    def find_spec(self, name, path=None, target=None):
        if "." not in name:
            with open({log!r}, "a") as log:
                log.write(f"{{os.getpid()}} {{name}}\\n")
        return None

sys.meta_path.insert(0, Recorder())
"""


def wall_times(repeats: int) -> dict[str, list[float]]:
    """Seconds of each command, `repeats` times in turn."""
    script = str(Path(sys.executable).with_name("autocompress"))
    commands = {NOTHING: [sys.executable, "-c", "pass"]}
    commands |= {name: [script, *arguments] for name, arguments in COMMANDS.items()}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    return times


def imported(arguments: Sequence[str]) -> list[str]:
    """All modules that a command has imported at its end."""
    code = LISTING.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return modules


def looked_for(device: str, trials: int, folder: Path) -> tuple[set[str], int]:
    """The top-level modules that any Python process of a search on a `.tflite` looked for, and how many processes
    wrote some down."""
    model, data = write_task(folder)
    log, hooks = folder / f"{device}.log", folder / f"hooks-{device}"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK.format(log=str(log)))
    command = [sys.executable, "-m", "autocompress.cli", "search", "--device", device, "--model", str(model)]
    command += ["--data", str(data), "--metric", "accuracy", "--trials", str(trials), "--space", "quick"]
    command += ["--runs", str(folder / "runs"), "--json"]
    path = os.pathsep.join(filter(None, (str(hooks), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    lines = [line.split() for line in log.read_text().splitlines()]
    return {name for _, name in lines}, len({pid for pid, _ in lines})


def write_task(folder: Path) -> tuple[Path, Path]:
    """The network and the data of `digits` as a user would bring them."""
    from autocompress.tasks import load_task

    task = load_task("digits")
    model, data = folder / "digits.tflite", folder / "digits.npz"
    model.write_bytes(task.original)
    parts = {"calibration": task.x_calibration, "validation": task.x_validation, "test": task.x_test}
    arrays = {f"x_{part}": next(iter(values.values())) for part, values in parts.items()}
    assert task.y_validation is not None
    assert task.y_test is not None
    np.savez(data, y_validation=task.y_validation, y_test=task.y_test, **arrays)
    return model, data


def print_times(times: Mapping[str, Sequence[float]]) -> None:
    """Medians, and how much longer than a Python that does nothing."""
    nothing = float(np.median(times[NOTHING]))
    rows = [
        [
            name,
            f"{np.median(each) / nothing:.1f}",
            f"{np.median(each):.3f}",
            f"{min(each):.3f}-{max(each):.3f}",
        ]
        for name, each in times.items()
    ]
    print_table("Wall time", ("command", "of python -c pass", "median s", "range"), rows)


def print_imports(modules: Mapping[str, Sequence[str]], searches: Mapping[str, set[str]]) -> None:
    """Which of the heavy packages each command imported, or a search's processes looked for."""
    rows = []
    for name, found in modules.items():
        tops = {module.partition(".")[0] for module in found}
        rows.append([name, str(len(found)), ", ".join(p for p in HEAVY if p in tops) or "none"])
    for name, names in searches.items():
        rows.append([name, f"{len(names)} tops", ", ".join(p for p in HEAVY if p in names) or "none"])
    print_table("Imports", ("command", "modules", "heavy packages among them"), rows)


def goals_of(
    times: Mapping[str, Sequence[float]],
    modules: Mapping[str, Sequence[str]],
    searches: Mapping[str, set[str]],
) -> list[Goal]:
    """Times, and what must not be imported."""
    goals = []
    for name in COMMANDS:
        median = float(np.median(times[name]))
        goals.append(Goal(wanted=f"{name} <= {GOAL_S} s", got=f"{median:.3f} s", met=median <= GOAL_S))
    for name, found in modules.items():
        bad = sorted({module.partition(".")[0] for module in found} & set(UNWANTED))
        goals.append(Goal(wanted=f"{name}: no TensorFlow, no Optuna", got=", ".join(bad) or "neither", met=not bad))
    for name, names in searches.items():
        bad = sorted(names & set(TENSORFLOW))
        goals.append(Goal(wanted=f"{name}: no TensorFlow", got=", ".join(bad) or "not looked for", met=not bad))
    return goals


def main() -> int:
    """Time and list; exit code 1 where something is too slow or imported."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--repeats", type=int, default=9, help="runs of each command (default 9)")
    parser.add_argument("--trials", type=int, default=6, help="trials of the searches (default 6)")
    asked = parser.parse_args()
    print_run("Start of the command line", ("typer", "rich", "pydantic"))
    times = wall_times(asked.repeats)
    modules = {name: imported(arguments) for name, arguments in COMMANDS.items()}
    searches, processes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for device in ("rpi4", "local"):
            name = f"search --model X.tflite --device {device}"
            searches[name], processes[device] = looked_for(device, asked.trials, Path(folder))
    print(f"  processes with the import hook: {', '.join(f'{n} ({device})' for device, n in processes.items())}")
    print_times(times)
    print_imports(modules, searches)
    return judge(goals_of(times, modules, searches))


if __name__ == "__main__":
    sys.exit(main())
