"""What was seen of a file on a device: its latency, the machine meanwhile, the times of its operators, its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from autocompress.records.output import JudgedOutput

RUNTIME_BYTES = 10_000_000  # of a process with ai-edge-litert on x86-64, whatever the network
STORED_SAMPLES = 200  # latency samples of a process that a study keeps
Pair = tuple[float | None, float | None] | None


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
class Compilation:
    """What a vendor's compiler made of a file, and for what: cycles of all memories and of the NPU alone, how many
    operators the NPU runs, and the names of those that stay `on_cpu`, whose time no figure holds."""

    accelerator: str
    system_config: str
    memory_mode: str
    cycles: int
    npu_cycles: int
    clock_mhz: float
    npu_ops: int
    on_cpu: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Latency of one file on one device, None where `latency_source` is "none": the device has neither a host nor a
    model. Missing is None. `latency_ci_ms` only where measured, `latency_error`
    (the relative error that the model makes of files like this one) only where modelled and not `extrapolated`:
    outside what a model was fitted to its error is unknown. `samples_ms` holds one list a
    process; `ratio_to_baseline` compares with the baseline interleaved in the same measurement, `ratio_ci` is its 95 %
    interval. `flash_bytes` and `ram_bytes` only where compiled: what lies on the device, and its arena. `of`: the file
    that this is of where that is not the one it stands beside, as plain int8's for a float network that a device does
    not run."""

    latency_ms: float | None
    latency_source: str  # "measured" | "modelled" | "compiled" | "none"
    latency_error: float | None = None
    latency_ci_ms: tuple[float, float] | None = None
    extrapolated: bool = False
    p90_ms: float | None = None
    iqr_ms: float | None = None
    outliers: int | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    peak_memory_bytes: int | None = None
    memory_estimated: bool = False  # from the file alone, not measured
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
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    compilation: Compilation | None = None
    of: str | None = None

    def __post_init__(self) -> None:
        if self.extrapolated:  # older versions stored the error of what the model was fitted to
            object.__setattr__(self, "latency_error", None)

    @property
    def known_latency_ms(self) -> float:
        """The latency, of one that has it."""
        assert self.latency_ms is not None, "the device has neither a host nor a latency model"
        return self.latency_ms

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
        if values.get("compilation") is not None:
            made = dict(values["compilation"])
            values["compilation"] = Compilation(**made | {"on_cpu": tuple(made["on_cpu"])})
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
    another (None where the metric knows no classes), `largest_difference` is over all outputs.
    `output`: which are judged."""

    metric: str
    value: float
    interval: tuple[float, float]
    samples: int
    kernels: str
    value_here: float | None = None
    predictions_differ: int | None = None
    largest_difference: float | None = None
    output: JudgedOutput | None = None


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
    device_memory_bytes: int | None = None  # all that the device has
