"""A batch is proven: networks that mix samples run one at a time, wherever they run; all others as many as before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.evaluate.quality import Split
from autocompress.metrics import get_metric
from autocompress.network.graph import trace
from autocompress.network.graph.layers import layers_of
from autocompress.network.graph.segments import Segments
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.batching import Batch, _same, proven_batch
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import Runner
from autocompress.tasks import load_task
from tests.builders import fixed_batch
from tests.builders.arrays import Array
from tests.builders.fixed_batch import FIXED, one_by_one, samples

ONE = Batch(size=1)


def name_of(model: bytes) -> str:
    return Runner(model).inputs[0].name


# --- the proof ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FIXED)
def test_a_batch_that_mixes_or_fails_is_not_used(kind: str) -> None:
    model = FIXED[kind]()
    assert proven_batch(model, {name_of(model): samples(100)}) == ONE


def test_the_mixing_is_silent() -> None:
    model, x = fixed_batch.slice_gate(), samples(64)
    gap = np.abs(Runner(model).run({name_of(model): x}, 64) - one_by_one(model, x))
    assert gap[0].max() < 1e-4  # the sample whose gate all get
    assert gap[1:].max() > 0.01


@pytest.mark.parametrize("count", [2, 20, 100])
def test_other_networks_run_as_many_at_once_as_before(count: int) -> None:
    model = fixed_batch.free()
    found = proven_batch(model, {name_of(model): samples(count)})
    assert (found, found.of(20)) == (Batch(size=64), 20)
    digits = load_task("digits")
    assert proven_batch(digits.network, digits.x_calibration) == Batch(size=64)


def test_samples_that_are_all_the_same_prove_nothing() -> None:
    model = fixed_batch.free()
    assert proven_batch(model, {name_of(model): np.ones((80, *fixed_batch.SHAPE), np.float32)}) == ONE


def test_a_larger_batch_in_the_file_is_not_believed_either() -> None:
    """It slices one sample, of four: these are mixed, one alone is right."""
    model = fixed_batch.slice_gate(batch=4)
    assert proven_batch(model, {name_of(model): samples(100)}) == ONE


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(1, 20), st.integers(-30, 30), st.floats(-100, 100), st.integers(0, 999))
def test_rounding_is_told_from_mixing(rows: int, width: int, exponent: int, shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    alone = ((rng.standard_normal((rows, width)) + shift) * 2.0**exponent).astype(np.float32)
    rounded = alone * (1 + 1e-6 * rng.standard_normal(alone.shape)).astype(np.float32)
    assert _same(rounded, alone)
    assert not _same(np.repeat(alone[:1], rows, axis=0), alone)


def test_what_is_no_number_must_be_none_in_both() -> None:
    alone = np.array([[np.nan, 1.0], [np.inf, 2.0]], np.float32)
    assert _same(alone.copy(), alone)
    assert not _same(np.nan_to_num(alone, posinf=1e9), alone)
    assert not _same(np.array([[np.nan, np.nan], [np.inf, 2.0]], np.float32), alone)


# --- what runs in it ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FIXED)
def test_inner_tensors_ranges_and_accuracy_are_those_of_single_samples(kind: str) -> None:
    model = flatbuffer.normalise(FIXED[kind]())
    x, tree, runner = samples(12), flatbuffer.read(model), Runner(model)
    (index,), name, layers = runner.input_indices.values(), name_of(model), layers_of(graph_of(tree))
    walk = Segments(tree, layers, {index: x}, chunk=1, threads=2)
    state, last = walk.start, layers[-1]
    for position, layer in enumerate(layers[:-1]):
        state = walk.after(position, state, *values_of(tree, layer))
    wanted = one_by_one(model, x)
    np.testing.assert_allclose(walk.outputs(state, *values_of(tree, last)), wanted, rtol=1e-5, atol=1e-5)
    low, high = trace.activation_ranges(model, {index: x}, 1, 1)[last.tensor_name]
    np.testing.assert_allclose([low, high], [wanted.min(), wanted.max()], rtol=1e-4, atol=1e-4)
    labels = wanted.argmax(1)
    split = Split({name: x}, labels, get_metric("accuracy"), model, threads=1, seed=0, batch=ONE)
    assert split.baseline().value == 1.0


def values_of(tree: Any, layer: Any) -> tuple[Any, Any]:
    return flatbuffer.constant(tree, layer.weight), flatbuffer.constant(tree, layer.bias)


@pytest.mark.parametrize("kind", ["slice", "transpose-conv"])
def test_a_search_prints_what_single_samples_give(kind: str, tmp_path: Path) -> None:
    model, data = FIXED[kind](), dict[str, Array]()
    for seed, split in enumerate(("validation", "test", "calibration")):
        data[f"x_{split}"] = samples(150, seed)
        data[f"y_{split}"] = one_by_one(model, data[f"x_{split}"]).argmax(1)
    del data["y_calibration"]
    (tmp_path / "net.tflite").write_bytes(model)
    np.savez(tmp_path / "data.npz", **data)
    found = json.loads(
        call(
            "search",
            "--device",
            "rpi4",
            "--model",
            tmp_path / "net.tflite",
            "--data",
            tmp_path / "data.npz",
            "--metric",
            "accuracy",
            "--trials",
            7,
            "--study",
            "s",
            "--runs",
            tmp_path / "runs",
            "--json",
        )
    )
    assert (found["baseline"]["accuracy"], found["baseline"]["test_accuracy"]) == (1.0, 1.0)
    assert found["trials"]["failed"] == 0
    for entry in found["front"]:
        file = (tmp_path / "runs" / entry["artifact"]).read_bytes()
        for split, key in (("validation", "accuracy"), ("test", "test_accuracy")):
            hits = one_by_one(file, data[f"x_{split}"]).argmax(1) == data[f"y_{split}"]
            assert entry[key] == hits.mean()
    verified(tmp_path)


def call(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def verified(folder: Path) -> None:
    """The bundle of the knee agrees with its card."""
    call("export", "s", "--pick", "knee", "--runs", folder / "runs", "--to", folder / "bundle")
    command = [sys.executable, str(folder / "bundle" / "verify.py"), "--data", str(folder / "data.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy on test data" in done.stdout
