"""Latency without the device, by the model that a device profile carries.

A calibrated model sums the costs of the terms that `measure.model.terms` counts. A model of published points is
a * MMAC + b * MB + c * ops, fitted to points that the profile carries.
What this one counts, for each operator of the main graph:
- MMAC: millions of multiply-accumulates of CONV_2D, FULLY_CONNECTED and TRANSPOSE_CONV; a depthwise
  convolution is bound by memory and counts by its bytes.
- MB: bytes / 1e6 of the first activation input, the first output and the layer's weights at their stored
  width; RESHAPE moves nothing.
- ops: 1.
`measure.model.operators` says which operators there are: none that only expand constants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.latency.model.operators import DENSE_OPS, UNKNOWN_OP, Operator, operators
from autocompress.latency.model.terms import LAYER_CLASSES, NETWORK, Key, terms_of
from autocompress.records.measurement import Measurement
from autocompress.specs import CalibratedModel, Coefficients, DeviceProfile, FittedPoint, LatencyModel

# Their work is in none of the three terms.
_UNCOUNTED_OPS = (
    "BATCH_MATMUL",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
    "SVDF",
    "RNN",
    "LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "WHILE",
    "IF",
    "CALL",
    "CALL_ONCE",
    "CUSTOM",
    UNKNOWN_OP,
)
_DTYPES = {"INT8": "int8", "UINT8": "uint8", "INT16": "int16"}  # of an operator's input; float32 else


@dataclass(frozen=True, kw_only=True)
class DtypeFeatures:
    """What the operators of one dtype do at each inference; `layers`: how many of them have weights."""

    macs: int = 0
    moved_bytes: float = 0.0  # packed weights end in half bytes
    ops: int = 0
    layers: int = 0

    def __add__(self, other: DtypeFeatures) -> DtypeFeatures:
        return DtypeFeatures(
            macs=self.macs + other.macs,
            moved_bytes=self.moved_bytes + other.moved_bytes,
            ops=self.ops + other.ops,
            layers=self.layers + other.layers,
        )

    @property
    def mmac(self) -> float:
        """Millions of multiply-accumulates."""
        return self.macs / 1e6

    @property
    def mb(self) -> float:
        """Megabytes (1e6 bytes) moved."""
        return self.moved_bytes / 1e6


@dataclass(frozen=True, kw_only=True)
class Features:
    """The features of a network by the dtype that its operators run in: float32 (dynamic range and float16
    weights too), int8, int16 or uint8. `uncounted`: ops whose work no term counts; `dynamic_layers`: how many layers
    have integer weights and float inputs."""

    by_dtype: Mapping[str, DtypeFeatures]
    uncounted: tuple[str, ...] = ()
    dynamic_layers: int = 0

    @property
    def total(self) -> DtypeFeatures:
        """Of the whole network."""
        return sum(self.by_dtype.values(), DtypeFeatures())

    @property
    def layer_dtypes(self) -> tuple[str, ...]:
        """The dtypes that layers run in."""
        return tuple(dtype for dtype, part in self.by_dtype.items() if part.layers)


def features(model: bytes) -> Features:
    """What the latency model knows of a `.tflite`, read in place from the flatbuffer.

    AutocompressError where the bytes are no whole TFLite file."""
    by_dtype: dict[str, DtypeFeatures] = {}
    uncounted, dynamic = set(), 0
    for operator in operators(model):
        if operator.op in _UNCOUNTED_OPS:
            uncounted.add(operator.op)
        dtype = _dtype(operator)
        dynamic += operator.is_layer and dtype == "float32" and operator.weight.kind in ("INT8", "INT4")
        by_dtype[dtype] = by_dtype.get(dtype, DtypeFeatures()) + _count(operator)
    return Features(by_dtype=dict(sorted(by_dtype.items())), uncounted=tuple(sorted(uncounted)), dynamic_layers=dynamic)


def _dtype(operator: Operator) -> str:
    dtype = _DTYPES.get(operator.first.kind, "float32")
    # Bytes that are no layer's input are an image on its way to float or int8.
    return "float32" if dtype == "uint8" and not operator.is_layer else dtype


def _count(operator: Operator) -> DtypeFeatures:
    moved = 0 if operator.op == "RESHAPE" else operator.first.bits + operator.output.bits
    if operator.is_layer:
        moved += operator.weight.bits
    macs = operator.macs if operator.op in DENSE_OPS else 0
    return DtypeFeatures(macs=macs, moved_bytes=moved / 8, ops=1, layers=int(operator.is_layer))


def predict(model: bytes, latency_model: LatencyModel | CalibratedModel) -> Measurement:
    """The modelled latency of a `.tflite`, with its relative error: for a calibrated model the 90th percentile over
    whole networks left out of its fit, for a published one the largest leave-one-out error; the largest of the dtypes
    that layers run in.

    `extrapolated` is set where the file has what the model was not fitted to: its error is unknown then, and None.
    AutocompressError where layers run in a dtype without coefficients."""
    if isinstance(latency_model, CalibratedModel):
        return _by_calibration(model, latency_model)
    return _by_points(model, latency_model)


def _by_calibration(model: bytes, latency_model: CalibratedModel) -> Measurement:
    found = terms_of(operators(model))
    classes = {key[:2] for key in found.largest}
    missing = {(dtype, name) for dtype, name in classes if name not in latency_model.costs.get(dtype, {})}
    refused = [*found.uncalibrated, *(f"{dtype} {name} layers" for dtype, name in missing if name in LAYER_CLASSES)]
    if refused:
        raise AutocompressError(
            f"the calibrated latency model has no costs for {', '.join(refused)}; measure with --host"
        )
    latency_ms = math.fsum(value * _ms_per(latency_model, key) for key, value in found.total.items())
    beyond = (value > _largest(latency_model, key) for key, value in found.largest.items())
    dtypes = {dtype for dtype, name in classes if name in LAYER_CLASSES} or set(latency_model.cross_validation)
    errors = [each.p90 for dtype, each in latency_model.cross_validation.items() if dtype in dtypes]
    extrapolated = bool(missing) or latency_ms > latency_model.longest_ms or any(beyond)
    return Measurement(
        latency_ms=latency_ms,
        latency_source="modelled",
        latency_error=None if extrapolated else max(errors),
        extrapolated=extrapolated,
        runtime=latency_model.runtime.name,
        runtime_version=latency_model.runtime.version,
        os_bits=latency_model.runtime.os_bits,
        threads=latency_model.runtime.threads,
    )


def _ms_per(latency_model: CalibratedModel, key: Key) -> float:
    dtype, name, term = key
    if name == NETWORK:
        return latency_model.network.get(term, 0.0)
    cost = latency_model.costs.get(dtype, {}).get(name)
    return 0.0 if cost is None else cost.ms_per.get(term, 0.0)


def _largest(latency_model: CalibratedModel, key: Key) -> float:
    """The largest value measured of a term; of a class that is missing there is none to exceed."""
    cost = latency_model.costs.get(key[0], {}).get(key[1])
    return math.inf if cost is None else cost.largest.get(key[2], 0.0)


def _by_points(model: bytes, latency_model: LatencyModel) -> Measurement:
    """Each operator takes the coefficients of the dtype that it runs in (see `is_extrapolated`)."""
    found = features(model)
    for dtype in found.layer_dtypes:
        if dtype not in latency_model.coefficients:
            known = ", ".join(latency_model.coefficients)
            raise AutocompressError(
                f"the latency model has no coefficients for {dtype} layers, only for {known}; measure with --host"
            )
    extrapolated = is_extrapolated(found, latency_model)
    errors = latency_model.leave_one_out
    return Measurement(
        latency_ms=latency_of(found, latency_model.coefficients),
        latency_source="modelled",
        latency_error=None if extrapolated else max(errors[dtype] for dtype in _dtypes_of(found)),
        extrapolated=extrapolated,
        runtime=latency_model.runtime.name,
        runtime_version=latency_model.runtime.version,
        threads=latency_model.runtime.threads,
    )


def latency_of(found: Features, coefficients: Mapping[str, Coefficients]) -> float:
    """Milliseconds by the model; operators in a dtype without coefficients take those of float32."""
    parts = [(part, coefficients.get(dtype, coefficients["float32"])) for dtype, part in found.by_dtype.items()]
    return math.fsum(
        each.ms_per_mmac * part.mmac + each.ms_per_mb * part.mb + each.ms_per_op * part.ops for part, each in parts
    )


def is_extrapolated(found: Features, latency_model: LatencyModel) -> bool:
    """Whether the model is asked for more than its points say: a feature lies outside the fitted points, an op has
    work that no term counts, or layers run in a dtype without an error of its own. Multiply-accumulates are
    compared with the points of the same dtype, bytes and operators with those of all dtypes of layers. Layers in
    dynamic range take the coefficients of float32, but no point is of such a network."""
    dtypes = _dtypes_of(found)
    points = [point for point in latency_model.fitted_to if point.dtype in dtypes]
    inside = [
        _between(found.total.mb, (p.mb for p in points)),
        _between(found.total.ops, (p.ops for p in points)),
    ]
    for dtype in dtypes:
        mmac = found.by_dtype.get(dtype, DtypeFeatures()).mmac
        inside.append(_between(mmac, (p.mmac for p in points if p.dtype == dtype)))
    known = set(dtypes) <= set(latency_model.leave_one_out) and not found.dynamic_layers
    return bool(found.uncounted) or not all(inside) or not known


def _dtypes_of(found: Features) -> tuple[str, ...]:
    """The dtypes that layers run in; a network without layers computes in float."""
    return found.layer_dtypes or ("float32",)


def _between(value: float, fitted: Iterable[float]) -> bool:
    values = sorted(fitted)
    return bool(values) and values[0] <= value <= values[-1]


def fit(points: Sequence[FittedPoint], shared: Coefficients | None = None) -> Coefficients:
    """The coefficients >= 0 with the least sum of squared relative errors over `points`, all of one dtype.

    `shared`: keep its ms_per_mb and ms_per_op and fit ms_per_mmac alone, for a dtype with too few points for
    three. AutocompressError with fewer points than coefficients."""
    from scipy.optimize import nnls

    wanted = 3 if shared is None else 1
    if len(points) < wanted:
        raise AutocompressError(f"{len(points)} points cannot fix {wanted} coefficients; give {wanted} or more")
    latency = np.array([point.latency_ms for point in points])
    relative = np.array([[point.mmac, point.mb, point.ops] for point in points]) / latency[:, None]
    if shared is None:
        per_mmac, per_mb, per_op = map(float, nnls(relative, np.ones(len(points)))[0])
    else:
        per_mb, per_op = shared.ms_per_mb, shared.ms_per_op
        rest = 1 - relative[:, 1:] @ (per_mb, per_op)
        per_mmac = float(nnls(relative[:, :1], rest)[0][0])
    return Coefficients(ms_per_mmac=per_mmac, ms_per_mb=per_mb, ms_per_op=per_op)


def fit_by_dtype(points: Sequence[FittedPoint]) -> dict[str, Coefficients]:
    """A fit of each dtype in `points`: all its own with four points or more, so that one can be left out;
    with fewer only ms_per_mmac, the rest shared with float32, which must have its own."""
    grouped = {dtype: [p for p in points if p.dtype == dtype] for dtype in sorted({p.dtype for p in points})}
    base = fit(grouped.pop("float32", []))
    return {"float32": base} | {dtype: fit(each, None if len(each) > 3 else base) for dtype, each in grouped.items()}


def leave_one_out(points: Sequence[FittedPoint], shared: Coefficients | None = None) -> tuple[float, ...]:
    """For each point, the relative error (predicted / latency - 1) of the fit to all the others."""
    errors = []
    for index, point in enumerate(points):
        fitted = fit([*points[:index], *points[index + 1 :]], shared)
        errors.append(latency_of_point(point, fitted) / point.latency_ms - 1)
    return tuple(errors)


def latency_of_point(point: FittedPoint, each: Coefficients) -> float:
    """Milliseconds that the coefficients give for a point's features."""
    return each.ms_per_mmac * point.mmac + each.ms_per_mb * point.mb + each.ms_per_op * point.ops


def energy_mj(latency_ms: float, profile: DeviceProfile) -> float | None:
    """Energy in millijoules: latency times the board's busy power; None where that is unknown."""
    if profile.power_w is None or profile.power_w.busy is None:
        return None
    return latency_ms * profile.power_w.busy
