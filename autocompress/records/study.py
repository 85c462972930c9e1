"""What was found: a candidate's evaluation, the trials of a study, and the study as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from autocompress.records.configuration import Configuration
from autocompress.records.kernels import Kernels, kernel_risk, runs_where
from autocompress.records.measurement import Measurement
from autocompress.records.output import JudgedOutput

CONSTRAINT_NAMES = (
    "accuracy",
    "latency_ms",
    "download_bytes",
    "file_bytes",
    "flash_bytes",
    "ram_bytes",
    "peak_memory_bytes",
    "energy_mj",
)
OBJECTIVES = ("metric", "latency", "size", "memory", "energy", "ram")
SIZES = ("download", "file", "flash")
ON_CHIP = ("flash_bytes", "ram_bytes")  # known of microcontrollers and of devices with a compiler
_VALUE_NAMES = {
    "metric": "accuracy",
    "latency": "latency_ms",
    "memory": "peak_memory_bytes",
    "energy": "energy_mj",
    "ram": "ram_bytes",
}
_OF_DEVICE = ("latency_ms", "peak_memory_bytes", *ON_CHIP)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured of one candidate. `accuracy` is the metric's value on validation data whatever the metric
    is; `accuracy_delta_ci` the paired 95 % interval of the difference to the baseline (candidate - baseline)."""

    configuration: Configuration
    accuracy: float
    accuracy_ci: tuple[float, float]
    accuracy_delta_ci: tuple[float, float] | None
    measurement: Measurement
    file_bytes: int
    download_bytes: int
    sha256: str
    artifact: str  # relative to the runs folder
    energy_mj: float | None = None
    build_s: float | None = None
    finetuned: bool = False

    def value(self, name: str) -> float | None:
        """The value called `name` (one of CONSTRAINT_NAMES); None where it is missing."""
        owner = self.measurement if name in _OF_DEVICE else self
        found: float | None = getattr(owner, name)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the inverse of `from_dict`."""
        return asdict(self) | {
            "configuration": self.configuration.to_dict(),
            "measurement": self.measurement.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """The evaluation as stored in a trial."""
        values = dict(data)
        values["configuration"] = Configuration.from_dict(values["configuration"])
        values["measurement"] = Measurement.from_dict(values["measurement"])
        for key in ("accuracy_ci", "accuracy_delta_ci"):
            values[key] = None if values[key] is None else tuple(values[key])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A hard bound on a validation value, as `latency_ms<=8`: `name` one of CONSTRAINT_NAMES, `relation` <= or >=. One
    that hangs on the float network has a `factor`: its bound is that much of the float network's value plus `bound`.
    `text`: as it was written, where that says more."""

    name: str
    relation: str
    bound: float
    factor: float | None = None
    text: str | None = None

    def __str__(self) -> str:
        short = f"{self.bound:g}"  # what a study stores of it: no digit may get lost
        return self.text or f"{self.name}{self.relation}{short if float(short) == self.bound else repr(self.bound)}"

    def resolved(self, baseline: Evaluation) -> Constraint | None:
        """The constraint with its bound as a number; None where the float network lacks the value."""
        if self.factor is None:
            return self
        value = baseline.value(self.name)
        if value is None or not math.isfinite(value):
            return None
        return replace(self, bound=value * self.factor + self.bound, factor=None)


def value_name(objective: str, size: str) -> str:
    """The name of the value that an objective stands for; `size` says which size counts, one of SIZES."""
    return f"{size}_bytes" if objective == "size" else _VALUE_NAMES[objective]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial as stored. `state`: complete | stopped_early | screened | failed | running; `reason` why it failed or
    stopped."""

    number: int
    state: str
    evaluation: Evaluation | None = None
    reason: str | None = None
    finished_s: float | None = None  # seconds since the epoch
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What a technique does in one layer, or group of channels, of the knee's configuration: `value` of it (share of
    zeros, bits, clusters, channels kept of `of`), `saves_bytes` of the download, `saves_latency_ms`, and `costs` of the
    metric (positive: worse), predicted against going without. `table_sensitivity`: the divergence of the outputs that
    the tables give it; `sensitivity`: the same after the trials. `trials`: how many complete ones had this value. Not
    `used`: the next narrower width of a group, against the knee as it is. Studies of older versions lack what is
    None."""

    layer: str
    technique: str  # "sparsity" | "bits" | "clusters" | "channels"
    value: float
    saves_bytes: float
    costs: float
    of: int | None = None  # the group's channels
    used: bool = True
    saves_latency_ms: float | None = None
    sensitivity: float | None = None
    table_sensitivity: float | None = None
    trials: int | None = None


@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """One start of a search on a study: the words of its command (none where it was not started from the command line),
    by whom, on which machine, and when in seconds since the epoch."""

    command: tuple[str, ...]
    user: str | None
    host: str | None
    started_s: float


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study as plain data, for reports: what was asked, the baseline, all trials, and test values where computed."""

    name: str
    task: str
    device: str
    latency_source: str  # "measured" | "modelled" | "compiled"
    latency_error: float | None
    metric_name: str
    higher_is_better: bool
    space: str
    sampler: str
    seed: int
    objectives: tuple[str, ...]  # of metric, latency, size, memory, energy
    size: str  # "download" | "file" | "flash"
    constraints: tuple[Constraint, ...]
    baseline: Evaluation
    int8_download_bytes: int | None  # the plain static int8 file, reference of the hypervolume
    trials: tuple[TrialRecord, ...]
    test_accuracy: Mapping[str, float]  # by sha256 of the file, the baseline's too; only what was computed
    wall_s: float
    versions: Mapping[str, str]
    test_ci: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # 95 % intervals of `test_accuracy`
    notes: tuple[str, ...] = ()
    importance: tuple[Importance, ...] = ()  # of the knee; only where there are layer tables
    # Of the knee's layers the choices one technique away, predicted against the knee; 0 clusters: all levels.
    alternatives: tuple[Importance, ...] = ()
    layer_names: Mapping[str, str] = field(default_factory=dict)  # layer -> its tensor's name in the user's network
    hashes: Mapping[str, str] = field(default_factory=dict)  # what it was made with -> SHA-256
    runs: tuple[SearchRun, ...] = ()  # oldest first
    # Layers that keep all their channels although the space offers fewer, and why.
    whole_channels: Mapping[str, str] = field(default_factory=dict)
    # The kernels that its candidates run on, and those that the delegate does not take; None: of an older version.
    kernels: Kernels | None = None
    not_delegated: Kernels = field(default_factory=dict)
    left_out: str | None = None  # kernels that are not offered because the latency model has no price for them
    output: JudgedOutput | None = None  # None in studies of older versions: the first output
    metric_scale: float = 1.0  # the difference of the metric that counts as all of one in 0..1

    @property
    def tells_flash(self) -> bool:
        """Whether its device says what of a file lies in flash and what RAM it needs."""
        return self.baseline.measurement.flash_bytes is not None

    def runs_where(self, configuration: Configuration) -> dict[str, str] | None:
        """Layer -> DELEGATED or BUILT_IN (`records.kernels`); None where that is not known."""
        return None if self.kernels is None else runs_where(configuration, self.kernels, self.not_delegated)

    def kernel_risk(self, configuration: Configuration) -> tuple[int, int]:
        """What orders configurations that are level in all else, the safest first; (0, 0) where nothing is known."""
        return (0, 0) if self.kernels is None else kernel_risk(configuration, self.kernels, self.not_delegated)
