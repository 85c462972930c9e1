"""The latency model: what it counts in a flatbuffer, how it is fitted, and what it says of its own reach."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression.template import pattern_file
from autocompress.errors import AutocompressError
from autocompress.latency.model import predict
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import read_graph
from autocompress.specs import Coefficients, FittedPoint, LatencyModel, LatencyRuntime, load_device

BYTES = {"FLOAT32": 4.0, "FLOAT16": 2.0, "INT8": 1.0, "UINT8": 1.0, "INT16": 2.0, "INT4": 0.5, "INT32": 4.0}


class Network:
    """A `.tflite` put together operator by operator; nothing in it needs to run."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, kind: str, *shape: int, constant: bool = False) -> int:
        tensor = schema.TensorT()
        tensor.name = f"t{len(self.graph.tensors)}"
        tensor.shape = list(shape)
        tensor.type = getattr(schema.TensorType, kind)
        tensor.buffer = 0
        if constant:
            buffer = schema.BufferT()
            buffer.data = np.zeros(math.ceil(math.prod(shape) * BYTES[kind]) or 1, np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, name: str, inputs: list[int], output: int, *, deprecated: bool = False) -> None:
        code = schema.OperatorCodeT()
        number = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(number, 127)
        code.builtinCode = 0 if deprecated else number
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, [output]
        self.graph.operators.append(operator)

    def layer(self, name: str, x: int, weight: tuple[str, tuple[int, ...]], output: int) -> None:
        self.op(name, [x, self.tensor(weight[0], *weight[1], constant=True), -1], output)

    def pack(self) -> bytes:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def small(weights: str = "FLOAT32", activations: str = "FLOAT32") -> bytes:
    """CONV_2D, RESHAPE, FULLY_CONNECTED."""
    network = Network()
    x = network.tensor(activations, 1, 8, 8, 3)
    y = network.tensor(activations, 1, 4, 4, 5)
    flat = network.tensor(activations, 1, 80)
    z = network.tensor(activations, 1, 10)
    network.layer("CONV_2D", x, (weights, (5, 3, 3, 3)), y)
    network.op("RESHAPE", [y, network.tensor("INT32", 2, constant=True)], flat)
    network.layer("FULLY_CONNECTED", flat, (weights, (10, 80)), z)
    return network.pack()


CONV_MACS, DENSE_MACS = 4 * 4 * 5 * 27, 800
VALUES = (8 * 8 * 3) + (4 * 4 * 5) + 80 + 10
WEIGHTS = 5 * 27 + 800


def test_the_features_of_a_small_network() -> None:
    found = predict.features(small())
    total = found.total
    assert (total.macs, total.ops, total.layers) == (CONV_MACS + DENSE_MACS, 3, 2)
    assert total.moved_bytes == 4 * (VALUES + WEIGHTS)
    assert (total.mmac, total.mb) == (total.macs / 1e6, total.moved_bytes / 1e6)
    assert found.layer_dtypes == ("float32",)
    assert found.uncounted == ()


def test_dynamic_range_weights_count_at_their_stored_width_and_run_as_float() -> None:
    found = predict.features(small(weights="INT8"))
    assert found.layer_dtypes == ("float32",)
    assert found.total.moved_bytes == 4 * VALUES + WEIGHTS
    assert predict.features(small(weights="INT4")).total.moved_bytes == 4 * VALUES + WEIGHTS / 2


def test_static_int8_is_counted_apart() -> None:
    found = predict.features(small("INT8", "INT8"))
    assert found.layer_dtypes == ("int8",)
    assert found.total.moved_bytes == VALUES + WEIGHTS


def test_a_depthwise_convolution_counts_by_its_bytes() -> None:
    network = Network()
    x, y = network.tensor("FLOAT32", 1, 6, 6, 4), network.tensor("FLOAT32", 1, 6, 6, 4)
    network.layer("DEPTHWISE_CONV_2D", x, ("FLOAT32", (1, 3, 3, 4)), y)
    total = predict.features(network.pack()).total
    assert (total.macs, total.moved_bytes, total.ops) == (0, 4 * (144 + 144 + 36), 1)


def test_a_transposed_convolution_counts_every_product() -> None:
    network = Network()
    x, y = network.tensor("FLOAT32", 1, 5, 5, 3), network.tensor("FLOAT32", 1, 10, 10, 4)
    shape = network.tensor("INT32", 4, constant=True)
    weight = network.tensor("FLOAT32", 4, 3, 3, 3, constant=True)  # outputs, height, width, inputs
    network.op("TRANSPOSE_CONV", [shape, weight, x], y, deprecated=True)
    found = predict.features(network.pack())
    assert found.layer_dtypes == ("float32",)
    assert found.total.macs == 5 * 5 * 3 * (4 * 3 * 3)
    assert found.total.moved_bytes == 4 * (75 + 400 + 108)


def test_a_float16_file_costs_what_its_float32_twin_costs() -> None:
    network = Network()
    x, y = network.tensor("FLOAT32", 1, 8, 8, 3), network.tensor("FLOAT32", 1, 4, 4, 5)
    stored, weight = (
        network.tensor("FLOAT16", 5, 3, 3, 3, constant=True),
        network.tensor("FLOAT32", 5, 3, 3, 3),
    )
    network.op("DEQUANTIZE", [stored], weight)
    network.op("CONV_2D", [x, weight, -1], y)
    total = predict.features(network.pack()).total
    assert (total.ops, total.layers, total.macs) == (1, 1, CONV_MACS)
    assert total.moved_bytes == 4 * (192 + 80 + 135)


def test_quantize_and_dequantize_of_activations_count() -> None:
    network = Network()
    x, q, y = (network.tensor(kind, 1, 100) for kind in ("FLOAT32", "INT8", "FLOAT32"))
    network.op("QUANTIZE", [x], q)
    network.op("DEQUANTIZE", [q], y)
    total = predict.features(network.pack()).total
    assert (total.ops, total.moved_bytes, total.layers) == (2, 2 * (400 + 100), 0)


def test_work_that_no_term_counts_is_named() -> None:
    network = Network()
    a, b, y = (network.tensor("FLOAT32", 8, 8) for _ in range(3))
    network.op("BATCH_MATMUL", [a, b], y)
    network.op("CUSTOM", [y], network.tensor("FLOAT32", 8))
    assert predict.features(network.pack()).uncounted == ("BATCH_MATMUL", "CUSTOM")


kinds = st.sampled_from(["FLOAT32", "INT8", "INT16"])
sizes = st.integers(1, 6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["CONV_2D", "FULLY_CONNECTED", "ADD"]), kinds, kinds, sizes, sizes)))
def test_totals_are_sums_over_operators(rows: list[tuple[str, str, str, int, int]]) -> None:
    network, macs, moved = Network(), 0, 0.0
    for op, kind, weights, size, outputs in rows:
        x, y = network.tensor(kind, 1, size, size, 3), network.tensor(kind, 1, size, size, outputs)
        moved += BYTES[kind] * size * size * (3 + outputs)
        if op == "ADD":
            network.op(op, [x, x], y)
            continue
        network.layer(op, x, (weights, (outputs, 1, 1, 3)), y)
        macs += sum(3 for _ in range(size * size * outputs))
        moved += BYTES[weights] * outputs * 3
    found = predict.features(network.pack())
    assert (found.total.macs, found.total.ops) == (macs, len(rows))
    assert found.total.moved_bytes == moved
    assert set(found.layer_dtypes) == {
        {"FLOAT32": "float32"}.get(kind, kind.lower()) for op, kind, *_ in rows if op != "ADD"
    }


@pytest.mark.parametrize("model", [b"", b"not a network at all", b"\x10\x00\x00\x00TFL3", small()[:200]])
def test_bytes_that_are_no_network(model: bytes) -> None:
    with pytest.raises(AutocompressError, match="TFLite file"):
        predict.features(model)


@settings(deadline=None)
@given(st.integers(8, 2000), st.lists(st.tuples(st.integers(8, 2000), st.integers(0, 255)), max_size=20))
def test_a_damaged_file_is_counted_or_refused(length: int, changes: list[tuple[int, int]]) -> None:
    model = bytearray(small()[:length])
    for position, value in changes:
        if position < len(model):
            model[position] = value
    with contextlib.suppress(AutocompressError):  # anything else fails the test
        assert predict.features(bytes(model)).total.ops >= 0


# Fitting

coefficients = st.builds(
    Coefficients,
    ms_per_mmac=st.floats(0.001, 1),
    ms_per_mb=st.floats(0.001, 1),
    ms_per_op=st.floats(0.001, 1),
)
SHAPES = ((550.0, 58.0, 34), (280.0, 70.0, 65), (200.0, 80.0, 122), (50.0, 32.0, 109), (10.0, 3.0, 20))


def points_of(each: Coefficients, dtype: str = "float32", noise: tuple[float, ...] = (0.0,) * 5) -> list[FittedPoint]:
    points = []
    for (mmac, mb, ops), relative in zip(SHAPES, noise, strict=True):
        point = FittedPoint(model="m", dtype=dtype, mmac=mmac, mb=mb, ops=ops, latency_ms=1.0, source="drawn")
        latency = predict.latency_of_point(point, each) * (1 + relative)
        points.append(replace(point, latency_ms=latency))
    return points


@settings(deadline=None)
@given(coefficients)
def test_a_fit_recovers_known_coefficients(each: Coefficients) -> None:
    points = points_of(each)
    assert vars(predict.fit(points)) == pytest.approx(vars(each), rel=1e-6, abs=1e-9)
    assert predict.leave_one_out(points) == pytest.approx([0.0] * 5, abs=1e-6)


@settings(deadline=None)
@given(coefficients, coefficients)
def test_a_dtype_with_few_points_shares_bytes_and_operators(float32: Coefficients, other: Coefficients) -> None:
    int8 = replace(float32, ms_per_mmac=other.ms_per_mmac)
    fitted = predict.fit_by_dtype(points_of(float32) + points_of(int8, "int8")[:2])
    assert vars(fitted["int8"]) == pytest.approx(vars(int8), rel=1e-5, abs=1e-9)
    own = predict.fit_by_dtype(points_of(float32) + points_of(other, "int8"))
    assert vars(own["int8"]) == pytest.approx(vars(other), rel=1e-5, abs=1e-9)


noises = st.tuples(*[st.floats(-0.2, 0.2)] * 5)


@settings(deadline=None)
@given(coefficients, noises)
def test_a_fit_has_no_negative_coefficient_and_no_better_neighbour(
    each: Coefficients, noise: tuple[float, ...]
) -> None:
    points = points_of(each, noise=noise)
    best = predict.fit(points)

    def loss(tried: Coefficients) -> float:
        return sum((predict.latency_of_point(p, tried) / p.latency_ms - 1) ** 2 for p in points)

    for name, value in vars(best).items():
        assert value >= 0
        for step in (-0.01, 0.01):
            moved = replace(best, **{name: max(0.0, value + step * getattr(each, name))})
            assert loss(moved) >= loss(best) - 1e-9


@settings(deadline=None)
@given(coefficients, noises)
def test_leave_one_out_fits_without_the_point(each: Coefficients, noise: tuple[float, ...]) -> None:
    points = points_of(each, noise=noise)
    errors = predict.leave_one_out(points)
    for index, point in enumerate(points):
        others = [other for other in points if other is not point]
        predicted = predict.latency_of_point(point, predict.fit(others))
        assert errors[index] == pytest.approx(predicted / point.latency_ms - 1, abs=1e-9)


def test_too_few_points_are_refused() -> None:
    points = points_of(Coefficients(ms_per_mmac=1, ms_per_mb=1, ms_per_op=1))
    with pytest.raises(AutocompressError, match="2 points cannot fix 3 coefficients"):
        predict.fit(points[:2])
    with pytest.raises(AutocompressError, match="0 points cannot fix 3 coefficients"):
        predict.fit_by_dtype([replace(points[0], dtype="int8")])
    assert predict.fit(points[:1], shared=predict.fit(points)).ms_per_mmac == pytest.approx(1)


# Predicting


def latency_model(**changes: Any) -> LatencyModel:
    """A model that a network like `small` lies inside of, in float32 and int8."""
    low = FittedPoint(model="a", dtype="float32", mmac=0.0, mb=0.0, ops=1, latency_ms=1.0, source="drawn")
    high = replace(low, mmac=1.0, mb=1.0, ops=10)
    each = Coefficients(ms_per_mmac=8.0, ms_per_mb=4.0, ms_per_op=0.5)
    values: dict[str, Any] = {
        "runtime": LatencyRuntime(name="xnnpack", version="7", threads=4),
        "fitted_to": (low, high, replace(low, dtype="int8"), replace(high, dtype="int8")),
        "coefficients": {"float32": each, "int8": replace(each, ms_per_mmac=2.0)},
        "leave_one_out": {"float32": 0.03, "int8": 0.05},
    }
    return LatencyModel(**values | changes)


def test_a_prediction_carries_its_source_error_and_runtime() -> None:
    measurement = predict.predict(small(), latency_model())
    macs, moved = CONV_MACS + DENSE_MACS, 4 * (VALUES + WEIGHTS)
    assert measurement.latency_ms == pytest.approx(8 * macs / 1e6 + 4 * moved / 1e6 + 0.5 * 3)
    assert (measurement.latency_source, measurement.latency_error) == ("modelled", 0.03)
    assert (measurement.runtime, measurement.runtime_version, measurement.threads) == ("xnnpack", "7", 4)
    assert (measurement.peak_memory_bytes, measurement.latency_ci_ms) == (None, None)
    assert not measurement.extrapolated


def test_only_static_int8_takes_the_coefficients_of_int8() -> None:
    model = latency_model()
    macs = (CONV_MACS + DENSE_MACS) / 1e6
    static = predict.predict(small("INT8", "INT8"), model).latency_ms
    dynamic = predict.predict(small("INT8", "FLOAT32"), model).latency_ms
    assert static == pytest.approx(2 * macs + 4 * (VALUES + WEIGHTS) / 1e6 + 1.5)
    assert dynamic == pytest.approx(8 * macs + 4 * (4 * VALUES + WEIGHTS) / 1e6 + 1.5)


@pytest.mark.parametrize("feature", ["mmac", "mb", "ops"])
def test_a_feature_outside_the_points_is_extrapolated(feature: str) -> None:
    narrow = {"mmac": 0.001, "mb": 0.001, "ops": 2}[feature]
    points = tuple(
        replace(point, **{feature: min(getattr(point, feature), narrow)}) for point in latency_model().fitted_to
    )
    assert predict.predict(small(), latency_model(fitted_to=points)).extrapolated


def test_a_dtype_without_an_error_of_its_own_is_extrapolated() -> None:
    model = latency_model(leave_one_out={"float32": 0.03})
    assert not predict.predict(small(), model).extrapolated
    assert predict.predict(small("INT8", "INT8"), model).extrapolated


def test_each_dtype_has_its_own_error_and_a_mixed_network_the_largest() -> None:
    model = latency_model()
    assert predict.predict(small("INT8", "INT8"), model).latency_error == 0.05
    network = Network()
    x, y = network.tensor("INT8", 1, 8, 8, 3), network.tensor("INT8", 1, 1, 1, 5)
    flat, z = network.tensor("FLOAT32", 1, 1, 1, 5), network.tensor("FLOAT32", 1, 10)
    network.layer("CONV_2D", x, ("INT8", (5, 8, 8, 3)), y)
    network.op("DEQUANTIZE", [y], flat)
    network.layer("FULLY_CONNECTED", flat, ("FLOAT32", (10, 5)), z)
    mixed = network.pack()
    assert set(predict.features(mixed).layer_dtypes) == {"float32", "int8"}
    assert predict.predict(mixed, model).latency_error == 0.05
    turned = replace(model, leave_one_out={"float32": 0.07, "int8": 0.05})
    assert predict.predict(mixed, turned).latency_error == 0.07


def test_dynamic_range_is_like_no_point_and_unpacked_weights_are_like_float() -> None:
    model = latency_model()
    dynamic = predict.predict(small("INT8", "FLOAT32"), model)
    assert dynamic.extrapolated
    assert dynamic.latency_error is None
    net = NetworkBuilder((1, 4, 4, 3))
    network = net.finish(net.depthwise(net.input))
    layers = layers_of(read_graph(network))
    float_ms = predict.predict(network, model).latency_ms
    unpacked = predict.predict(pattern_file(network, layers, [8], "float32", None, {layers[0].name}), model)
    assert (unpacked.latency_ms, unpacked.latency_error, unpacked.extrapolated) == (float_ms, 0.03, False)
    assert predict.predict(pattern_file(network, layers, [8], "float32", None), model).extrapolated


def test_layers_in_a_dtype_without_coefficients_are_refused() -> None:
    with pytest.raises(AutocompressError, match=r"no coefficients for int16 layers, only for float32, int8; measure"):
        predict.predict(small("INT8", "INT16"), latency_model())


def test_on_the_raspberry_pi_4_a_small_network_is_extrapolated() -> None:
    model = load_device("rpi4").latency_model
    assert model is not None
    measurement = predict.predict(small(), model)
    assert measurement.extrapolated
    assert measurement.latency_error is None
