"""Time and memory of the stages before and in a search, over networks of 20,000 to 12 million weights: this tree
against another commit.

`python -m benchmarks.system.networks COMMIT [--networks NAME ...] [--threads N]`: opening a study, its layer tables,
and one candidate (mixed choices on float and on int8 activations), in a process of its own for each network and tree,
in turn. Processor seconds are of the process and its children, memory is the largest proportional set size of all of
them together, looked at ten times a second; stages that `--limit` leaves no time for are missing. Networks have random
weights (`benchmarks.tasks.large_networks`) and are kept in `--folder`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.goals import Goal, judge, print_run, print_table
from benchmarks.tasks.large_networks import NETWORKS, files

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("opening", "tables", "candidate", "int8 candidate")
# What the stages shall take of the other commit's processor time, and the most memory (GB) that they may take.
WANTED: dict[str, dict[str, float]] = {
    "small": {"tables": 1.05, "candidate": 1.05},
    "mobilenet-v2-224": {"tables": 1 / 5, "candidate": 1 / 2},
    "resnet-18-224": {"tables": 1 / 6, "candidate": 1 / 2},
    "vit-tiny-224": {"opening": 1 / 10},
    "efficientnet-b0": {"opening": 1 / 10},
}
MOST_GB = {"mobilenet-v2-224": 1.2, "resnet-18-224": 2.0}

# Run by the interpreter with either tree on its path: stages of one search, a line of JSON each.
STAGE = """
import json, os, resource, sys, threading, time
from pathlib import Path
model, data, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])

def family():
    found, todo = [], [os.getpid()]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:  # it may end meanwhile
            for thread in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, open(f"/proc/{pid}/task/{thread}/children").read().split())
        except OSError:
            pass
    return found

def cpu():
    ticks = 0
    for pid in family():
        try:
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")

peak = 0
def watch():
    global peak
    while True:
        now = 0
        for pid in family():
            try:
                now += next(int(l.split()[1]) for l in open(f"/proc/{pid}/smaps_rollup") if l.startswith("Pss:"))
            except (OSError, StopIteration):
                pass
        peak = max(peak, now)
        time.sleep(0.1)

from autocompress import api
from autocompress.latency.source import latency_on
from autocompress.records.configuration import Configuration
from autocompress.search.specification import Resources, Specification
from autocompress.session import open_search
from autocompress.specs import load_device, load_space
from autocompress.tasks import load_task
threading.Thread(target=watch, daemon=True).start()

def stage(name, work):
    global peak
    peak, before, start = 0, cpu(), time.perf_counter()
    found = work()
    print(json.dumps([name, cpu() - before, time.perf_counter() - start, peak / 2**20]), flush=True)
    return found

def mixed(activations):
    layers = {}
    for n, (name, row) in enumerate(search.choices.items()):
        fit = [c for c in row if c.bits in (4, 8) and c.clusters in (None, 16) and c.sparsity in (0, .5)]
        layers[name] = fit[n * 7 % len(fit)] if fit else row[0]
    return Configuration(layers=layers, activations=activations).normalised()

profile = load_device("rpi4")
task = load_task(None, model, data, "accuracy")
with latency_on(profile) as latency:
    space, source = load_space("default"), latency.source
    specification = Specification(task=task, profile=profile, space=space, latency_source=source)
    opened = open_search(specification, Resources(runs=Path("runs"), name="s", threads=threads), latency)
    search = stage("opening", opened.__enter__)
    stage("tables", lambda: search.evaluator.tables(search.choices))
    stage("candidate", lambda: search.evaluator.evaluate(mixed("float32")))
    stage("int8 candidate", lambda: search.evaluator.evaluate(mixed("int8")))
    os._exit(0)
"""
Figures = dict[str, tuple[float, float, float]]  # by stage: processor seconds, wall seconds, peak GB


def stages(tree: Path, model: Path, data: Path, threads: int, limit_s: float) -> Figures:
    """The stages that the package of `tree` got through in `limit_s`; what it says where it fails goes to stderr."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", STAGE, str(model), str(data), str(threads)]
        child = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            said, _ = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            said, _ = child.communicate()
    rows = [json.loads(line) for line in said.splitlines()]
    return {name: (cpu, wall, peak) for name, cpu, wall, peak in rows}


def goals_of(name: str, ours: Figures, theirs: Figures) -> list[Goal]:
    """What is wanted of this network, of the stages that both got through."""
    goals = []
    for stage, share in WANTED.get(name, {}).items():
        if stage in ours and stage in theirs:
            got = ours[stage][0] / theirs[stage][0]
            goals.append(Goal(wanted=f"{name}: {stage} <= {share:.2f} x", got=f"{got:.2f} x", met=got <= share))
    if name in MOST_GB and ours:
        peak = max(figures[2] for figures in ours.values())
        goals.append(
            Goal(wanted=f"{name}: peak <= {MOST_GB[name]} GB", got=f"{peak:.2f} GB", met=peak <= MOST_GB[name])
        )
    return goals


def row(name: str, stage: str, ours: Figures, theirs: Figures) -> list[str]:
    """One line of the table."""
    cells = [name, stage]
    for at, form in ((0, "{:.1f}"), (1, "{:.1f}"), (2, "{:.2f}")):
        cells += [form.format(each[stage][at]) if stage in each else "-" for each in (ours, theirs)]
    both = stage in ours and stage in theirs
    return [*cells, f"{ours[stage][0] / max(theirs[stage][0], 0.01):.2f}" if both else "-"]


def compared(names: Sequence[str], there: Path | None, folder: Path, threads: int, limit_s: float) -> list[Goal]:
    """Print the table of all networks; the goals with what came out."""
    rows, goals = [], []
    for name in names:
        model, data = files(folder, name)
        ours = stages(ROOT, model, data, threads, limit_s)
        theirs = {} if there is None else stages(there, model, data, threads, limit_s)
        rows += [row(name, stage, ours, theirs) for stage in STAGES]
        goals += goals_of(name, ours, theirs)
    header = ["network", "stage", "CPU s", "there", "wall s", "there", "GB", "there", "of theirs"]
    print_table("Stages", header, rows)
    return goals


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", help="what this tree is compared with (default: nothing)")
    parser.add_argument("--networks", nargs="+", choices=[*NETWORKS], default=[*NETWORKS])
    parser.add_argument("--folder", type=Path, help="where the networks are kept (default: nowhere)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for all stages of a network")
    asked = parser.parse_args()
    print_run(f"this tree against {asked.commit or 'nothing'}", ["optuna", "ai-edge-quantizer"])
    with tempfile.TemporaryDirectory() as temporary:
        kept, there = asked.folder or Path(temporary), Path(temporary) / "there"
        if asked.commit is None:
            return judge(compared(asked.networks, None, kept, asked.threads, asked.limit))
        subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(there), asked.commit], check=True)
        try:
            return judge(compared(asked.networks, there, kept, asked.threads, asked.limit))
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(there)], check=True)


if __name__ == "__main__":
    sys.exit(main())
