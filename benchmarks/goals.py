"""What the benchmarks print alike: tables, plots, what was run with which versions, goals and the exit code."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A stated goal: what is wanted, what came out, and whether that is enough."""

    wanted: str
    got: str
    met: bool


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in plain text: columns of numbers to the right; the first and columns of words to the left."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    to_the_left = [n == 0 or any(cell[:1].isalpha() for cell in column[1:]) for n, column in enumerate(columns)]
    print(f"\n{title}")
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            text.ljust(width) if left else text.rjust(width)
            for text, width, left in zip(row, widths, to_the_left, strict=True)
        ]
        print("  " + "  ".join(cells).rstrip())


def print_plot(title: str, values: Mapping[str, Sequence[float]], low: float, ends: str, height: int = 16) -> None:
    """Curves in characters, each with the first letter of its name, the first on top; from `low` to the highest value.
    `ends`: what the axis reaches from and to."""
    high = max(map(max, values.values()))
    grid = [[" "] * len(next(iter(values.values()))) for _ in range(height)]
    for name in reversed(list(values)):
        for x, value in enumerate(values[name]):
            grid[round((high - value) / (high - low or 1) * (height - 1))][x] = name[0]
    print(f"\n{title}: " + ", ".join(f"{name[0]} {name}" for name in values))
    for y, row in enumerate(grid):
        print(f"  {high - (high - low) * y / (height - 1):.3f} |{''.join(row)}")
    print(f"        {ends}")


def print_run(title: str, packages: Sequence[str]) -> None:
    """The head of a benchmark: its title, the machine and its load (a busy one spoils times), versions."""
    print(title)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"  {platform.machine()}, {cores} cores, load average {load:.1f}, Python {platform.python_version()}")
    print("  " + ", ".join(f"{name} {metadata.version(name)}" for name in ("autocompress", *packages)))


def judge(goals: Sequence[Goal]) -> int:
    """Print the goals with what came out; the exit code: 1 where one is missed."""
    print("\nGoals")
    for goal in goals:
        print(f"  {'met   ' if goal.met else 'MISSED'}  {goal.wanted}: {goal.got}")
    return 0 if all(goal.met for goal in goals) else 1
