"""Weights stored sparse, blocks of outputs, and the networks that XNNPACK runs with sparse kernels: on the real
runtimes, also on a processor without AVX, which qemu plays."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression import solve as sv
from autocompress.compression.build import Builder, read_layers
from autocompress.compression.download import download_bytes
from autocompress.compression.reconstruct import Reconstruction, SolvedLayer
from autocompress.compression.solve import Problem
from autocompress.compression.sparse_storage import SparseStorage
from autocompress.compression.zero_pattern import ZeroPattern, is_two_of_four
from autocompress.errors import AutocompressError, CandidateError
from autocompress.export.programs import verify as program
from autocompress.finetune.constraint import ConstrainedLayer
from autocompress.latency.host.client import Host, local_host
from autocompress.latency.model.predict import predict
from autocompress.network.graph.kernel_pattern import kernel_pattern
from autocompress.network.graph.xnnpack_sparse import runs_sparse
from autocompress.network.tflite import flatbuffer, sparse
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.specs import load_device, sparse_containers
from tests.builders import edge_host
from tests.builders.arrays import Array
from tests.builders.optional import present
from tests.builders.sparse_networks import layers, mobile, names_stored_sparse, path_of, stored, with_zeros

BLOCKS = LayerChoice(sparsity=0.8, granularity="block")


# --- networks -------------------------------------------------------------------------------------


def inputs_of(network: bytes, samples: int = 3) -> list[Array]:
    shape = layers(network)[0].input_shape
    side = shape[1] - 2 if shape[1] == 19 else 17
    return [np.random.default_rng(1).standard_normal((samples, side, side, shape[3]), dtype=np.float32)]


# --- the format -----------------------------------------------------------------------------------


@st.composite
def weights(draw: st.DrawFn) -> tuple[Array, int]:
    """A weight (O, ..., I) with zeros in blocks of outputs, and the block."""
    block = draw(st.sampled_from(sparse.BLOCKS))
    rows = (draw(st.integers(1, 5)), *draw(st.lists(st.integers(1, 3), max_size=2)), draw(st.integers(1, 300)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    kept = rng.random(rows) < draw(st.floats(0, 1))
    values = rng.standard_normal((rows[0] * block, *rows[1:])) + 10.0
    dtype = draw(st.sampled_from((np.float32, np.float16, np.int8)))
    return (values * np.repeat(kept, block, axis=0)).astype(dtype), block


def slowly_decoded(parameters: Any, values: Array, shape: Sequence[int]) -> Array:
    """By the words of the schema, a place at a time."""
    dense, axes = np.zeros(shape, values.dtype), list(parameters.traversalOrder)
    levels, inner = list(parameters.dimMetadata), list(parameters.blockMap or [])

    def walk(level: int, at: int, place: dict[int, int]) -> None:
        if level == len(axes):
            index = [place[axis] for axis in range(len(shape))]
            for n, axis in enumerate(inner):
                index[axis] = index[axis] * levels[axes.index(len(shape) + n)].denseSize + place[len(shape) + n]
            dense[tuple(index)] = values[at]
            return
        each = levels[level]
        if each.format == 0:
            for n in range(each.denseSize):
                walk(level + 1, at * each.denseSize + n, {**place, axes[level]: n})
        else:
            segments, indices = each.arraySegments.values, each.arrayIndices.values
            for n in range(int(segments[at]), int(segments[at + 1])):
                walk(level + 1, n, {**place, axes[level]: int(indices[n])})

    walk(0, 0, {})
    return dense


@settings(max_examples=60, deadline=None)
@given(weights())
def test_what_is_encoded_is_decoded_also_by_the_words_of_the_schema(made: tuple[Array, int]) -> None:
    weight, block = made
    assert sparse.widest_block(weight) >= block
    values, parameters = sparse.encode(weight, block)
    assert np.count_nonzero(values) == np.count_nonzero(weight)
    np.testing.assert_array_equal(sparse.decode(parameters, values, weight.shape), weight)
    if weight.size < 2000:
        np.testing.assert_array_equal(slowly_decoded(parameters, values, weight.shape), weight)


def test_a_widest_block_holds_no_zero_beside_a_nonzero() -> None:
    weight = np.ones((8, 3), np.float32)
    weight[:4, 1] = 0
    assert sparse.widest_block(weight) == 4
    weight[4:6, 0] = 0
    assert sparse.widest_block(weight) == 2
    weight[7, 2] = 0
    assert sparse.widest_block(weight) == 1
    assert [sparse.block_of(outputs) for outputs in (8, 6, 7)] == [4, 2, 1]


@pytest.mark.parametrize("broken", ["indices", "segments", "values", "places", "huge", "falling"])
def test_a_damaged_sparse_weight_is_a_damaged_file(broken: str) -> None:
    tree = flatbuffer.read(stored(with_zeros(mobile(), 0.8)))
    tensor = next(t for t in tree.subgraphs[0].tensors if t.sparsity is not None)
    rows = next(each for each in tensor.sparsity.dimMetadata if each.arraySegments is not None)
    if broken == "indices":
        rows.arrayIndices.values = np.full_like(rows.arrayIndices.values, 200)
    elif broken == "segments":
        rows.arraySegments.values = rows.arraySegments.values[:-2]
    elif broken == "huge":  # refused before any memory is asked for
        tensor.sparsity.dimMetadata[1].denseSize = 2**31 - 1
    elif broken == "falling":
        rows.arraySegments.values = rows.arraySegments.values[::-1].copy()
    elif broken == "values":
        buffer = tree.buffers[tensor.buffer]
        buffer.data = present(buffer.data)[:-4]
    else:
        rows.arraySegments.values = rows.arraySegments.values + np.uint8(1)
    with pytest.raises(AutocompressError, match="truncated or damaged"):
        flatbuffer.read(flatbuffer.write(tree))


def test_a_network_that_comes_with_sparse_weights_is_taken_as_the_dense_one() -> None:
    dense = with_zeros(mobile(), 0.8)
    file = stored(dense)
    assert names_stored_sparse(file) > 0
    taken = flatbuffer.normalise(file)
    assert names_stored_sparse(taken) == 0
    x = {"x": inputs_of(dense)[0]}
    np.testing.assert_array_equal(Runner(taken).run(x), Runner(dense).run(x))
    for one, other in zip(layers(dense), layers(taken), strict=True):
        np.testing.assert_array_equal(
            present(flatbuffer.constant(flatbuffer.read(taken), other.weight)),
            present(flatbuffer.constant(flatbuffer.read(dense), one.weight)),
        )


# --- the solver -----------------------------------------------------------------------------------


def problem_of(seed: int, rows: int = 8, columns: int = 10, groups: int = 1) -> Problem:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((groups, 60, columns)) @ rng.standard_normal((groups, columns, columns))
    return Problem(
        weight=rng.standard_normal((groups, rows, columns)),
        moment=inputs.transpose(0, 2, 1) @ inputs / 60,
        shared_scale=False,
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), zeros=st.integers(1, 79), block=st.sampled_from((2, 4)), groups=st.integers(1, 2))
def test_the_smallest_blocks_are_those_of_a_plain_search(seed: int, zeros: int, block: int, groups: int) -> None:
    values = np.random.default_rng(seed).standard_normal((groups, 8, 10))
    found = ZeroPattern(zeros=zeros, block=block).smallest(values, np.ones(values.shape, bool))
    scores = {
        (g, r, c): sum(values[g, r + k, c] ** 2 for k in range(block))
        for g, r, c in itertools.product(range(groups), range(0, 8, block), range(10))
    }
    least = sorted(scores, key=lambda place: scores[place])[: math.ceil(zeros / block)]
    wanted = {(g, r + k, c) for g, r, c in least for k in range(block)}
    assert {tuple(map(int, np.unravel_index(place, values.shape))) for place in found} == wanted


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), sparsity=st.floats(0.05, 0.95), rows=st.sampled_from((4, 6, 7, 8)))
def test_a_block_mask_has_whole_blocks_and_keeps_the_floor(seed: int, sparsity: float, rows: int) -> None:
    problem = problem_of(seed, rows=rows)
    for choice in (LayerChoice(sparsity=sparsity, granularity="block", bits=bits) for bits in (32, 8)):
        values = sv.solve(problem, choice).values[0]
        block = sparse.block_of(rows)
        gone = (values.reshape(-1, block, values.shape[1]) == 0).all(axis=1)
        zeros = math.ceil(sparsity * values.size - 1e-9)
        assert zeros <= gone.sum() * block
        assert problem.mask(choice) is not None
        assert int((~problem.mask(choice)).sum()) == math.ceil(zeros / block) * block  # type: ignore[operator]


@given(seed=st.integers(0, 999), groups=st.integers(1, 3), fours=st.integers(1, 5), joined=st.booleans())
def test_two_of_four_are_those_of_a_plain_search(seed: int, groups: int, fours: int, joined: bool) -> None:
    """Also where column blocks cut a four apart, and padding fills the last."""
    rows, inputs = (5 if joined else 5 * groups), 4 * fours
    plain = np.random.default_rng(seed).standard_normal((rows, inputs))
    padded = np.pad(plain, ((0, 0), (0, -inputs % groups if joined else 0)))
    there = np.pad(np.ones(plain.shape, bool), ((0, 0), (0, padded.shape[1] - inputs)))
    values, exists = (
        each.reshape(5, groups, -1).transpose(1, 0, 2) if joined else each.reshape(groups, 5, -1)
        for each in (padded, there)
    )
    gone = np.zeros(values.size, bool)
    gone[ZeroPattern(zeros=plain.size // 2, two_of_four=True, joined=joined).smallest(values, exists)] = True
    gone = gone.reshape(values.shape)
    pruned = gone.transpose(1, 0, 2).reshape(padded.shape) if joined else gone.reshape(padded.shape)
    for row, out in zip(plain, pruned, strict=True):
        for start in range(0, inputs, 4):
            smallest = sorted(range(start, start + 4), key=lambda n: abs(row[n]))[:2]
            assert sorted(np.flatnonzero(out[start : start + 4]) + start) == sorted(smallest)
    assert pruned.sum() == plain.size // 2


def test_two_of_four_of_the_solver_lose_less_than_the_smallest_weights() -> None:
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((300, 32)) @ rng.standard_normal((32, 32))
    problem = Problem(weight=rng.standard_normal((1, 8, 32)), moment=(inputs.T @ inputs / 300)[None])
    choice = LayerChoice(sparsity=0.5, granularity="2:4", bits=4)
    values = sv.solve(problem, choice).values
    assert is_two_of_four(values[0])
    fours = problem.weight.reshape(-1, 4)
    plain = np.where(np.argsort(np.argsort(np.abs(fours), axis=1), axis=1) < 2, 0.0, fours).reshape(values.shape)
    assert sv.output_error(problem, values) < 0.5 * sv.output_error(problem, plain)


@pytest.mark.parametrize("seed", range(4))
def test_blocks_of_the_solver_lose_less_than_the_smallest_blocks(seed: int) -> None:
    problem = problem_of(seed, rows=16, columns=24)
    choice = LayerChoice(sparsity=0.5, granularity="block")
    squares = problem.weight**2
    scores = squares.reshape(1, 4, 4, 24).sum(axis=2)
    kept = np.repeat(scores > np.quantile(scores, 0.5), 4, axis=1)
    plain = np.where(kept, problem.weight, 0.0)
    assert sv.output_error(problem, sv.solve(problem, choice).values) < sv.output_error(problem, plain)


def test_a_mask_that_moves_in_training_moves_in_blocks() -> None:
    layer = next(each for each in layers(mobile()) if each.name == "conv_2d_1")
    shape = (1, 1, layer.shape[3], layer.outputs)  # as Keras keeps it
    sizes = np.abs(np.random.default_rng(0).standard_normal(shape)).reshape(-1)
    held = object.__new__(ConstrainedLayer)
    held._layer, held._choice, held._keep = layer, BLOCKS, np.zeros(shape)
    gone = np.zeros(sizes.size, bool)
    gone[held._smallest(sizes, 101)] = True
    blocks = gone.reshape(layer.shape[3], -1, 4)
    assert (blocks.any(axis=-1) == blocks.all(axis=-1)).all()
    assert gone.sum() == 104
    scores = (sizes.reshape(layer.shape[3], -1, 4) ** 2).sum(axis=-1)
    assert scores[blocks.all(axis=-1)].max() <= scores[~blocks.any(axis=-1)].min()
    held._choice = LayerChoice(sparsity=0.8)
    assert sizes[held._smallest(sizes, 101)].max() == np.sort(sizes)[100]


# --- which networks have sparse kernels ------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "padded", "five", "residual"])
@pytest.mark.parametrize("end", ["dense", "mean"])
def test_networks_of_the_sparse_path_are_recognised(inside: str, end: str) -> None:
    network = mobile(end, inside=inside)
    pointwise = tuple(each.name for each in layers(network) if each.op == "CONV_2D" and each.shape[1:3] == (1, 1))
    path = path_of(network)
    assert (path.layers, path.reason) == (pointwise, None)
    assert path.dense == (("fully_connected_0",) if end == "dense" else ())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"stem": "same"}, "no 3x3 convolution of stride 2"),
        ({"stem": "valid"}, "no 3x3 convolution of stride 2"),
        ({"stem": "uneven"}, "no 3x3 convolution of stride 2"),
        ({"stem": "stride"}, "no 3x3 convolution of stride 2"),
        ({"stem": "one channel"}, "no 3x3 convolution of stride 2"),
        ({"inside": "spatial"}, "conv_2d_2 has no sparse kernel"),
        ({"inside": "same"}, "depthwise_conv_2d_1 has no sparse kernel"),
        ({"inside": "uneven"}, "pad_1 does not pad height and width evenly"),
        ({"inside": "pool"}, "max_pool_2d_0 has no sparse kernel"),
        ({"inside": "concatenation"}, "concatenation_0 has no sparse kernel"),
        ({"end": "open"}, "an output of the network is inside"),
        ({"end": "convolution"}, "conv_2d_3 behind the MEAN"),
    ],
)
def test_other_networks_are_not_and_the_reason_is_told(changed: dict[str, str], reason: str) -> None:
    network = mobile(**changed)  # type: ignore[arg-type]
    path = path_of(network)
    assert path.layers == ()
    assert reason in (path.reason or "")
    assert path.begins == ("stem" not in changed)
    # Nothing is stored sparse where XNNPACK would begin such a path and not end it.
    assert (names_stored_sparse(stored(with_zeros(network, 0.9))) > 0) == ("stem" in changed)


def test_sparse_kernels_need_sparse_storage_and_more_than_two_thirds_of_zeros() -> None:
    for sparsity, runs in ((0.6, False), (0.8, True)):
        dense = with_zeros(mobile(), sparsity)
        assert runs_sparse(read_graph(dense)) == ()
        file = stored(dense)
        assert names_stored_sparse(file) > 0
        assert runs_sparse(read_graph(file)) == (path_of(dense).layers if runs else ())
    # Some versions count the dense layer behind the MEAN as well.
    assert runs_sparse(read_graph(stored(with_zeros(mobile(), 0.68, only="conv")))) == ()


# --- the built file ---------------------------------------------------------------------------------


def built(network: bytes, choice: LayerChoice, size: str = "download") -> tuple[bytes, bytes, list[SolvedLayer]]:
    """The candidate with this choice for each 1x1 convolution, stored as is best and stored dense, and its layers."""
    found, tree = layers(network), flatbuffer.read(network)
    inputs = {
        found[0].input if not tree.subgraphs[0].inputs else int(tree.subgraphs[0].inputs[0]): inputs_of(network, 64)[0]
    }
    solver = Reconstruction(tree, found, inputs, chunk=1, threads=1)
    path = path_of(network).layers
    chosen = {layer.name: choice if layer.name in path else LayerChoice() for layer in found}
    chosen["fully_connected_0"] = LayerChoice(sparsity=0.7, bits=choice.bits)
    asked = Configuration(layers=chosen).normalised()
    solved = solver.sequential(asked)

    def room(op: str, bits: int, activations: str) -> int | None:
        return 8 if bits <= 8 else bits

    storage = SparseStorage(sparse=lambda kind: sparse_containers(load_device("local").kernels, kind), size=size)
    thin = Builder(network, found, room, dict, storage).build(asked, solved)
    return thin, Builder(network, found, room, dict).build(asked, solved), solved


@pytest.mark.parametrize("bits", [32, 16])
@pytest.mark.parametrize("size", ["download", "file"])
def test_a_candidate_in_blocks_is_stored_sparse_and_read_back(bits: int, size: str) -> None:
    network = mobile(inside="residual")
    thin, dense, solved = built(network, LayerChoice(sparsity=0.8, granularity="block", bits=bits), size)
    measured = download_bytes if size == "download" else len
    assert measured(thin) < measured(dense)
    found = read_layers(thin, layers(network))
    for stored_layer, want, layer in zip(found, solved, layers(network), strict=True):
        container = (
            "FLOAT16" if bits == 16 and layer.name in (*path_of(network).layers, "fully_connected_0") else "FLOAT32"
        )
        assert stored_layer.container == container
        np.testing.assert_array_equal(stored_layer.values, want.weight.astype(stored_layer.values.dtype))
    assert runs_sparse(read_graph(thin)) == path_of(network).layers
    assert program.layers_of(thin) == program.layers_of(dense)
    for runtime in ("ai-edge-litert", "tflite-runtime"):
        if runtime == "tflite-runtime":
            pytest.importorskip("tflite_runtime", reason="tflite-runtime has no wheel for this Python")
        with local_host(runtime, 1) as host:
            one, other = (host.outputs(file, inputs_of(network))[0] for file in (thin, dense))
        np.testing.assert_array_equal(one, other)


def test_integer_layers_stay_dense_where_the_device_cannot_expand_them() -> None:
    thin, dense, _ = built(mobile(), LayerChoice(sparsity=0.8, granularity="block", bits=8), "file")
    assert thin == dense


def test_int8_is_stored_sparse_where_the_profile_says_so() -> None:
    pytest.importorskip("tflite_runtime", reason="tflite-runtime has no wheel for this Python")
    assert sparse_containers(load_device("local").kernels, "int8") == {32, 16}
    assert sparse_containers(load_device("local-tflite-runtime").kernels, "int8") == {32, 16, 8}


def test_zeros_that_fill_no_blocks_are_refused() -> None:
    network = mobile()
    found, tree = layers(network), flatbuffer.read(network)
    asked = Configuration(layers={layer.name: LayerChoice() for layer in found} | {"conv_2d_1": BLOCKS})
    solved = []
    for layer in found:
        weight = flatbuffer.constant(tree, layer.weight)
        assert weight is not None
        if layer.name == "conv_2d_1":  # as many zeros, one an output
            weight = np.where(np.random.default_rng(0).random(weight.shape) < 0.85, 0, weight).astype(np.float32)
        bias = None if layer.bias is None else flatbuffer.constant(tree, layer.bias)
        solved.append(SolvedLayer(weight=weight, bias=bias))
    with pytest.raises(CandidateError, match="conv_2d_1: the built file breaks 'zeros in whole blocks'"):
        Builder(network, found, lambda op, bits, kind: 32, dict).build(asked, solved)


def test_storage_never_makes_the_size_that_counts_larger() -> None:
    for sparsity, size in itertools.product((0.3, 0.5, 0.9), ("download", "file")):
        network = with_zeros(mobile(stem="same", seed=1), sparsity, block=1)
        measured = download_bytes if size == "download" else len
        assert measured(stored(network, size)) <= measured(network)


def test_a_layer_without_any_weight_left_stays_dense() -> None:
    network = with_zeros(mobile(stem="same"), 1.0)
    file = stored(network)
    x = {"x": inputs_of(network)[0]}
    np.testing.assert_array_equal(Runner(file).run(x), Runner(network).run(x))


# --- latency ----------------------------------------------------------------------------------------


def test_a_pattern_with_sparse_kernels_counts_their_nonzeros_and_blocks() -> None:
    def pattern(network: bytes) -> str:
        return kernel_pattern(stored(network))

    same = pattern(with_zeros(mobile(), 0.8, seed=1))
    assert same == pattern(with_zeros(mobile(seed=5), 0.8, seed=2))
    assert same != pattern(with_zeros(mobile(), 0.9))
    assert same != pattern(with_zeros(mobile(), 0.8, block=1))
    assert same != kernel_pattern(with_zeros(mobile(), 0.8))


def test_a_pattern_without_sparse_kernels_does_not_count_zeros() -> None:
    networks = [with_zeros(mobile(stem="same"), sparsity) for sparsity in (0.8, 0.9)]
    assert len({kernel_pattern(stored(network)) for network in networks}) == 1
    too_few = [with_zeros(mobile(), sparsity) for sparsity in (0.5, 0.6)]
    assert len({kernel_pattern(stored(network)) for network in too_few}) == 1


def test_a_model_claims_no_gain() -> None:
    dense = with_zeros(mobile(), 0.9)
    model = load_device("rpi4").latency_model
    assert model is not None
    assert predict(stored(dense), model).latency_ms == predict(dense, model).latency_ms


# --- a processor that has the kernels ------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_avx() -> Iterator[Host]:
    """ai-edge-litert on an x86-64 processor that has no AVX, as qemu plays it."""
    qemu = Path(edge_host.aarch64_python()[0]).with_name("qemu-x86_64-static")
    # A core type that whoever runs the tests has set for OpenBLAS may need AVX.
    command = ["/usr/bin/env", "-u", "OPENBLAS_CORETYPE", str(qemu), "-cpu", "Nehalem", sys.executable]
    with Host(command, runtime="ai-edge-litert", threads=1, start_s=300, silence_s=300) as host:
        yield host


def kernels(host: Host, file: bytes) -> dict[str | None, str]:
    found = host.profile(file, deadline_s=300, min_run_s=0.0)
    assert found.ops is not None, found.reason
    return {op.layer: op.kernel for op in found.ops if op.layer is not None}


@pytest.mark.parametrize(("end", "inside"), [("dense", "residual"), ("mean", "padded"), ("dense", "five")])
def test_sparse_kernels_really_run(without_avx: Host, end: str, inside: str) -> None:
    dense = with_zeros(mobile(end, inside=inside), 0.8)
    file = stored(dense)
    running = runs_sparse(read_graph(file))
    seen = kernels(without_avx, file)
    assert {name for name, kernel in seen.items() if "SPMM" in kernel} == set(running) == set(path_of(dense).layers)
    assert not any("SPMM" in kernel for kernel in kernels(without_avx, dense).values())
    one, other = (without_avx.outputs(each, inputs_of(dense))[0] for each in (file, dense))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("changed", [{"inside": "spatial"}, {"stem": "same"}, {"inside": "concatenation"}])
def test_what_is_not_recognised_runs_dense_kernels(without_avx: Host, changed: dict[str, str]) -> None:
    network = with_zeros(mobile(**changed), 0.9)  # type: ignore[arg-type]
    forced = forced_sparse(network)
    assert not any("SPMM" in kernel for kernel in kernels(without_avx, forced).values())


def test_why_a_convolution_behind_the_mean_keeps_all_weights_dense(without_avx: Host) -> None:
    network = with_zeros(mobile("convolution"), 0.9)
    with pytest.raises(CandidateError):
        without_avx.outputs(forced_sparse(network), inputs_of(network))
    assert np.isfinite(without_avx.outputs(stored(network), inputs_of(network))[0]).all()


def forced_sparse(network: bytes) -> bytes:
    """The network with its 1x1 convolutions stored sparse, whatever follows."""
    from autocompress.compression.sparse_storage import _stored

    found = {layer.name: layer.weight for layer in layers(network)[1:] if layer.op == "CONV_2D"}
    return _stored(network, found)


def test_enough_zeros_by_the_runtime_and_by_the_recogniser(without_avx: Host) -> None:
    for sparsity in (0.6, 0.7):
        file = stored(with_zeros(mobile("mean"), sparsity))
        ran = any("SPMM" in kernel for kernel in kernels(without_avx, file).values())
        assert ran == bool(runs_sparse(read_graph(file))) == (sparsity > 2 / 3)
