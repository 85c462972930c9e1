"""What a search for an Ethos-U brings against plain int8 and against every uniform choice of bits or clusters.

fashion-mnist on ethos-u85-256, space `npu`, by the compiler's estimate. The search is one of the Python API; uniform
files are built by `ac.compress` and compiled for the same profile. A uniform choice is beaten by a point of the front
that is no slower, no larger on flash and at least as accurate, on validation data; the same on test data, looked at
once. About 8 minutes: `python -m benchmarks.search.npu`, less with `--trials 40`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import autocompress as ac
from autocompress.evaluate.quality import Split
from autocompress.latency.source import latency_on
from autocompress.records.front import Front, evaluated
from autocompress.records.measurement import Measurement
from autocompress.specs import load_device
from autocompress.tasks import LoadedTask, load_task
from benchmarks.goals import Goal, judge, print_run, print_table
from benchmarks.task_splits import test_split, validation_split

CYCLES, FLASH, LOSS = 0.50, 0.40, 0.015  # of int8's, and of the metric on test data
UNIFORM: tuple[dict[str, Any], ...] = (
    *({"bits": bits} for bits in (8, 6, 5, 4, 3)),
    *({"bits": 8, "clusters": clusters} for clusters in (32, 16, 8)),
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A file's figures on the NPU and its metric on both splits."""

    name: str
    measured: Measurement
    validation: float
    test: float

    def beats(self, other: Point, split: str) -> bool:
        """Whether this is no slower, no larger and at least as accurate on a split."""
        figures = [
            (own, its)
            for own, its in (
                (self.measured.latency_ms, other.measured.latency_ms),
                (self.measured.flash_bytes, other.measured.flash_bytes),
            )
            if own is not None and its is not None
        ]
        no_worse = len(figures) == 2 and all(own <= its for own, its in figures)
        return no_worse and bool(getattr(self, split) >= getattr(other, split))


def uniform_points(task: LoadedTask, device: str, splits: tuple[Split, Split]) -> list[Point]:
    """Every uniform choice, built and compiled."""
    found = []
    with latency_on(load_device(device)) as latency:
        compiled = latency.bind(task.original)
        for asked in UNIFORM:
            made = ac.compress(task.network, task.x_calibration, activations="int8", **asked)
            values = [split.quality(made.model).value for split in splits]
            name = ", ".join(f"{value} {key}" for key, value in asked.items())
            found.append(Point(name=name, measured=compiled(made.model, 1), validation=values[0], test=values[1]))
    return found


def searched_points(task: LoadedTask, device: str, trials: int, runs: Path, split: Split) -> list[Point]:
    """The front of a search."""
    with ac.open_study(runs / "npu", task, device, space="npu") as study:
        for trial in study.search(trials=trials):
            print(f"  trial {trial.number}", file=sys.stderr)
        record = study.record
    found = []
    for member in Front(record).trials:
        evaluation = evaluated(member)
        test = split.quality((runs / evaluation.artifact).read_bytes()).value
        found.append(
            Point(
                name=f"trial {member.number}",
                measured=evaluation.measurement,
                validation=evaluation.accuracy,
                test=test,
            )
        )
    return found


def row(point: Point, int8: Point) -> list[str]:
    """A row of the table: figures, and their shares of int8's."""
    latency, flash = point.measured.known_latency_ms, point.measured.flash_bytes
    whole, all_flash = int8.measured.known_latency_ms, int8.measured.flash_bytes
    assert flash is not None, "flash is known of what was compiled"
    assert all_flash is not None, "flash is known of what was compiled"
    return [
        point.name,
        f"{latency * 1e3:.1f}",
        f"{latency / whole:.3f}",
        f"{flash:,}",
        f"{flash / all_flash:.3f}",
        f"{point.validation:.4f}",
        f"{point.test:.4f}",
    ]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--device", default="ethos-u85-256")
    asked = parser.parse_args()
    print_run(f"fashion-mnist on {asked.device}: {asked.trials} trials of space npu", ["ethos-u-vela", "optuna"])
    task = load_task("fashion-mnist")
    validation, test = validation_split(task), test_split(task)
    uniform = uniform_points(task, asked.device, (validation, test))
    with tempfile.TemporaryDirectory() as folder:
        front = searched_points(task, asked.device, asked.trials, Path(folder), test)
    int8 = uniform[0]
    header = ["file", "us", "of int8", "flash", "of int8", "validation", "test"]
    print_table("Uniform", header, [row(point, int8) for point in uniform])
    print_table("Front", header, [row(point, int8) for point in front])
    fitting = [point for point in front if point.test >= int8.test - LOSS]
    goals = []
    for what, column, most in (("time", 2, CYCLES), ("flash", 4, FLASH)):
        got = min((row(point, int8)[column] for point in fitting), default="1")
        goals.append(Goal(wanted=f"{what} at most {most} of int8's", got=got, met=float(got) <= most))
    for split, share in (("validation", 1.0), ("test", 0.9)):
        beaten = sum(any(point.beats(each, split) for point in front) for each in uniform)
        goals.append(
            Goal(
                wanted=f"uniform choices beaten on {split} data: {share:.0%}",
                got=f"{beaten} of {len(uniform)}",
                met=beaten >= share * len(uniform),
            )
        )
    return judge(goals)


if __name__ == "__main__":
    sys.exit(main())
