"""Nightly verdicts on nights drawn from really measured samples: false alarms of an unchanged sweep, and how often a
true slow-down of 5 % and a true loss of one point are found.

A night is two cells of six files. Each file's pairs of processes (benchmarks/sweep/pairs.json, from gather_pairs.py:
the ResNet-8's int8 file and its float network in turn) are a stretch of what was measured, in its order, from a random
place: so slow phases of the machine stay together and hit one file, or one night, as they did. The metric of an
unchanged sweep is that of the same file, so equal; the loss of a point is drawn from the samples that a network one
point worse really gains and loses. All else is the code of `autocompress sweep`.

python -m benchmarks.sweep.verdicts [NIGHTS]"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autocompress import pareto, stats
from autocompress.specs import VerdictRules
from autocompress.sweep import compare, verdict
from autocompress.sweep.cell import CANARY_PROCESSES
from autocompress.sweep.compare import Pairs, Race
from autocompress.sweep.night import CellNight, Check, FileFigures, Night, packed
from benchmarks import goals as out

CELLS, FILES = 2, 6
SAMPLES = 10_000
RULES = VerdictRules()
SLOWER, WORSE_POINTS = 1.05, 0.01
HYPERVOLUME_POINTS = 8
Array = np.ndarray[Any, Any]


class Measured:
    """The samples that nights are drawn from."""

    def __init__(self, path: Path, seed: int) -> None:
        stored = json.loads(path.read_text())
        self.about = f"{len(stored['pairs'])} pairs of {stored['task']} on {stored['machine']}, {stored['runtime']}"
        self._int8, self._float, self._memory = (
            np.array([row[key] for row in stored["pairs"]]) for key in ("int8_ms", "float_ms", "memory_bytes")
        )
        self.samples = stored["samples"]
        self.rng = np.random.default_rng(seed)

    def _stretch(self, values: Array, start: int, count: int) -> Array:
        stretch: Array = values[(start + np.arange(count)) % len(values)]
        return stretch

    def pairs(self, count: int, slower: float = 1.0) -> Pairs:
        """A stretch of pairs from a random place."""
        start = int(self.rng.integers(len(self._int8)))
        ratios = np.log(self._stretch(self._int8, start, count) / self._stretch(self._float, start, count) * slower)
        memory = self._stretch(self._memory, start, count)
        return Pairs(log_ratios=tuple(ratios.tolist()), memory_bytes=tuple(memory.tolist()))

    def canary(self) -> tuple[float, ...]:
        """Processes of the float network, measured again right after where they do not hold still."""
        starts = itertools.count(int(self.rng.integers(len(self._float))), CANARY_PROCESSES)

        def measure() -> tuple[float, ...]:
            return tuple(self._stretch(self._float, next(starts), CANARY_PROCESSES).tolist())

        return compare.steady(measure, RULES.drift)

    def point(self, n: int) -> tuple[float, ...]:
        """A point of a front: as a search has it, from five processes."""
        start = int(self.rng.integers(len(self._int8)))
        found = self._stretch(self._int8, start, 5) * 0.5**n
        low, high = stats.process_interval(found) or (0.0, 0.0)
        return 0.93 - 0.002 * 1.6**n, float(np.median(found)), low, high, 60_000.0 * 0.8**n

    def scores(self) -> tuple[Array, Array]:
        """Who has which of the samples right: the accepted file, and one that is truly a point worse."""
        share = np.array([self.samples[name] for name in ("both", "neither", "gained", "lost")], float)
        kinds = self.rng.choice(4, size=SAMPLES, p=share / share.sum())
        return np.isin(kinds, (0, 3)).astype(float), np.isin(kinds, (0, 2)).astype(float)


def figures(measured: Measured) -> FileFigures:
    """A file of the accepted night."""
    pairs = measured.pairs(RULES.pairs[1])
    was, _ = measured.scores()
    return FileFigures(
        trial=0,
        configuration={},
        sha256="0",
        artifact="",
        file_bytes=90_000,
        download_bytes=60_000,
        accuracy=float(was.mean()),
        latency_ms=0.38,
        log_ratios=pairs.log_ratios,
        memory_bytes=pairs.memory_bytes,
        scores=packed(was),
    )


def checks(measured: Measured, label: str, slower: float = 1.0, worse: bool = False) -> list[Check]:
    """All checks of one file, as a night makes them."""
    was = figures(measured)
    before = Pairs(log_ratios=was.log_ratios, memory_bytes=was.memory_bytes)
    race = Race(before, RULES, CELLS * (3 * FILES + 1))
    tonight = measured.pairs(RULES.pairs[1], slower)
    taken = 0

    def measure(count: int) -> Pairs:
        nonlocal taken
        part = slice(taken, taken + count)
        taken += count
        return Pairs(log_ratios=tonight.log_ratios[part], memory_bytes=tonight.memory_bytes[part])

    race.run(measure)
    latency = race.latency_check(label, was.latency_ms)
    if race.is_worse_or_better():
        latency = replace(latency, confirmed=race.confirms(measured.pairs(RULES.pairs[1], slower)))
    memory = compare.memory_check(label, was.memory_bytes, race.pairs.memory_bytes)
    assert memory is not None
    scores = was.scores
    if worse:
        first, second = measured.scores()
        was = replace(was, scores=packed(first), accuracy=float(first.mean()))
        scores = packed(second)
        metric = compare.metric_check(label, was, float(second.mean()), scores, rises=True)
    else:
        metric = compare.metric_check(label, was, was.accuracy, scores, rises=True)
    sizes = [compare.certain(label, name, 60_000.0, 60_000.0) for name in ("file_bytes", "download_bytes")]
    return [latency, memory, metric, *sizes]


def volume(measured: Measured) -> CellNight:
    """A front whose latencies were measured anew."""
    points = tuple(measured.point(n) for n in range(HYPERVOLUME_POINTS))
    columns = np.array(points)
    scales = (0.931, 0.27, 70_000.0)
    found = pareto.study_hypervolume(
        columns[:, 0],
        columns[:, 1],
        columns[:, 4],
        baseline_accuracy=scales[0],
        baseline_latency_ms=scales[1],
        int8_download_bytes=scales[2],
    )
    return CellNight(cell="", state="done", points=points, scales=scales, hypervolume=found, data_sha256="0")


def night(measured: Measured, number: int, *, volumes: bool, slower: float = 1.0, worse: bool = False) -> Night:
    """A night; the first file of the first cell is truly slower or worse."""
    cells = []
    for cell in range(CELLS):
        rows: list[Check] = []
        for n in range(FILES):
            changed = (cell, n) == (0, 0)
            rows += checks(measured, f"{cell}.{n}", slower if changed else 1.0, worse and changed)
        if volumes:
            rows.append(compare.hypervolume_check(volume(measured), volume(measured)))
        cells.append(
            CellNight(
                cell=str(cell), state="done", checks=tuple(rows), canary_ms=(measured.canary(), measured.canary())
            )
        )
    return Night(number=number, sweep="s", began="", ended="", accepted=1, cells=tuple(cells))


def main(nights: int) -> int:
    """Print what came out; 1 where a goal is missed."""
    measured = Measured(Path(__file__).with_name("pairs.json"), seed=0)
    out.print_run("Verdicts of nights", ("numpy",))
    print(f"  {measured.about}; {CELLS} cells of {FILES} files")
    unchanged = [verdict.verdicts(night(measured, n, volumes=True), RULES) for n in range(nights)]
    slow = [_of(night(measured, n, volumes=False, slower=SLOWER), "latency_ms") for n in range(nights)]
    lost = [_of(night(measured, n, volumes=False, worse=True), "accuracy") for n in range(nights)]
    rows = [
        (name, *_shares(found))
        for name, found in (
            ("unchanged, all comparisons", [each.verdict for one in unchanged for each in one]),
            ("unchanged, latencies", [e.verdict for one in unchanged for e in one if e.check.metric == "latency_ms"]),
            (
                "unchanged, hypervolumes",
                [e.verdict for one in unchanged for e in one if e.check.metric == "hypervolume"],
            ),
            ("5 % slower, that latency", [each.verdict for each in slow]),
            ("one point lost, that metric", [each.verdict for each in lost]),
        )
    ]
    out.print_table(f"Verdicts, {nights} nights each", ("", "worse", "better", "same", "unknown"), rows)
    pairs = [e.check.pairs for one in unchanged for e in one if e.check.metric == "latency_ms"]
    print(f"\n  pairs a file, unchanged: median {np.median(pairs):.0f}, mean {np.mean(pairs):.1f}")
    print(f"  pairs, 5 % slower: mean {np.mean([each.check.pairs for each in slow]):.1f}")
    drifted = np.mean([compare.drift(n.canary_ms) > RULES.drift for n in _canaries(measured, nights)])
    print(f"  cells whose canary drifts by more than {100 * RULES.drift:.0f} %: {100 * drifted:.1f} %")
    alarms = float(np.mean([any(each.verdict == "worse" for each in one) for one in unchanged]))
    found = [float(np.mean([each.verdict == "worse" for each in rows])) for rows in (slow, lost)]
    return out.judge(
        [
            out.Goal(wanted="nights with a false alarm <= 1 %", got=f"{100 * alarms:.2f} %", met=alarms <= 0.01),
            out.Goal(wanted="a 5 % slow-down found in >= 95 %", got=f"{100 * found[0]:.1f} %", met=found[0] >= 0.95),
            out.Goal(wanted="a lost point found in >= 95 %", got=f"{100 * found[1]:.1f} %", met=found[1] >= 0.95),
        ]
    )


def _of(one: Night, metric: str) -> verdict.Verdict:
    """The verdict on the file that was changed."""
    found = verdict.verdicts(one, RULES)
    return next(each for each in found if each.check.file == "0.0" and each.check.metric == metric)


def _canaries(measured: Measured, count: int) -> list[CellNight]:
    return [CellNight(cell="", state="done", canary_ms=(measured.canary(), measured.canary())) for _ in range(count)]


def _shares(found: list[str]) -> list[str]:
    counts = Counter(found)
    return [f"{100 * counts[name] / len(found):.2f} %" for name in ("worse", "better", "same", "unknown")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nights", type=int, nargs="?", default=2000)
    sys.exit(main(parser.parse_args().nights))
