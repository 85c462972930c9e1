"""Times of operators and outputs from the edge host: what the agent reads from the profiler, whose layer a kernel is,
and what becomes of crashes there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import CandidateError, DeviceError
from autocompress.evaluate.quality import device_accuracy
from autocompress.latency.host import agent, client, op_profile
from autocompress.latency.host.client import Host
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of, read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.measurement import OpTime
from autocompress.tasks import load_task
from tests.builders import networks
from tests.builders.arrays import Array
from tests.builders.edge_host import aarch64_python
from tests.builders.optional import present
from tests.builders.processes import Background, agent_pid, children, wait_for
from tests.builders.runtimes import BOTH, LITERT, TFLITE, needs_tflite
from tests.builders.tiny_models import crashing_model, dense_model, refused_model

DIGITS = load_task("digits")
MODEL = dense_model(inputs=128, outputs=64)


@pytest.fixture
def litert(command: list[str]) -> Iterator[Host]:
    with Host(command, runtime=LITERT, threads=1) as opened:
        yield opened


@pytest.fixture
def tflite(command: list[str]) -> Iterator[Host]:
    with Host(command, runtime=TFLITE, threads=1) as opened:
        yield opened


# Events of the profiler


def event(tag: str, kind: int, index: int = 0, us: int = 1) -> Any:
    return SimpleNamespace(tag=tag.encode(), kind=kind, index=index, elapsed_us=us)


# A graph is a list of builtin operators, some with a graph of their own inside (a WHILE), and delegates of n kernels.
GRAPH: st.SearchStrategy[list[Any]] = st.deferred(
    lambda: st.lists(
        st.tuples(st.just("builtin"), st.none() | GRAPH) | st.tuples(st.just("delegate"), st.integers(1, 3)), max_size=4
    )
)


def flat(graph: list[Any]) -> list[Any]:
    """The events of one inference of a graph."""
    events = [event("Invoke", agent.INVOKE, us=1000)]
    for index, (kind, inside) in enumerate(graph):
        if kind == "builtin":
            events.append(event("OP", agent.BUILTIN, index, us=7))
            events += flat(inside) if inside is not None else []
        else:
            events += [event("Kernel", agent.PROFILED_DELEGATE, n, us=3) for n in range(inside)]
    return [*events, event("Invoke", agent.END_OF_INVOKE, us=2**32)]


def expected(graph: list[Any]) -> list[tuple[str, str, int, int]]:
    keys, partition = [], -1
    for index, (kind, inside) in enumerate(graph):
        partition += kind == "delegate"
        if kind == "builtin":
            keys.append(("OP", "builtin", index, -1))
        else:
            keys += [("Kernel", "delegate", n, partition) for n in range(inside)]
    return keys


@given(GRAPH)
def test_the_main_graphs_operators_are_found_in_any_nesting(graph: list[Any]) -> None:
    around = [event("LiteRT::Run[buffer registration]", agent.INVOKE)]
    keys, times, whole = agent.ops_of([*around, *flat(graph), *around])
    assert keys == expected(graph)
    assert times == [7 if kind == "builtin" else 3 for _, kind, _, _ in keys]
    assert whole == 1000


@given(GRAPH, st.data())
def test_events_that_were_cut_off_are_no_inference(graph: list[Any], data: st.DataObject) -> None:
    events = flat(graph)
    with pytest.raises(agent.Refused, match="do not hold a whole inference"):
        agent.ops_of(events[: data.draw(st.integers(0, len(events) - 1))])


# Real networks


def test_each_layer_of_a_network_has_its_kernel(litert: Host) -> None:
    found = litert.profile(DIGITS.original)
    layers = layers_of(read_graph(DIGITS.original))
    assert found.reason is None
    assert [op.layer for op in present(found.ops) if op.layer] == [layer.name for layer in layers]
    assert all(op.op == layer.op for op, layer in zip([o for o in present(found.ops) if o.layer], layers, strict=True))
    assert found.runs >= agent.LEAST_RUNS
    assert 0 < present(found.sum_us) <= present(found.inference_us) * 1.5
    assert all(op.kind == "delegate" and op.partition == 0 for op in present(found.ops))


def test_builtin_operators_are_known_by_their_index(litert: Host) -> None:
    model = networks.load("two-inputs").network
    found = litert.profile(model)
    tree = flatbuffer.read(model)
    names = [flatbuffer.op_name(tree, operator) for operator in tree.subgraphs[0].operators]
    builtin = [op for op in present(found.ops) if op.kind == "builtin"]
    assert builtin
    assert all(names[op.index] == op.op for op in builtin)
    assert [op.layer for op in present(found.ops) if op.op == "TRANSPOSE_CONV"] == [
        "transpose_conv_0",
        "transpose_conv_1",
    ]
    assert {op.layer for op in present(found.ops) if op.layer} == {layer.name for layer in layers_of(graph_of(tree))}


def test_a_loop_is_one_operator(litert: Host) -> None:
    found = litert.profile(networks.load("recurrent-loop").network)
    (loop,) = [op for op in present(found.ops) if op.op == "WHILE"]
    assert loop.mean_us > 0.3 * present(found.sum_us)
    assert present(found.sum_us) < 1.5 * present(found.inference_us)


def test_what_the_profiler_refuses_is_said(litert: Host) -> None:
    """LiteRT's compiled models do not take variable tensors; the interpreter does."""
    model = networks.load("recurrent-fused").network
    found = litert.profile(model)
    assert found.ops is None
    assert "the profiler of ai-edge-litert" in present(found.reason)
    assert present(litert.measure(model, processes=1).latency_ms) > 0


@needs_tflite
def test_tflite_runtime_tells_none(tflite: Host) -> None:
    found = tflite.profile(MODEL)
    assert (found.ops, found.reason) == (None, "tflite-runtime gives no per-op times")


def test_kernels_that_do_not_fit_the_layers_stay_unnamed() -> None:
    model = DIGITS.original
    layers = [operator for operator, _ in read_graph(model).weighted]
    kinds = {"CONV_2D": "Convolution (NHWC, F32) IGEMM", "DEPTHWISE_CONV_2D": "Convolution (NHWC, F32) DWConv"}
    ops = [
        OpTime(
            kernel=kinds.get(layer.op, "Fully Connected (NC, F32) GEMM"),
            kind="delegate",
            index=n,
            partition=0,
            median_us=1.0,
            mean_us=1.0,
        )
        for n, layer in enumerate(layers)
    ]
    mapped, reason = op_profile.with_layers(ops, model)
    assert reason is None
    assert [op.layer for op in mapped] == [layer.name for layer in layers]
    for wrong in (ops[:-1], [*ops, ops[-1]], [replace(ops[0], kernel="Deconvolution (NHWC, F32)"), *ops[1:]]):
        mapped, reason = op_profile.with_layers(wrong, model)
        assert "which is whose is not known" in present(reason)
        assert all(op.layer is None for op in mapped)


def test_layers_are_known_in_quantized_files_too() -> None:
    """Packed 4-bit weights, and weights behind a DEQUANTIZE."""
    tree = flatbuffer.read(dense_model())
    weights = tree.subgraphs[0].tensors[1]
    weights.type = schema.TensorType.INT4
    tree.buffers[weights.buffer].data = np.zeros(16, np.uint8)
    assert [layer.name for layer, _ in graph_of(tree).weighted] == ["fully_connected_0"]
    tree.buffers[weights.buffer].data = None  # computed: no layer
    assert graph_of(tree).weighted == ()
    half = networks.load("foreign-float16").network
    names = {layer.name for layer in layers_of(read_graph(flatbuffer.normalise(half)))}
    assert {layer.name for layer, _ in read_graph(half).weighted} == names


@pytest.mark.parametrize(
    ("number", "deadline_s", "reason"),
    [(signal.SIGSEGV, 60.0, "killed by SIGSEGV"), (signal.SIGSTOP, 1.5, r"deadline of 1.5 s")],
    ids=["crash", "hang"],
)
def test_a_profiler_that_dies_takes_nothing_with_it(litert: Host, number: int, deadline_s: float, reason: str) -> None:
    pid = agent_pid()
    background = Background(lambda: litert.profile(MODEL, min_run_s=60.0, deadline_s=deadline_s))
    os.kill(wait_for(lambda: children(pid))[0], number)
    found = background.result()
    assert found.ops is None
    assert reason in found.reason
    assert present(litert.measure(MODEL, processes=1).latency_ms) > 0
    assert agent_pid() == pid
    assert not children(pid)


def test_a_version_without_a_profiler_is_said(tmp_path: Path) -> None:
    module = SimpleNamespace(__file__=str(tmp_path / "interpreter.py"))
    job = {"threads": 1, "warmup_s": 0.0, "warmup_runs": 1, "min_run_s": 0.1}
    with pytest.raises(agent.Refused, match="has no profiler"):
        agent.profile_here(job, str(tmp_path / "model.tflite"), module)


# Outputs


@pytest.mark.parametrize("runtime", BOTH)
def test_outputs_are_those_of_the_runtime_here(
    command: list[str], runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_SAMPLES_AT_ONCE", 37)  # so it takes some pieces
    x = DIGITS.x_test
    with Host(command, runtime=runtime, threads=1) as opened:
        (found,) = opened.outputs(DIGITS.original, list(x.values()))
    here = Runner(DIGITS.original).run(x)
    assert found.shape == here.shape
    assert found.dtype == here.dtype
    np.testing.assert_allclose(found, here, atol=1e-5)


def test_several_inputs_and_a_fixed_batch(litert: Host) -> None:
    network = networks.load("two-inputs")
    x = {key.split(".")[1]: value for key, value in network.data.items() if key.startswith("x_test.")}
    runner = Runner(network.network)
    (found,) = litert.outputs(network.network, [x[spec.name] for spec in runner.inputs])
    np.testing.assert_allclose(found, runner.run(x), atol=1e-5)
    rows = np.random.default_rng(0).standard_normal((10, 8)).astype(np.float32)
    (fixed,) = litert.outputs(dense_model(batch=4), [rows])
    (alone,) = litert.outputs(dense_model(batch=1), [rows])
    np.testing.assert_allclose(fixed, alone, atol=1e-5)


def test_outputs_stop_where_a_frame_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert import interpreter

    path, rows = tmp_path / "model.tflite", np.ones((9, 8), np.float32)
    path.write_bytes(dense_model(batch=2))
    monkeypatch.setattr(agent, "PIECE_BYTES", 40)  # a batch of 2 takes 32
    job = {"threads": 1, "inputs": [{"dtype": "<f4", "shape": (9, 8)}]}
    answer, body = agent.outputs_here(job, rows.tobytes(), str(path), interpreter)
    assert answer["samples"] == 4
    assert answer["outputs"] == [{"dtype": "<f4", "shape": (4, 4)}]
    assert len(body) == 64


def test_outputs_of_an_aarch64_board() -> None:
    """Its kernels are others: outputs are close, and the accuracy is that of those outputs."""
    x = next(iter(DIGITS.x_test.values()))
    with Host(aarch64_python(), runtime=TFLITE, threads=1) as opened:
        assert opened.facts["machine"] == "aarch64"
        (found,) = opened.outputs(DIGITS.original, [x])
    here, y = Runner(DIGITS.original).run(DIGITS.x_test), present(DIGITS.y_test)
    np.testing.assert_allclose(found, here, atol=1e-4)
    judged = device_accuracy(DIGITS.metric, found, y, x, kernels="board", here=here)
    assert judged.value == DIGITS.metric.value(found, y, x)
    assert judged.predictions_differ == np.count_nonzero(found.argmax(1) != here.argmax(1))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([np.zeros((3, 8), np.int8)], "INT8.*FLOAT32|Got value of type"),
        ([np.zeros((3, 8), np.float32)] * 2, "2 inputs are given, the model has 1"),
        ([np.zeros((3, 9), np.float32)], "[Dd]imension"),
    ],
    ids=["dtype", "count", "shape"],
)
def test_inputs_that_do_not_fit(litert: Host, inputs: list[Array], reason: str) -> None:
    with pytest.raises(CandidateError, match=reason):
        litert.outputs(dense_model(), inputs)
    assert litert.outputs(dense_model(), [np.zeros((3, 8), np.float32)])[0].shape == (3, 4)


@needs_tflite
def test_a_crash_while_giving_outputs_is_that_files_failure(tflite: Host) -> None:
    rows = np.zeros((3, 8), np.float32)
    with pytest.raises(CandidateError, match=r"tflite-runtime 2\.14\.0: killed by SIGSEGV"):
        tflite.outputs(crashing_model(), [rows])
    with pytest.raises(CandidateError, match=r"Flatbuffer|identifier"):
        tflite.outputs(refused_model(), [rows])
    assert tflite.outputs(dense_model(), [rows])[0].shape == (3, 4)


def test_outputs_end_at_their_deadline(litert: Host) -> None:
    with pytest.raises(CandidateError, match=r"deadline of 0\.001 s"):
        litert.outputs(DIGITS.original, list(DIGITS.x_test.values()), deadline_s=0.001)


def test_a_closed_host_gives_neither(command: list[str]) -> None:
    with Host(command, runtime=LITERT, threads=1) as opened:
        pass
    with pytest.raises(DeviceError, match="closed"):
        opened.profile(MODEL)
    with pytest.raises(DeviceError, match="closed"):
        opened.outputs(MODEL, [np.zeros((1, 128), np.float32)])
