"""Device profiles: what a device runs, where it is reached, and how its latency is modelled without it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CALIBRATED_DTYPES = ("float32", "dynamic", "int8")
# The kinds of operators that have a cost of their own in a calibrated model, and what is counted of each.
OPERATOR_CLASSES = (
    "pointwise",
    "spatial",
    "depthwise",
    "dense",
    "upsample",
    "elementwise",
    "average_pool",
    "max_pool",
    "mean",
    "softmax",
    "logistic",
    "tanh",
    "hard_swish",
    "relu",
    "pad",
    "concatenation",
    "reshape",
    "quantize",
    "dequantize",
    "requantize",
)
OPERATOR_TERMS = (
    "ops",
    "mmac_by_8",
    "mmac_by_16",
    "mmac_in_8",
    "mmac_in_16",
    "inputs",
    "outputs",
    "rows",
    "taps",
    "ragged",
    "elements",
    "reads",
)
NETWORK_TERMS = ("once", "weights_beyond_l1", "weights_beyond_l2", "activations_beyond_l2")
# Arm's NPUs: the architecture as the compiler calls it, multiply-accumulates a cycle, cores.
ETHOS_U = {
    "ethos-u55-32": ("EthosU55", 32, 1),
    "ethos-u55-64": ("EthosU55", 64, 1),
    "ethos-u55-128": ("EthosU55", 128, 1),
    "ethos-u55-256": ("EthosU55", 256, 1),
    "ethos-u65-256": ("EthosU65", 256, 1),
    "ethos-u65-512": ("EthosU65", 256, 2),
    "ethos-u85-128": ("EthosU85", 128, 1),
    "ethos-u85-256": ("EthosU85", 256, 1),
    "ethos-u85-512": ("EthosU85", 512, 1),
    "ethos-u85-1024": ("EthosU85", 1024, 1),
    "ethos-u85-2048": ("EthosU85", 2048, 1),
}
# The figures of a profile that `sources` says something of.
FIGURES = ("cores", "clock_mhz", "memory_bytes", "flash_bytes", "power_w", "kernels", "latency_model", "compiler")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs the file on the device, `ai-edge-litert`, `tflite-runtime` or `tflite-micro`, and its thread count."""

    name: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class PowerDraw:
    """Power of the whole board in watts, None where no figure is known, and where the figures come from."""

    idle: float | None
    busy: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class LatencyRuntime:
    """What the points of a latency model were measured with; never mixed with measured values."""

    name: str
    version: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class FittedPoint:
    """One published or measured latency and the features of its network (as `measure.model.predict` counts them):
    millions of multiply-accumulates, megabytes moved (1e6 bytes), operators."""

    model: str
    dtype: str
    mmac: float
    mb: float
    ops: int
    latency_ms: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """latency = ms_per_mmac * MMAC + ms_per_mb * MB + ms_per_op * ops, all >= 0."""

    ms_per_mmac: float
    ms_per_mb: float
    ms_per_op: float


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """The three-coefficient model per dtype of the layers, the points that it was fitted to, and the largest
    relative leave-one-out error of each dtype that has one."""

    runtime: LatencyRuntime
    fitted_to: tuple[FittedPoint, ...]
    coefficients: Mapping[str, Coefficients]
    leave_one_out: Mapping[str, float]
    form: str = "published"


@dataclass(frozen=True, kw_only=True)
class CalibratedRuntime:
    """What a device was calibrated with; a calibration holds for nothing else. `os_bits` are the runtime's."""

    name: str
    version: str
    threads: int
    os_bits: int


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """How far off the fit is on designs that it was not fitted to: the median, 90th percentile and largest of
    |predicted / measured - 1| over `files` files of one dtype."""

    files: int
    median: float
    p90: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What operators of one class in one dtype cost: milliseconds per unit of each term (`measure.model.terms` says
    what is counted), and the largest value of each term that one measured operator had."""

    ms_per: Mapping[str, float]
    largest: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class CalibratedModel:
    """The latency model of one device, fitted to the designed set as it was measured there (`device calibrate`).

    `network`: milliseconds per unit of the terms of a whole network; `costs`: by dtype (float32; dynamic: integer
    weights, float activations; int8), then by operator class. `longest_ms`: the slowest file measured."""

    runtime: CalibratedRuntime
    measured_on: str  # ISO date
    longest_ms: float
    network: Mapping[str, float]
    costs: Mapping[str, Mapping[str, Cost]]
    cross_validation: Mapping[str, CrossValidation]
    form: str = "calibrated"


@dataclass(frozen=True, kw_only=True)
class CompilerTarget:
    """What the vendor's compiler is asked to estimate: which NPU (`ETHOS_U`), the named clocks and bandwidths of its
    system, where its tensors lie, and the most that the arena may take. `version`: of the compiler."""

    name: str
    version: str
    accelerator: str
    system_config: str
    memory_mode: str
    arena_bytes: int


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """One device. `host`: None, "local", {"ssh": "user@name"}, perhaps with the "python" there, or {"command":
    [argv, ...]}, ending with the Python executable; `kernels`: pairs (weight container bits, activations) that the
    runtime has for each op; without a `latency_model` a latency is had only by measuring. `not_delegated`: those
    that XNNPACK does not take there, None: as `specs.delegation` says of the runtime. `compiler`: what estimates its
    latency, flash and RAM of each file. `sources` says of a figure
    (`FIGURES`) where it comes from, or why there is none."""

    name: str
    description: str
    runtime: Runtime
    host: str | Mapping[str, Any] | None
    kind: str | None = None
    cores: int | None = None
    clock_mhz: float | None = None
    memory_bytes: int | None
    power_w: PowerDraw | None
    kernels: Mapping[str, tuple[tuple[int, str], ...]]
    flash_bytes: int | None = None
    latency_model: LatencyModel | CalibratedModel | None
    not_delegated: Mapping[str, tuple[tuple[int, str], ...]] | None = None
    compiler: CompilerTarget | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def tells_flash(self) -> bool:
        """Whether flash and RAM of a file are known: by a compiler, or as TensorFlow Lite Micro takes them."""
        return self.compiler is not None or self.runtime.name == "tflite-micro"


def is_ssh_word(text: str) -> bool:
    """Whether a destination or the Python there is one word or path: nothing that ssh or a shell would read as an
    option, nothing empty, no line break."""
    return bool(text.strip()) and text.isprintable() and not re.match("(.*@|ssh://)?-", text)
