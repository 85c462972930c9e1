"""How one trial and one report walk through the package: rooms entered, returns to a room, fronts computed.

A reader who follows a trial opens each module when it is first called. The walk is that order of modules; it enters a
room where the next module lies in another one, and returns where that room was entered before. The trial is the last
of a short search (from Optuna's `ask` to its `tell`), when tables and baseline are there; the report is that of this
study. `python -m benchmarks.system.call_trace [COMMIT]`: this tree, beside another commit where one is named."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import Goal, judge, print_run, print_table
from benchmarks.system.same_studies import COMMON, ROOT, checked_out, run

MOST_ROOMS, MOST_RETURNS = 9, 10
SEARCH = ("search", *COMMON, "--task", "digits", "--space", "quick", "--trials", "8", "--study", "walk")
# Runs a command in this process and prints each function of the package as it is first called, a walk per line:
# all of the command, and what lies between `ask` and the end of `tell` for each trial.
TRACE = """
import contextlib, io, json, sys, threading
from pathlib import Path
import autocompress
from autocompress.cli import app

package = str(Path(autocompress.__file__).parent) + "/"
walks, known = [{}], {}

def named(code):
    if code not in known:
        file = code.co_filename
        if file.startswith(package) and not code.co_name.startswith("<"):
            known[code] = file[len(package):-3] + ":" + code.co_qualname
        elif file.endswith("/optuna/study/study.py") and code.co_name in ("ask", "tell"):
            known[code] = code.co_name
        else:
            known[code] = None
    return known[code]

def profile(frame, event, argument):
    name = named(frame.f_code) if event in ("call", "return") else None
    if name == "ask" and event == "call":
        walks.append({})
    elif name == "tell" and event == "return":
        walks.append({})
    elif name not in (None, "ask", "tell") and event == "call":
        walks[-1][name] = walks[-1].get(name, 0) + 1

threading.setprofile(profile)
sys.setprofile(profile)
with contextlib.redirect_stdout(io.StringIO()):
    try:
        app(json.loads(sys.argv[1]))
    except SystemExit as end:
        assert not end.code, end.code
sys.setprofile(None)
threading.setprofile(None)
print(json.dumps(walks))
"""


def traced(tree: Path, command: Sequence[str], runs: Path) -> list[dict[str, int]]:
    """The walks of one command of the package in `tree`: calls by `module:function`, in the order of the first."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "TF_CPP_MIN_LOG_LEVEL": "3"}
    words = json.dumps([*command, "--runs", str(runs)])
    found: list[dict[str, int]] = json.loads(run([sys.executable, "-c", TRACE, words], environment).splitlines()[-1])
    return found


def modules(walk: dict[str, int]) -> list[str]:
    """The modules of a walk in the order in which they are first called."""
    return list(dict.fromkeys(name.partition(":")[0] for name in walk))


def rooms(walk: dict[str, int]) -> list[str]:
    """The rooms (folders; not the few modules beside them, which every floor stands on) of a walk, one for each time it
    goes over into another."""
    found: list[str] = []
    for module in modules(walk):
        room, folder, _ = module.partition("/")
        if folder and found[-1:] != [room]:
            found.append(room)
    return found


def walked(tree: Path, runs: Path) -> dict[str, Any]:
    """The last trial and the report of one tree."""
    trial = traced(tree, SEARCH, runs)[-2]
    report = {name: times for walk in traced(tree, ("report", "walk"), runs) for name, times in walk.items()}
    fronts = sum(times for name, times in report.items() if name.endswith(":Front.__init__"))
    return {"trial": rooms(trial), "modules": len(modules(trial)), "report": rooms(report), "fronts": fronts}


def row(name: str, walk: dict[str, Any]) -> list[str]:
    """A row of the table."""
    counts = [len(set(walk[way])) for way in ("trial", "report")]
    returns = [len(walk[way]) - len(set(walk[way])) for way in ("trial", "report")]
    return [name, *map(str, (counts[0], returns[0], walk["modules"], counts[1], returns[1], walk["fronts"]))]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", help="another commit, to stand beside this tree")
    asked = parser.parse_args()
    print_run("Module borders crossed by one trial and one report", ["optuna"])
    with tempfile.TemporaryDirectory() as folder:
        ours = walked(ROOT, Path(folder) / "ours")
        rows = [row("this tree", ours)]
        if asked.commit:
            there = Path(folder) / "there"
            with checked_out(asked.commit, there):
                rows.append(row(asked.commit, walked(there, Path(folder) / "theirs")))
    header = ["tree", "rooms of a trial", "returns", "modules", "rooms of a report", "returns", "fronts computed"]
    print_table("Walks", header, rows)
    print("\nThe trial goes " + " > ".join(ours["trial"]))
    print("The report goes " + " > ".join(ours["report"]))
    entered, returned = len(set(ours["trial"])), len(ours["trial"]) - len(set(ours["trial"]))
    return judge(
        [
            Goal(wanted=f"rooms of a trial at most {MOST_ROOMS}", got=str(entered), met=entered <= MOST_ROOMS),
            Goal(wanted=f"returns at most {MOST_RETURNS}", got=str(returned), met=returned <= MOST_RETURNS),
            Goal(wanted="fronts computed for a report: 1", got=str(ours["fronts"]), met=ours["fronts"] == 1),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
