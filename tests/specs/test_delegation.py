"""The table of kernels outside the delegate, against the runtimes that are installed."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from autocompress.devices.probe import PAIRS
from autocompress.errors import CandidateError
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite.graph import LAYER_OPS, read_graph
from autocompress.specs.delegation import NOT_DELEGATED, PROBED


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return importlib.import_module("benchmarks.latency.delegation")


def test_the_tables_are_of_layers_and_kernels_that_are_tried() -> None:
    assert set(NOT_DELEGATED) == set(PROBED)
    for table in NOT_DELEGATED.values():
        assert set(table) <= set(LAYER_OPS)
        assert {kernel for kernels in table.values() for kernel in kernels} <= set(PAIRS)


@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"])
@pytest.mark.parametrize("runtime", sorted(PROBED))
def test_the_runtimes_here_delegate_what_the_table_says(script: ModuleType, runtime: str, op: str) -> None:
    pytest.importorskip(script.MODULES[runtime], reason=f"{runtime} has no wheel for this Python")
    (network,) = [
        network for size, network in script.networks() if size == "small" and layers_of(read_graph(network))[0].op == op
    ]
    kernels = {(32, "float32"), (8, "float32"), (8, "int8"), (8, "int16"), (8, "weight_only")}
    kernels |= {(4, "float32")} if op == "CONV_2D" else set()
    kernels -= {(8, "float32")} if (runtime, op) == ("tflite-runtime", "TRANSPOSE_CONV") else set()  # refused there
    layers, asked = layers_of(read_graph(network)), sorted(kernels)
    files = [script.candidate(network, layers, *kernel) for kernel in asked]
    found = dict(zip(asked, script.are_delegated(runtime, files, op), strict=True))
    assert script.differences(runtime, {op: found}) == []
    assert found[32, "float32"]


def test_a_difference_is_named(script: ModuleType) -> None:
    found = {"DEPTHWISE_CONV_2D": {(8, "float32"): True, (8, "int8"): True}}
    assert script.differences("ai-edge-litert", found) == ["DEPTHWISE_CONV_2D (8, 'float32'): the table says built-in"]
    with pytest.raises(CandidateError):
        script.candidate(*_depthwise(script), 4, "float32")


def _depthwise(script: ModuleType) -> tuple[bytes, object]:
    networks = [network for _, network in script.networks()]
    return networks[1], layers_of(read_graph(networks[1]))
