"""Whether two versions of autocompress make the same studies, bit for bit, and which takes less processor time.

`python -m benchmarks.system.same_studies COMMIT`: that commit (checked out into a temporary folder) against this tree,
each searching three studies with the same seeds: `digits`, `fashion-mnist` with fewer channels, and one that is cut and
goes on. Compared are the parameters of every trial, its values, and the SHA-256 of its file; latencies are modelled.
The two take turns, so that a slow phase of the machine hits both. About 10 minutes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.goals import Goal, judge, print_run, print_table

ROOT = Path(__file__).resolve().parents[2]
MOST_SLOWER = 1.03  # processor time of this tree over the other's
COMMON = ("--device", "rpi4", "--seed", "3")
STUDIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "digits": (("--task", "digits", "--trials", "24"),),
    "channels": (("--task", "fashion-mnist", "--space", "channels", "--trials", "12"),),
    "resumed": (("--task", "digits", "--trials", "8"), ("--task", "digits", "--trials", "16")),
}
# Run by the interpreter of both: what a trial is, by the names that every version stores it under.
READ = """
import json, sys, optuna
study = optuna.load_study(study_name=sys.argv[1], storage=sys.argv[2])
print(json.dumps([[t.number, t.state.name, t.params, t.values, (t.user_attrs.get("evaluation") or {}).get("sha256")]
                  for t in study.get_trials(deepcopy=False)]))
"""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A study as one version made it: its trials, and the processor seconds that took."""

    trials: list[Any]
    cpu_s: float


def search(tree: Path, name: str, runs: Path) -> Made:
    """Run the commands of a study with the package of `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "TF_CPP_MIN_LOG_LEVEL": "3"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for words in STUDIES[name]:
        command = [sys.executable, "-m", "autocompress.cli", "search", *COMMON, *words, "--study", name]
        run([*command, "--runs", str(runs)], environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    url = f"sqlite:///{runs}/{name}/study.db"
    trials = json.loads(run([sys.executable, "-c", READ, name, url], environment))
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Made(trials=trials, cpu_s=cpu_s)


@contextlib.contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[None]:
    """A commit of this repository in a folder, meanwhile."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def run(command: Sequence[str], environment: dict[str, str]) -> str:
    """Standard output; what a command that fails wrote is shown."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def first_difference(ours: list[Any], theirs: list[Any]) -> str:
    """Where two studies part, in words."""
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            return f"trial {mine[0]}: {mine[1:]} here, {other[1:]} there"
    return "" if len(ours) == len(theirs) else f"{len(ours)} trials here, {len(theirs)} there"


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what this tree is compared with")
    parser.add_argument("--studies", nargs="+", choices=[*STUDIES], default=[*STUDIES])
    asked = parser.parse_args()
    print_run(f"this tree against {asked.commit}", ["optuna", "ai-edge-quantizer"])
    rows, goals = [], []
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "there"
        with checked_out(asked.commit, there):
            for name in asked.studies:
                ours = search(ROOT, name, Path(folder) / "ours")
                theirs = search(there, name, Path(folder) / "theirs")
                differs = first_difference(ours.trials, theirs.trials)
                ratio = ours.cpu_s / theirs.cpu_s
                rows.append([name, str(len(ours.trials)), differs or "the same", f"{ours.cpu_s:.1f}", f"{ratio:.3f}"])
                goals.append(Goal(wanted=f"{name}: the same study", got=differs or "the same", met=not differs))
                wanted = f"{name}: processor time at most {MOST_SLOWER} x"
                goals.append(Goal(wanted=wanted, got=f"{ratio:.3f} x", met=ratio <= MOST_SLOWER))
    print_table("Studies", ["study", "trials", "difference", "CPU s", "of theirs"], rows)
    return judge(goals)


if __name__ == "__main__":
    sys.exit(main())
