"""The words of the project as frozen data: layer choice, configuration, measurement, evaluation, study."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

ACTIVATIONS = ("float32", "int8", "int16", "weight_only")
STATIC_ACTIVATIONS = ("int8", "int16")  # computed as integers, by ranges seen in calibration
BITS = (32, 16, 8, 7, 6, 5, 4, 3, 2)
GRANULARITIES = ("element", "channel", "block")
CONSTRAINT_NAMES = ("accuracy", "latency_ms", "download_bytes", "file_bytes", "peak_memory_bytes", "energy_mj")
STORED_SAMPLES = 200  # latency samples of a process that a study keeps
Pair = tuple[float | None, float | None] | None
OBJECTIVES = ("metric", "latency", "size", "memory", "energy")
_VALUE_NAMES = {"metric": "accuracy", "latency": "latency_ms", "memory": "peak_memory_bytes", "energy": "energy_mj"}


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """What is asked of one layer. `sparsity` in [0, 1) is a floor, `bits` 32 and 16 are float, `clusters` the most
    distinct integers of the whole tensor, zero included; None: all levels of the bit-width."""

    sparsity: float = 0.0
    granularity: str = "element"
    bits: int = 32
    clusters: int | None = None

    @property
    def is_integer(self) -> bool:
        """Whether the weights are stored as integers."""
        return self.bits <= 8

    @property
    def is_baseline(self) -> bool:
        """Whether the layer stays exactly as it came."""
        return self == LayerChoice()

    def normalised(self) -> LayerChoice:
        """The one spelling of this choice, so that equal choices are equal: clusters only where they bind."""
        clusters = self.clusters
        if not self.is_integer or (clusters is not None and clusters >= 2**self.bits - 1):
            clusters = None
        sparsity = float(self.sparsity)
        return LayerChoice(
            sparsity=sparsity,
            granularity=self.granularity if sparsity > 0 else "element",
            bits=int(self.bits),
            clusters=None if clusters is None else int(clusters),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, keys in the order of the design."""
        return asdict(self)

    def to_json(self) -> str:
        """Compact JSON; the categorical value of this choice in the study."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerChoice:
        """The inverse of `to_dict`."""
        return _layer_choice(**data)


@lru_cache(maxsize=4096)
def _layer_choice(**values: Any) -> LayerChoice:
    # A study's trials hold the same few hundred choices thousands of times.
    return LayerChoice(**values)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A choice per layer (all layers, keyed by layer name), one activation precision for the network, and how many
    channels the groups keep that lose some (by the group's name; groups that are not named keep all).

    Of `activations`, `float32` and `weight_only` are both float: integer weights meet inputs rounded to 8 bits as they
    come (dynamic range), or are unpacked when the file is loaded, and float kernels compute."""

    activations: str = "float32"
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_baseline(self) -> bool:
        """Whether this is the float network as given."""
        return not self.channels and all(choice.is_baseline for choice in self.layers.values())

    def normalised(self) -> Configuration:
        """Each choice normalised; without an integer layer the activations are float32."""
        layers = {name: choice.normalised() for name, choice in self.layers.items()}
        integer = any(choice.is_integer for choice in layers.values())
        activations = self.activations if integer else "float32"
        return Configuration(activations=activations, layers=layers, channels=dict(sorted(self.channels.items())))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `channels` only where some are gone."""
        plain: dict[str, Any] = {
            "activations": self.activations,
            "layers": {name: choice.to_dict() for name, choice in self.layers.items()},
        }
        return plain | ({"channels": dict(self.channels)} if self.channels else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Configuration:
        """The inverse of `to_dict`."""
        layers = {name: LayerChoice.from_dict(choice) for name, choice in data["layers"].items()}
        return cls(activations=data["activations"], layers=layers, channels=dict(data.get("channels", {})))

    @property
    def digest(self) -> str:
        """SHA-256 of the normalised configuration: equal means equal."""
        text = json.dumps(self.normalised().to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The edge host during one measurement. Missing is None; pairs are before and after. `cpu_features` are those that
    decide which kernels run, `throttled` the firmware bits of a Raspberry Pi."""

    machine: str
    python: str
    cpu: str | None = None
    board: str | None = None
    cpu_features: tuple[str, ...] = ()
    cores: int | None = None  # available
    governor: str | None = None
    clock_mhz: Pair = None
    temperature_c: Pair = None
    throttled: Pair = None
    load_average: Pair = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Environment:
        """The inverse of `asdict`, lists for tuples allowed."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Latency of one file on one device. Missing is None. `latency_ci_ms` only where measured, `latency_error`
    (the largest relative leave-one-out error of the model) only where modelled. `samples_ms` holds one list a
    process; `ratio_to_baseline` compares with the baseline interleaved in the same measurement, `ratio_ci` is its 95 %
    interval."""

    latency_ms: float
    latency_source: str  # "measured" | "modelled"
    latency_error: float | None = None
    latency_ci_ms: tuple[float, float] | None = None
    extrapolated: bool = False
    p90_ms: float | None = None
    iqr_ms: float | None = None
    outliers: int | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    peak_memory_bytes: int | None = None
    ratio_to_baseline: float | None = None
    ratio_ci: tuple[float, float] | None = None
    doubtful: bool = False
    runtime: str | None = None
    runtime_version: str | None = None
    os_bits: int | None = None
    threads: int | None = None
    samples_ms: tuple[tuple[float, ...], ...] = ()
    kernel_pattern: str | None = None  # files of one pattern share their measurement
    environment: Environment | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def thinned(self, most: int = STORED_SAMPLES) -> Measurement:
        """This with at most `most` samples a process, every k-th: a study holds thousands of measurements. All other
        figures stay those of all samples."""
        kept = tuple(run[:: max(1, math.ceil(len(run) / most))] for run in self.samples_ms)
        return replace(self, samples_ms=kept)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """The inverse of `to_dict`."""
        values = dict(data)
        for key in ("latency_ci_ms", "ratio_ci"):
            if values.get(key) is not None:
                values[key] = tuple(values[key])
        if values.get("environment") is not None:
            values["environment"] = Environment.from_dict(values["environment"])
        values["samples_ms"] = tuple(tuple(run) for run in values.get("samples_ms", ()))
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class OpTime:
    """One operator of the main graph, or one kernel of a delegate, in the order they ran.

    `kind`: "builtin" or "delegate"; `index`: of the operator in the file, or of the kernel within its delegate's
    `partition` (None for a builtin). `op` and `layer` are None where the profiler does not say whose kernel it is.
    Microseconds an inference: the profiler rounds each down to whole ones; `mean_us` leaves out the lowest and the
    highest tenth."""

    kernel: str
    kind: str
    index: int
    partition: int | None
    median_us: float
    mean_us: float
    op: str | None = None
    layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class OpProfile:
    """The times of a file's operators. `ops` is None where there are none: `reason` says why, else what could not be
    mapped to layers. `inference_us` is the whole inference while it was profiled, over `runs` of them."""

    ops: tuple[OpTime, ...] | None
    reason: str | None = None
    runs: int = 0
    inference_us: float | None = None

    @property
    def sum_us(self) -> float:
        """What all operators take together."""
        return sum(op.mean_us for op in self.ops or ())


@dataclass(frozen=True, kw_only=True)
class DeviceAccuracy:
    """The metric of one file on a data split, from its outputs under the kernels of `kernels` (a device's name), and
    under those of this machine: None where there are no others. `predictions_differ` counts samples whose class is
    another (None where the metric knows no classes), `largest_difference` is over all outputs."""

    metric: str
    value: float
    interval: tuple[float, float]
    samples: int
    kernels: str
    value_here: float | None = None
    predictions_differ: int | None = None
    largest_difference: float | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredFile:
    """What `autocompress measure` finds of one file. `baseline` names the file that was interleaved."""

    model: str
    device: str
    measurement: Measurement
    file_bytes: int
    download_bytes: int
    profile: OpProfile
    energy_mj: float | None = None  # an estimate: latency times the board's busy power
    baseline: str | None = None
    accuracy: DeviceAccuracy | None = None
    notes: tuple[str, ...] = ()


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
        owner = self.measurement if name in ("latency_ms", "peak_memory_bytes") else self
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
    """A hard bound on a validation value, as `latency_ms<=8`: `name` one of CONSTRAINT_NAMES, `relation` <= or >=."""

    name: str
    relation: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{self.relation}{self.bound:g}"


def value_name(objective: str, size: str) -> str:
    """The name of the value that an objective stands for; `size` says which size counts: download or file."""
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
    metric (positive: worse), predicted against going without. `table_damage`: the divergence of the outputs that the
    tables give it; `damage`: the same after the trials. `trials`: how many complete ones had this value. Not `used`:
    the next narrower width of a group, against the knee as it is. Studies of older versions lack what is None."""

    layer: str
    technique: str  # "sparsity" | "bits" | "clusters" | "channels"
    value: float
    saves_bytes: float
    costs: float
    of: int | None = None  # the group's channels
    used: bool = True
    saves_latency_ms: float | None = None
    damage: float | None = None
    table_damage: float | None = None
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
    latency_source: str  # "measured" | "modelled"
    latency_error: float | None
    metric_name: str
    higher_is_better: bool
    space: str
    sampler: str
    seed: int
    objectives: tuple[str, ...]  # of metric, latency, size, memory, energy
    size: str  # "download" | "file"
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
    hashes: Mapping[str, str] = field(default_factory=dict)  # what it was made with -> SHA-256
    runs: tuple[SearchRun, ...] = ()  # oldest first
    # Layers that keep all their channels although the space offers fewer, and why.
    whole_channels: Mapping[str, str] = field(default_factory=dict)
