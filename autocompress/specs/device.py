"""Device profiles: what a device runs, where it is reached, and how its latency is modelled without it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs the file on the device: `ai-edge-litert` or `tflite-runtime`, and its thread count."""

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
    """One published or measured latency and the features of its network (as `measure.predict` counts them):
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


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """One device. `host`: None, "local", {"ssh": "user@name"}, perhaps with the "python" there, or {"command":
    [argv, ...]}, ending with the Python executable; `kernels`: pairs (weight container bits, activations) that the
    runtime has for each op; without a `latency_model` a latency is had only by measuring."""

    name: str
    description: str
    runtime: Runtime
    host: str | Mapping[str, Any] | None
    memory_bytes: int | None
    power_w: PowerDraw | None
    kernels: Mapping[str, tuple[tuple[int, str], ...]]
    latency_model: LatencyModel | None


def is_ssh_word(text: str) -> bool:
    """Whether a destination or the Python there is one word or path: nothing that ssh or a shell would read as an
    option, nothing empty, no line break."""
    return bool(text.strip()) and text.isprintable() and not re.match("(.*@|ssh://)?-", text)
