"""What decides the latency of a file, and that it is measured once for all files that share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compression.template import quantize_plainly
from autocompress.errors import AutocompressError
from autocompress.latency.cache import PatternLatency
from autocompress.network.graph import trace
from autocompress.network.graph.kernel_pattern import kernel_pattern
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.measurement import Measurement
from autocompress.tasks import load_task
from tests.builders.tiny_models import dense_model, refused_model


def edited(model: bytes, edit: Callable[[Any], None]) -> bytes:
    tree = flatbuffer.read(model)
    edit(tree)
    return flatbuffer.write(tree)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_values_of_weights_do_not_count(first: int, second: int) -> None:
    assert kernel_pattern(dense_model(seed=first)) == kernel_pattern(dense_model(seed=second))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_sizes_count(inputs: int, outputs: int, batch: int) -> None:
    same = (inputs, outputs, batch) == (8, 4, 1)
    model = dense_model(inputs=inputs, outputs=outputs, batch=batch)
    assert (kernel_pattern(model) == kernel_pattern(dense_model())) == same


def test_types_options_and_constants_that_are_no_weights_count() -> None:
    network = load_task("digits").network
    plain = kernel_pattern(network)
    layers, inputs = layers_of(read_graph(network)), load_task("digits").x_calibration
    calibration = {i: inputs[name][:64] for name, i in Runner(network).input_indices.items()}
    ranges = trace.activation_ranges(network, calibration, 64, 1)
    assert kernel_pattern(quantize_plainly(network, layers, ranges)) != plain

    def other_stride(tree: Any) -> None:
        options = next(o.builtinOptions for o in tree.subgraphs[0].operators if hasattr(o.builtinOptions, "strideW"))
        options.strideW += 1

    assert kernel_pattern(edited(network, other_stride)) != plain

    def other_constants(tree: Any) -> None:
        weights = {i for layer in layers for i in (layer.weight, layer.bias)}
        for index, tensor in enumerate(tree.subgraphs[0].tensors):
            data = tree.buffers[tensor.buffer].data
            if data is not None and index not in weights:
                tree.buffers[tensor.buffer].data = np.asarray(data) ^ 1

    assert kernel_pattern(edited(network, other_constants)) != plain


def test_what_is_no_network_has_no_pattern() -> None:
    with pytest.raises(AutocompressError, match="TFLite"):
        kernel_pattern(refused_model())


class Counted:
    """A latency that says how often it was asked."""

    def __init__(self, doubtful: bool = False) -> None:
        self.asked: list[int] = []
        self.doubtful = doubtful

    def __call__(self, _: bytes, processes: int) -> Measurement:
        self.asked.append(processes)
        samples = tuple((float(len(self.asked)),) for _ in range(processes))
        return Measurement(
            latency_ms=float(len(self.asked)), latency_source="measured", samples_ms=samples, doubtful=self.doubtful
        )


def test_one_pattern_is_measured_once_and_again_for_more_processes() -> None:
    device = Counted()
    latency = PatternLatency(device)
    first = latency(dense_model(seed=1), 3)
    assert latency(dense_model(seed=2), 3) == first
    assert device.asked == [3]
    careful = latency(dense_model(seed=3), 5)
    assert device.asked == [3, 5]
    assert latency(dense_model(seed=1), 3) == careful
    latency(dense_model(inputs=9), 3)
    assert device.asked == [3, 5, 3]


def test_a_doubtful_measurement_is_not_kept() -> None:
    device = Counted(doubtful=True)
    latency = PatternLatency(device)
    assert latency(dense_model(), 3).doubtful
    latency(dense_model(), 3)
    assert device.asked == [3, 3]


def test_measurements_of_earlier_runs_are_taken_up() -> None:
    device = Counted()
    earlier = PatternLatency(Counted())(dense_model(), 3)
    latency = PatternLatency(device)
    latency.keep(earlier)
    latency.keep(dataclasses.replace(earlier, samples_ms=earlier.samples_ms[:1], latency_ms=9.0))
    latency.keep(Measurement(latency_ms=9.0, latency_source="measured"))
    assert latency(dense_model(), 3) == earlier
    assert device.asked == []
