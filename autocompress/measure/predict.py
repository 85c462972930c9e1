"""Latency without the device: a * MMAC + b * MB + c * ops, fitted to points that a device profile carries.

What is counted, for each operator of the main graph:
- MMAC: millions of multiply-accumulates of CONV_2D, FULLY_CONNECTED and TRANSPOSE_CONV; a depthwise
  convolution is bound by memory and counts by its bytes.
- MB: bytes / 1e6 of the first activation input, the first output and the layer's weights at their stored
  width; RESHAPE moves nothing.
- ops: 1.
A DEQUANTIZE or DENSIFY of a constant is done once, when the file is loaded: it counts nothing, and the layer
behind it reads the expanded weights. So a float16 file costs what its float32 twin costs, as it does on CPUs
without float16 arithmetic."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.records import Measurement
from autocompress.specs import Coefficients, DeviceProfile, FittedPoint, LatencyModel

_DENSE_OPS = ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_LAYER_OPS = (*_DENSE_OPS, "DEPTHWISE_CONV_2D")
_ONCE_OPS = ("DEQUANTIZE", "DENSIFY")
_UNKNOWN_OP = "UNKNOWN"
# Their work is in none of the three terms.
_UNCOUNTED_OPS = (
    "BATCH_MATMUL", "CONV_3D", "CONV_3D_TRANSPOSE", "SVDF", "RNN", "LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM",
    "WHILE", "IF", "CALL", "CALL_ONCE", "CUSTOM", _UNKNOWN_OP,
)  # fmt: skip
_BITS = {
    "FLOAT32": 32, "FLOAT16": 16, "BFLOAT16": 16, "FLOAT64": 64, "INT2": 2, "INT4": 4, "INT8": 8, "UINT8": 8,
    "INT16": 16, "UINT16": 16, "INT32": 32, "UINT32": 32, "INT64": 64, "UINT64": 64, "BOOL": 8,
    "COMPLEX64": 64, "COMPLEX128": 128,
}  # fmt: skip
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
    weights too), int8, int16 or uint8. `uncounted`: ops whose work no term counts."""

    by_dtype: Mapping[str, DtypeFeatures]
    uncounted: tuple[str, ...] = ()

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
    if bytes(model[4:8]) != b"TFL3":
        raise AutocompressError("the model is not a TFLite file (no identifier TFL3); give a .tflite")
    try:
        return _Reader(model).features()
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as fault:
        raise AutocompressError(
            f"the TFLite file is truncated or damaged ({type(fault).__name__}); copy it again"
        ) from fault


class _Reader:
    """Reads the main graph through the accessors of the schema: no object tree, no copy of a weight."""

    def __init__(self, model: bytes) -> None:
        from ai_edge_litert.schema_py_generated import BuiltinOperator, Model, TensorType

        self.model = Model.GetRootAs(model, 0)
        if self.model.SubgraphsLength() == 0:
            raise AutocompressError("the TFLite file has no graph; give a whole network")
        self.graph = self.model.Subgraphs(0)
        self.type_names = {number: name for name, number in vars(TensorType).items() if isinstance(number, int)}
        op_names = {number: name for name, number in vars(BuiltinOperator).items() if isinstance(number, int)}
        codes = map(self.model.OperatorCodes, range(self.model.OperatorCodesLength()))
        self.ops = [op_names.get(_builtin_code(code), _UNKNOWN_OP) for code in codes]
        self.tensors: dict[int, tuple[str, tuple[int, ...]]] = {}

    def features(self) -> Features:
        by_dtype: dict[str, DtypeFeatures] = {}
        uncounted = set()
        for operator in map(self.graph.Operators, range(self.graph.OperatorsLength())):
            op = self.ops[operator.OpcodeIndex()]
            inputs = [] if operator.InputsIsNone() else operator.InputsAsNumpy().tolist()
            output = operator.Outputs(0) if operator.OutputsLength() else -1
            if op in _ONCE_OPS and self._is_constant(inputs[0]):
                continue
            if op in _UNCOUNTED_OPS:
                uncounted.add(op)
            dtype = self._dtype(op, inputs)
            by_dtype[dtype] = by_dtype.get(dtype, DtypeFeatures()) + self._count(op, inputs, output)
        return Features(by_dtype=dict(sorted(by_dtype.items())), uncounted=tuple(sorted(uncounted)))

    def _dtype(self, op: str, inputs: list[int]) -> str:
        dtype = _DTYPES.get(self._tensor(_first(op, inputs))[0], "float32")
        # Bytes that are no layer's input are an image on its way to float or int8.
        return "float32" if dtype == "uint8" and op not in _LAYER_OPS else dtype

    def _count(self, op: str, inputs: list[int], output: int) -> DtypeFeatures:
        moved = 0 if op == "RESHAPE" else self._bits(_first(op, inputs)) + self._bits(output)
        if op in _LAYER_OPS:
            moved += self._bits(inputs[1])
        macs = self._macs(op, inputs, output) if op in _DENSE_OPS else 0
        return DtypeFeatures(macs=macs, moved_bytes=moved / 8, ops=1, layers=int(op in _LAYER_OPS))

    def _macs(self, op: str, inputs: list[int], output: int) -> int:
        weight = self._tensor(inputs[1])[1]
        if op == "TRANSPOSE_CONV":  # each input value meets each output channel at each kernel position
            return math.prod(self._tensor(inputs[2])[1]) * math.prod(weight[:-1])
        return math.prod(self._tensor(output)[1]) * math.prod(weight[1:])

    def _bits(self, index: int) -> int:
        kind, shape = self._tensor(index)
        return math.prod(shape) * _BITS.get(kind, 0)

    def _tensor(self, index: int) -> tuple[str, tuple[int, ...]]:
        """Type and shape of a tensor, an unknown dimension as 1; of an input that is left out, nothing."""
        if index < 0:
            return "", (0,)
        if index not in self.tensors:
            tensor = self.graph.Tensors(index)
            shape = () if tensor.ShapeIsNone() else np.abs(tensor.ShapeAsNumpy()).tolist()
            self.tensors[index] = self.type_names.get(tensor.Type(), ""), tuple(shape)
        return self.tensors[index]

    def _is_constant(self, index: int) -> bool:
        buffer = self.model.Buffers(self.graph.Tensors(index).Buffer())
        return bool(buffer.DataLength() > 0 or buffer.Offset() > 1)  # Offset: data behind the flatbuffer


def _builtin_code(code: Any) -> int:
    return max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode()))  # old files fill only the latter


def _first(op: str, inputs: list[int]) -> int:
    """The first activation input; of a TRANSPOSE_CONV the first input is its output shape."""
    return inputs[2] if op == "TRANSPOSE_CONV" else next(iter(inputs), -1)


def predict(model: bytes, latency_model: LatencyModel) -> Measurement:
    """The modelled latency of a `.tflite`: each operator takes the coefficients of the dtype that it runs in.

    `latency_error` is the largest leave-one-out error that the latency model has. `extrapolated` is set where
    a feature lies outside the fitted points, an op has work that no term counts, or layers run in a dtype
    without an error of its own. AutocompressError where layers run in a dtype without coefficients."""
    found = features(model)
    for dtype in found.layer_dtypes:
        if dtype not in latency_model.coefficients:
            known = ", ".join(latency_model.coefficients)
            raise AutocompressError(
                f"the latency model has no coefficients for {dtype} layers, only for {known}; measure with --host"
            )
    return Measurement(
        latency_ms=latency_of(found, latency_model.coefficients),
        latency_source="modelled",
        latency_error=max(latency_model.leave_one_out.values()),
        extrapolated=is_extrapolated(found, latency_model),
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
    """Whether the model is asked for more than its points say (see `predict`): multiply-accumulates are
    compared with the points of the same dtype, bytes and operators with those of all dtypes of layers."""
    dtypes = found.layer_dtypes or ("float32",)
    points = [point for point in latency_model.fitted_to if point.dtype in dtypes]
    inside = [
        _between(found.total.mb, (p.mb for p in points)),
        _between(found.total.ops, (p.ops for p in points)),
    ]
    for dtype in dtypes:
        mmac = found.by_dtype.get(dtype, DtypeFeatures()).mmac
        inside.append(_between(mmac, (p.mmac for p in points if p.dtype == dtype)))
    return bool(found.uncounted) or not all(inside) or not set(dtypes) <= set(latency_model.leave_one_out)


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
