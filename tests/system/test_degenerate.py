"""Networks and data that real life brings: dead channels, constant inputs, silent samples, ids outside a vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.compression.build import Builder, read_layers
from autocompress.compression.reconstruct import Reconstruction
from autocompress.network.graph import trace
from autocompress.network.graph.finite import first_refused, not_finite, unfit
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.front import Front, complete
from autocompress.search.storage import study_records
from tests.builders.arrays import Array
from tests.builders.command_line import fault_of
from tests.builders.optional import present

Data = dict[str, Array]
SAMPLES = {"calibration": 64, "validation": 80, "test": 70}


class Sketch(NetworkBuilder):
    """A network builder with operators that networks for timing do without."""

    def ids(self) -> None:
        """The input holds ids."""
        self._graph.tensors[self.input].type = self._schema.TensorType.INT32

    def looked_up(self, ids: int, rows: int, width: int) -> int:
        """The mean of the rows of a table that the ids name."""
        table = self._constant(self._rng.standard_normal((rows, width)).astype(np.float32))
        batch, count = self.shape(ids)
        found = self._op("GATHER", [table, ids], (batch, count, width), self._schema.GatherOptionsT(), "GatherOptions")
        axes = self._constant(np.array([1], np.int32))
        return self._op("MEAN", [found, axes], (batch, width), self._schema.ReducerOptionsT(), "ReducerOptions")


def changed(model: bytes, layer: int, row: int, bias: float) -> bytes:
    """The network with the weights of one output channel zero, and this bias."""
    tree = flatbuffer.read(model)
    found = layers_of(graph_of(tree))[layer]
    for index, value in ((found.weight, 0.0), (found.bias, bias)):
        assert index is not None
        array = flatbuffer.constant(tree, index)
        assert array is not None
        array = array.copy()
        np.moveaxis(array, found.output_axis if array.ndim > 1 else 0, 0)[row] = value
        flatbuffer.set_constant(tree, index, array)
    return flatbuffer.write(tree)


def dead_network() -> bytes:
    net = NetworkBuilder((1, 8), seed=3)
    model = net.finish(net.softmax(net.dense(net.dense(net.dense(net.input, 16), 12), 3, relu=False)))
    for row, bias in ((2, 0.5), (5, -1.0), (9, 0.0)):
        model = changed(model, 0, row, bias)
    return changed(model, 1, 4, -2.0)


def dead_data(rng: np.random.Generator, count: int) -> Array:
    x = rng.standard_normal((count, 8)).astype(np.float32)
    x[:, 1], x[:, 3], x[:, 6], x[:, 7] = 3000.3, 0.0, x[:, 0], 1e-42
    return x


def dead_pictures() -> bytes:
    net = NetworkBuilder((1, 6, 6, 4), seed=3)
    hidden = net.convolution(net.depthwise(net.convolution(net.input, 16)), 16, (1, 1))
    model = net.finish(net.softmax(net.dense(net.mean(hidden), 3, relu=False)))
    for layer, row, bias in ((0, 2, 0.5), (0, 5, -1.0), (1, 7, 0.0), (1, 2, 0.2), (2, 3, -2.0), (2, 11, 0.4)):
        model = changed(model, layer, row, bias)
    return model


def dead_picture_data(rng: np.random.Generator, count: int) -> Array:
    x = rng.standard_normal((count, 6, 6, 4)).astype(np.float32)
    x[..., 1], x[..., 2] = 3000.3, 0.0
    return x


def log_network() -> bytes:
    net = NetworkBuilder((1, 8), seed=1)
    hidden = net.dense(net.unary(net.input, "LOG"), 16)
    return net.finish(net.softmax(net.dense(hidden, 2, relu=False)))


def log_data(rng: np.random.Generator, count: int) -> Array:
    return rng.uniform(0.1, 3, (count, 8)).astype(np.float32)


def ids_network() -> bytes:
    net = Sketch((1, 4), seed=2)
    net.ids()
    return net.finish(net.dense(net.dense(net.looked_up(net.input, 10, 6), 16), 3, relu=False))


def ids_data(rng: np.random.Generator, count: int) -> Array:
    return rng.integers(0, 10, (count, 4)).astype(np.int32)


def written(folder: Path, model: bytes, draw: Any, poison: str | None = None, value: float = 0) -> list[str]:
    """The words of a search on files; sample 7 of the split `poison` holds nothing but `value`."""
    rng, arrays = np.random.default_rng(0), {}
    for name, count in SAMPLES.items():
        x = draw(rng, count)
        if name != "calibration":
            arrays[f"y_{name}"] = Runner(model).run({Runner(model).inputs[0].name: x}).argmax(1)
        if name == poison:
            x[7] = value
        arrays[f"x_{name}"] = x
    (folder / "net.tflite").write_bytes(model)
    np.savez(folder / "data.npz", **arrays)
    words = ["search", "--device", "rpi4", "--model", folder / "net.tflite", "--data", folder / "data.npz"]
    more = ["--metric", "accuracy", "--space", "default", "--study", "s", "--runs", folder / "runs"]
    return list(map(str, [*words, *more]))


@pytest.mark.parametrize(
    ("network", "draw", "space", "trials"),
    [(dead_network, dead_data, "default", 12), (dead_pictures, dead_picture_data, "channels", 10)],
)
def test_a_search_on_dead_channels_and_constant_inputs_fails_nowhere(
    tmp_path: Path, network: Any, draw: Any, space: str, trials: int
) -> None:
    words = [*written(tmp_path, network(), draw), "--space", space, "--trials", str(trials)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    record = study_records.read_record(study_records.load_study(tmp_path / "runs", "s", None))
    assert [t.reason for t in record.trials if t.state == "failed"] == []
    assert len(complete(record)) == trials
    assert Front(record).trials


@pytest.mark.parametrize(("activations", "bits"), [("int8", 8), ("int8", 4), ("int16", 8)])
def test_a_channel_without_weights_keeps_its_bias_in_a_static_file(activations: str, bits: int) -> None:
    model = changed(dead_network(), 2, 1, 1.5)  # of an output too
    tree = flatbuffer.read(model)
    layers, x = layers_of(graph_of(tree)), dead_data(np.random.default_rng(5), 64)
    inputs = {layers[0].input: x}
    solver = Reconstruction(tree, layers, inputs, chunk=64, threads=1)
    ranges = trace.activation_ranges(model, inputs, 64, 1)
    built = Builder(model, layers, lambda op, bits, activations: bits, lambda: ranges)
    configuration = Configuration(
        activations=activations, layers={layer.name: LayerChoice(bits=bits) for layer in layers}
    )
    file = built.build(configuration, solver.sequential(configuration))
    stored = read_layers(file, layers)
    assert (stored[2].values[1] == 0).all()
    tree = flatbuffer.read(file)
    bias = tree.subgraphs[0].tensors[int(tree.subgraphs[0].operators[_last_dense(tree)].inputs[2])]
    real = flatbuffer.constant(tree, _index(tree, bias))
    assert real is not None
    np.testing.assert_allclose(real[1] * present(bias.quantization).scale[1], 1.5, rtol=1e-2)


def _last_dense(tree: Any) -> int:
    names = [flatbuffer.op_name(tree, op) for op in tree.subgraphs[0].operators]
    return len(names) - 1 - names[::-1].index("FULLY_CONNECTED")


def _index(tree: Any, tensor: Any) -> int:
    return next(n for n, each in enumerate(tree.subgraphs[0].tensors) if each is tensor)


@pytest.mark.parametrize("value", [0.0, np.nan, -1.0])
def test_a_bad_calibration_sample_is_left_out_and_counted(tmp_path: Path, value: float) -> None:
    words = written(tmp_path, log_network(), log_data, "calibration", value)
    done = CliRunner().invoke(app, [*words, "--trials", "8"])
    assert done.exit_code == 0, done.output
    record = study_records.read_record(study_records.load_study(tmp_path / "runs", "s", None))
    assert any(note.startswith("1 ") and "calibration samples" in note for note in record.notes), record.notes
    assert len(complete(record)) == 8


@pytest.mark.parametrize(
    ("network", "draw", "value", "said"),
    [
        (log_network, log_data, 0.0, "hold NaN or infinities for 1 of 80 samples, the first of them sample 7"),
        (log_network, log_data, np.nan, "the first in sample 7"),
        (ids_network, ids_data, 10, "cannot run sample 7"),
    ],
)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_bad_sample_is_named_before_the_search(
    tmp_path: Path, network: Any, draw: Any, value: float, said: str, split: str
) -> None:
    words = written(tmp_path, network(), draw, split, value)
    done = CliRunner().invoke(app, [*words, "--trials", "8"])
    assert done.exit_code == 2, done.output
    assert f"x_{split}" in fault_of(done.stderr)
    assert said.replace("80", str(SAMPLES[split])) in done.stderr
    if (tmp_path / "runs" / "s" / "study.db").is_file():
        states = [t.state for t in study_records.load_study(tmp_path / "runs", "s", None).get_trials()]
        assert set(states) <= {TrialState.WAITING}


def test_ids_outside_the_vocabulary_are_left_out_of_calibration(tmp_path: Path) -> None:
    words = written(tmp_path, ids_network(), ids_data, "calibration", 10)
    done = CliRunner().invoke(app, [*words, "--trials", "4"])
    assert done.exit_code == 0, done.output
    record = study_records.read_record(study_records.load_study(tmp_path / "runs", "s", None))
    assert any(note.startswith("1 of the calibration samples") for note in record.notes)


def test_calibration_samples_that_are_all_bad_are_one_line(tmp_path: Path) -> None:
    words = written(tmp_path, log_network(), lambda rng, count: log_data(rng, count) * (count != 64))
    done = CliRunner().invoke(app, [*words, "--trials", "4"])
    assert done.exit_code == 2, done.output
    assert "every calibration sample" in fault_of(done.stderr)


@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_unfit_samples_are_those_that_fail_one_by_one(batch: int, threads: int) -> None:
    model = log_network()
    tree = flatbuffer.read(model)
    layers, x = layers_of(graph_of(tree)), log_data(np.random.default_rng(0), 23)
    x[[0, 4, 17, 22]] = 0.0
    found = unfit(model, {layer.input for layer in layers}, {tree.subgraphs[0].inputs[0]: x}, batch, threads)
    assert np.flatnonzero(found).tolist() == [0, 4, 17, 22]
    model, ids = ids_network(), ids_data(np.random.default_rng(0), 70)
    ids[[3, 66], 1] = -1, 99
    tree = flatbuffer.read(model)
    found = unfit(
        model, {layer.input for layer in layers_of(graph_of(tree))}, {tree.subgraphs[0].inputs[0]: ids}, batch, threads
    )
    assert np.flatnonzero(found).tolist() == [3, 66]
    assert first_refused(model, {Runner(model).inputs[0].name: ids}) == 3
    assert first_refused(model, {Runner(model).inputs[0].name: ids[4:]}) == 62
    assert first_refused(model, {Runner(model).inputs[0].name: ids[4:60]}) is None


def test_infinities_of_every_sample_are_the_networks_way() -> None:
    outputs = np.array([[0.0, -np.inf], [1.0, -np.inf]], np.float32)
    assert not not_finite(outputs).any()
    assert not_finite(np.array([[0.0, -np.inf], [np.nan, -np.inf]], np.float32)).tolist() == [False, True]
    assert not_finite(np.array([[0.0, 1.0], [0.0, np.inf]], np.float32)).tolist() == [False, True]
    assert not not_finite(np.array([[1], [2]])).any()
