"""Sweeps: which tasks are searched on which devices every night, and what counts as a regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class SweepTask:
    """A task by `task` (a built-in name or FILE.py[:ATTR]), or by `model`, `data` and `metric`; of its network the
    `output` and the `signature` that are meant. Paths are absolute."""

    name: str
    task: str | None = None
    model: str | None = None
    data: str | None = None
    metric: str | None = None
    output: str | None = None
    signature: str | None = None


@dataclass(frozen=True, kw_only=True)
class SweepDevice:
    """A device profile (a name or a file) and the host that replaces the profile's; None: the profile's own."""

    name: str
    profile: str
    host: str | None = None


@dataclass(frozen=True, kw_only=True)
class SweepSpace:
    """A search space by name or file."""

    name: str
    space: str


@dataclass(frozen=True, kw_only=True)
class SweepBudget:
    """What a cell's study is searched for: `trials` in all, `trials_per_night` more than it had at the start of the
    night, `time_s` a night; the first that is reached ends it. `constraints` make a study of its own."""

    name: str
    trials: int | None = None
    trials_per_night: int | None = None
    time_s: float | None = None
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VerdictRules:
    """From which effect on a difference counts, and how sure it must be. Relative effects, but `metric`: in the
    metric's own unit. `alpha`: the chance of one false verdict in a night. `pairs`: fresh processes of the file and of
    its reference, the fewest and the most. `drift`: of the canary, from which on 'worse' is 'unknown'."""

    latency: float = 0.03
    metric: float = 0.005
    size: float = 0.01
    memory: float = 0.10
    hypervolume: float = 0.02
    alpha: float = 0.01
    pairs: tuple[int, int] = (5, 40)
    files: int = 6
    drift: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep file. Every combination of the four lists is a cell, a study of its own. `time_budget_s`: of a night."""

    name: str
    file: Path
    tasks: tuple[SweepTask, ...]
    devices: tuple[SweepDevice, ...]
    spaces: tuple[SweepSpace, ...]
    budgets: tuple[SweepBudget, ...]
    time_budget_s: float | None = None
    host_wait_s: float = 900.0
    sampler: str = "guided"
    seed: int = 0
    objectives: tuple[str, ...] = ("metric", "latency", "size")
    size: str = "download"
    rules: VerdictRules = field(default_factory=VerdictRules)
