"""Fine-tuning: what is trained stays within its constraints, survives a kill, and joins its study as a trial."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compression.build import Builder, read_layers
from autocompress.compression.reconstruct import SolvedLayer
from autocompress.errors import AutocompressError, CandidateError
from autocompress.finetune import checkpoint, constraint, losses, memory
from autocompress.finetune.constraint import ConstrainedLayer, _short
from autocompress.finetune.networks import _on_grid
from autocompress.finetune.promises import check_kept
from autocompress.finetune.recipe import Lesson, Progress, Recipe, Tuned, Watch
from autocompress.finetune.train import _RESERVED as RESERVED
from autocompress.finetune.train import finetune
from autocompress.metrics import get_metric
from autocompress.network.graph import trace
from autocompress.network.graph.channels import Channels, prune
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.keras import model as keras_model
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import graph_of, read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.network.tflite.short_floats import short
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.front import Front, evaluated
from autocompress.search.storage import study_records
from autocompress.tasks import digits, load_task
from tests.builders import networks
from tests.builders.arrays import Array
from tests.builders.command_line import call
from tests.builders.optional import present
from tests.builders.project import ROOT
from tests.builders.standstill import stop_when
from tests.builders.tiny_models import dense_model

SPACE = """\
schema: 1
name: hard
activations: [float32, int8]
rules:
  - {match: ".*", sparsity: [0.6], bits: [8], clusters: [8]}
"""
STATIC_TRIAL = 1  # of the two uniform baselines of SPACE


def crushed(weight: Array, choice: LayerChoice, axis: int) -> SolvedLayer:
    """A layer under a choice by the crudest means: magnitude, rounding, equidistant levels."""
    flat = np.abs(weight).reshape(-1)
    zeros = math.ceil(choice.sparsity * weight.size)
    keep = np.abs(weight) > (np.sort(flat)[zeros - 1] if zeros else -1)
    if not choice.is_integer:
        stored = np.float16 if choice.bits == 16 else np.float32
        return SolvedLayer(weight=(weight * keep).astype(stored).astype(np.float32), bias=None)
    others = tuple(a for a in range(weight.ndim) if a != axis)
    limit = 2 ** (choice.bits - 1) - 1
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-6) / limit
    levels = np.rint(weight / scale) * keep
    if choice.clusters is not None:
        table = np.unique([0, *np.linspace(-limit, limit, choice.clusters - 1).round()])
        levels = table[np.abs(levels[..., None] - table).argmin(-1)] * keep
    return SolvedLayer(
        weight=(levels * scale).astype(np.float32),
        bias=None,
        levels=levels.astype(np.int8),
        scale=scale.reshape(-1).astype(np.float32),
    )


def crushed_network(network: bytes, choice: LayerChoice) -> tuple[tuple[Layer, ...], list[SolvedLayer]]:
    tree = flatbuffer.read(network)
    layers, found = layers_of(graph_of(tree)), []
    for layer in layers:
        bias = None if layer.bias is None else flatbuffer.constant(tree, layer.bias)
        weight = flatbuffer.constant(tree, layer.weight)
        assert weight is not None
        found.append(dataclasses.replace(crushed(weight, choice, layer.output_axis), bias=bias))
    return layers, found


def train(
    network: bytes,
    x: dict[str, Array],
    choice: LayerChoice,
    path: Path,
    y: Array | None = None,
    metric: str = "accuracy",
    teacher: bytes | None = None,
    target: float | None = None,
    watch: Watch = lambda _: None,
    **changes: Any,
) -> tuple[tuple[Layer, ...], list[SolvedLayer], Configuration, Tuned]:
    layers, start = crushed_network(network, choice)
    asked = Configuration(layers={layer.name: choice for layer in layers}).normalised()
    towards = Configuration(
        layers={n: dataclasses.replace(c, sparsity=target or c.sparsity) for n, c in asked.layers.items()}
    )
    recipe = Recipe(**({"budget_s": 60.0, "epochs": 6, "batch": 32} | changes))
    tuned = finetune(
        network,
        layers,
        asked,
        start,
        Lesson(x=x, y=y),
        get_metric(metric),
        recipe,
        ranges=None,
        path=path,
        watch=watch,
        teacher=teacher,
        towards=towards,
    )
    return layers, start, asked if target is None else towards, tuned


# --- the constraint -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_network() -> bytes:
    return flatbuffer.normalise(digits.NETWORK.read_bytes())


CHOICES = (
    LayerChoice(),
    LayerChoice(sparsity=0.5),
    LayerChoice(bits=16, sparsity=0.2),
    LayerChoice(bits=8),
    LayerChoice(bits=3, sparsity=0.3),
    LayerChoice(bits=8, sparsity=0.7, clusters=6),
    LayerChoice(bits=4, clusters=5),
)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("fixed", [False, True], ids=["free", "fixed"])
def test_gradients_are_those_of_what_the_variables_stand_for(
    digits_network: bytes, choice: LayerChoice, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against TensorFlow's own derivative of the same weights written out, the levels' rounding left out."""
    tree = flatbuffer.read(digits_network)
    layers, start = crushed_network(digits_network, choice)
    network = keras_model.to_keras(graph_of(tree))
    rng = np.random.default_rng(0)
    for layer, solved in zip(layers, start, strict=True):
        held = ConstrainedLayer(layer, choice, solved, network, fixed=fixed)
        with monkeypatch.context() as patched:
            patched.setattr(constraint, "_short", lambda values, _: values)  # the rounding has no derivative
            check_derivatives(held, rng, smooth=solved.levels is None)
        held.put()
        found = held.solved()
        np.testing.assert_allclose(found.weight, solved.weight, rtol=2**-6, atol=1e-7)
        kernel = keras_model.kernel_of(network, layer)
        np.testing.assert_array_equal(keras_model.from_keras_order(layer, kernel.numpy()), found.weight)


def check_derivatives(held: ConstrainedLayer, rng: np.random.Generator, smooth: bool) -> None:
    """A small step of each smooth variable changes the weights by what the gradient says."""
    pulls = [tf.constant(rng.normal(size=v.shape).astype(np.float32)) for v in held.weights]
    given = held.gradients(pulls, held.put())
    assert [g.shape for g in given] == [v.shape for v in held.variables]
    for variable, gradient in zip(held.variables, given, strict=True):
        if not smooth and not is_ratio_or_bias(held, variable):
            continue
        step = 0.02 * rng.normal(size=variable.shape).astype(np.float32)
        ends = []
        for way in (1.0, -1.0):
            variable.assign_add(way * step)
            ends.append(value_of(held, pulls))
            variable.assign_sub(way * step)
        sizes = [np.linalg.norm(v.numpy() * pull) for v, pull in zip(held.weights, pulls, strict=True)]
        expected = float(np.vdot(gradient, step))
        half_precision = 2**-9 * max(sizes) if held._choice.bits == 16 else 0.0
        assert (ends[0] - ends[1]) / 2 == pytest.approx(
            expected, rel=0.01, abs=float(1e-4 * max(sizes) + half_precision)
        )


def is_ratio_or_bias(held: ConstrainedLayer, variable: Any) -> bool:
    """Whether the weights are a smooth function of this variable: scales and biases, not what is rounded."""
    return variable is held._ratio or variable is held._shift


def value_of(held: ConstrainedLayer, pulls: list[Any]) -> float:
    held.put()
    return sum(float(np.vdot(v.numpy(), pull)) for v, pull in zip(held.weights, pulls, strict=True))


def test_a_centroids_gradient_is_the_sum_over_its_members(digits_network: bytes) -> None:
    """Deep Compression, eq. 3, by a slow loop."""
    choice = LayerChoice(bits=8, sparsity=0.5, clusters=6)
    layers, start = crushed_network(digits_network, choice)
    network = keras_model.to_keras(read_graph(digits_network))
    rng = np.random.default_rng(1)
    for layer, solved in zip(layers, start, strict=True):
        held = ConstrainedLayer(layer, choice, solved, network, fixed=True)
        pull = rng.normal(size=held.weights[0].shape).astype(np.float32)
        rest = [tf.zeros_like(v) for v in held.weights[1:]]
        gradients = held.gradients([tf.constant(pull), *rest], held.put())
        (given,) = (g for g, v in zip(gradients, held.variables, strict=True) if v is held._table)
        in_order = keras_model.from_keras_order(layer, pull)
        levels, scale = present(solved.levels), present(solved.scale)
        table = np.union1d(levels, [0])
        for place, level in enumerate(table):
            expected = 0.0
            for index in np.argwhere(levels == level):
                expected += in_order[tuple(index)] * scale[index[layer.output_axis]] * held._size
            assert float(given[place]) == pytest.approx(0.0 if level == 0 else expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.is_integer], ids=str)
def test_of_weights_on_the_same_level_the_smallest_of_the_float_network_are_pruned_first(
    digits_network: bytes, choice: LayerChoice
) -> None:
    tree = flatbuffer.read(digits_network)
    layers, start = crushed_network(digits_network, choice)
    network = keras_model.to_keras(graph_of(tree))
    for layer, solved in zip(layers, start, strict=True):
        dense = present(flatbuffer.constant(tree, layer.weight))
        before, scale = present(solved.levels), present(solved.scale)
        held = ConstrainedLayer(layer, choice, solved, network, fixed=False, dense=dense, target=0.8)
        held.put()
        np.testing.assert_array_equal(present(held.solved().levels), before)  # rounded to what they were
        held.move_mask()
        left = present(held.solved().levels)
        np.testing.assert_array_equal(left[left != 0], before[left != 0])
        for channel in range(dense.shape[layer.output_axis]):
            levels, rest, sizes = (np.take(a, channel, layer.output_axis) for a in (before, left, np.abs(dense)))
            for level in set(np.unique(levels)) - {0}:
                on_level = (levels == level) & (np.abs(sizes / scale[channel] - abs(level)) < 0.45)
                pruned, kept = sizes[on_level & (rest == 0)], sizes[on_level & (rest != 0)]
                assert not len(pruned) or not len(kept) or pruned.max() <= kept.min() * (1 + 1e-5)


def test_a_weight_beyond_the_largest_level_can_come_back_and_goes_no_further(digits_network: bytes) -> None:
    choice = LayerChoice(bits=3)
    (layer, *_), (solved, *_) = crushed_network(digits_network, choice)
    held = ConstrainedLayer(layer, choice, solved, keras_model.to_keras(read_graph(digits_network)), fixed=False)
    latent = held.variables[0]
    beyond = np.where(np.arange(latent.numpy().size) % 2, 3.4, -3.4).reshape(latent.shape) / held._size
    latent.assign(beyond.astype(np.float32))
    rest = [tf.zeros_like(v) for v in held.weights[1:]]
    for pull in (1.0, -1.0):
        gradient = held.gradients([tf.fill(latent.shape, pull), *rest], held.put())[0].numpy()
        np.testing.assert_array_equal(gradient != 0, beyond * pull > 0)


@pytest.mark.parametrize("choice", CHOICES[1:], ids=str)
def test_every_stage_keeps_its_promises(digits_network: bytes, choice: LayerChoice, tmp_path: Path) -> None:
    """At a learning rate at which everything moves; the builder verifies what it is given once more."""
    x, _ = present(load_task("digits").train)()
    layers, start, asked, tuned = train(
        digits_network, {n: v[:200] for n, v in x.items()}, choice, tmp_path / "state.npz", learning_rate=0.1, epochs=2
    )
    check_kept(layers, asked, start, tuned.layers)
    builder = Builder(digits_network, layers, lambda _, bits, __: 8 if bits < 8 else bits, dict)
    for layer, stored in zip(layers, read_layers(builder.build(asked, tuned.layers), layers), strict=True):
        assert stored.zeros >= math.ceil(choice.sparsity * layer.weights)
        if choice.is_integer:
            assert stored.distinct <= (choice.clusters or 2**choice.bits - 1)
            assert np.abs(stored.values.astype(int)).max() < 2 ** (choice.bits - 1)
    assert not (tmp_path / "state.npz").exists()


def test_each_layer_keeps_its_own_choice(digits_network: bytes, tmp_path: Path) -> None:
    """Bit-widths, zeros and clusters that differ from layer to layer."""
    x, _ = present(load_task("digits").train)()
    layers = layers_of(read_graph(digits_network))
    chosen = {layer.name: choice for layer, choice in zip(layers, itertools.cycle(CHOICES), strict=False)}
    start = [crushed_network(digits_network, chosen[layer.name])[1][n] for n, layer in enumerate(layers)]
    asked = Configuration(layers=chosen).normalised()
    lesson = Lesson(x={n: v[:400] for n, v in x.items()}, y=None)
    recipe = Recipe(epochs=10, batch=32)
    tuned = finetune(
        digits_network,
        layers,
        asked,
        start,
        lesson,
        get_metric("accuracy"),
        recipe,
        ranges=None,
        path=tmp_path / "state.npz",
        watch=lambda _: None,
    )
    assert len({choice.bits for choice in chosen.values()}) >= 3
    check_kept(layers, asked, start, tuned.layers)
    assert tuned.loss_after < tuned.loss_before


def test_the_last_tenth_of_the_training_data_decides(digits_network: bytes, tmp_path: Path) -> None:
    """What the best state is chosen by hangs on the last 10 % of x_train and on nothing else."""
    ((name, images),) = present(load_task("digits").train)()[0].items()

    def first_loss(changed: slice) -> float:
        x = images[:200].copy()
        x[changed] = 1.0 - x[changed]
        path = tmp_path / f"{changed.start}.npz"
        *_, tuned = train(digits_network, {name: x}, LayerChoice(bits=3), path, epochs=1)
        return tuned.loss_before

    untouched = first_loss(slice(0, 0))
    assert first_loss(slice(1, 180)) == untouched
    assert first_loss(slice(180, 200)) != pytest.approx(untouched, rel=0.1)


RISING = (
    LayerChoice(),
    LayerChoice(bits=16, sparsity=0.2),
    LayerChoice(bits=4),
    LayerChoice(bits=8, sparsity=0.5, clusters=6),
)


@pytest.mark.parametrize("choice", RISING, ids=str)
@pytest.mark.parametrize("mask", ["fixed", "free"])
def test_zeros_come_on_the_way_until_all_are_there(
    digits_network: bytes, choice: LayerChoice, mask: str, tmp_path: Path
) -> None:
    x, _ = present(load_task("digits").train)()
    few = {n: v[:400] for n, v in x.items()}
    layers, start, towards, tuned = train(
        digits_network, few, choice, tmp_path / "state.npz", target=0.75, epochs=30, mask=mask
    )
    check_kept(layers, towards, None, tuned.layers)
    for layer, before, after in zip(layers, start, tuned.layers, strict=True):
        was, now = (s.weight if s.levels is None else s.levels for s in (before, after))
        assert np.count_nonzero(now == 0) >= 0.75 * layer.weights
        assert mask == "free" or choice.sparsity == 0 or not now[was == 0].any()
    _, _, _, at_once = train(
        digits_network, few, dataclasses.replace(choice, sparsity=0.75), tmp_path / "once.npz", epochs=1
    )
    assert tuned.loss_after < at_once.loss_before
    assert not (tmp_path / "state.npz").exists()


def test_a_budget_too_short_for_the_schedule_ends_with_all_zeros(digits_network: bytes, tmp_path: Path) -> None:
    x, _ = present(load_task("digits").train)()
    few = {n: v[:200] for n, v in x.items()}
    layers, _, towards, tuned = train(
        digits_network, few, LayerChoice(bits=8), tmp_path / "state.npz", target=0.9, budget_s=0.01
    )
    check_kept(layers, towards, None, tuned.layers)
    assert math.isfinite(tuned.loss_after)


def test_a_slow_first_epoch_leaves_no_time_unused(
    digits_network: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first steps wait for the teacher; what they took is not what the later ones take."""
    x, _ = present(load_task("digits").train)()
    clock = Clock()
    monkeypatch.setattr("autocompress.finetune.train.time", clock)
    *_, tuned = train(
        digits_network,
        {n: v[:80] for n, v in x.items()},
        LayerChoice(sparsity=0.6, bits=8, clusters=8),
        tmp_path / "state.npz",
        watch=clock.passes,
        budget_s=60.0,
        epochs=1000,
        learning_rate=1e-3,
    )
    left_s = 60.0 * (1 - RESERVED) - Clock.SLOW
    assert tuned.steps == pytest.approx(Clock.SLOW + left_s / Clock.FAST_S, abs=2)
    assert tuned.seconds == pytest.approx(60.0, abs=2)


class Clock:
    """Time that only steps take: a second for each of the first 25, a tenth for the others."""

    SLOW, FAST_S = 25, 0.1

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def passes(self, progress: Progress) -> None:
        self.now_s += 1.0 if progress.steps <= self.SLOW else self.FAST_S


def test_so_many_epochs_are_so_many_steps(digits_network: bytes, tmp_path: Path) -> None:
    x, _ = present(load_task("digits").train)()
    few = {n: v[:200] for n, v in x.items()}
    *_, tuned = train(digits_network, few, LayerChoice(bits=4), tmp_path / "state.npz", epochs=2, budget_s=600.0)
    assert tuned.steps == 2 * (180 // 32)


def test_a_state_of_another_form_is_not_gone_on_with(tmp_path: Path) -> None:
    np.savez(tmp_path / "state.npz", facts=np.array(json.dumps({"key": "of then", "planned": 3})))
    assert checkpoint.load(tmp_path / "state.npz", "of now") is None


@pytest.mark.parametrize(("given", "kept"), [(None, "1"), ("0", "0")])
def test_training_has_fast_kernels_unless_told_otherwise(given: str | None, kept: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {} if given is None else {"TF_ENABLE_ONEDNN_OPTS": given}
    text = "import os, autocompress.finetune.train; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == kept


def test_a_narrower_network_learns_from_the_whole_one(digits_network: bytes, tmp_path: Path) -> None:
    x = {name: values[:600] for name, values in present(load_task("digits").train)()[0].items()}
    group = Channels(read_graph(digits_network)).groups[0]
    narrow = prune(digits_network, {group.name: range(group.channels // 2)})
    *_, own = train(narrow, x, LayerChoice(bits=16), tmp_path / "own.npz", epochs=1)
    *_, tuned = train(narrow, x, LayerChoice(bits=16), tmp_path / "whole.npz", teacher=digits_network)
    assert own.loss_before < 1e-3  # it is its own aim
    assert tuned.loss_before > 0.1
    assert tuned.loss_after < 0.5 * tuned.loss_before


@pytest.mark.parametrize(
    ("rule", "breaks"),
    [
        ("the mask", lambda s: s.levels.reshape(-1).__setitem__(int(np.flatnonzero(s.levels == 0)[0]), 1)),
        ("sparsity >= 0.5", None),
        ("at most 5 levels", lambda s: s.levels.reshape(-1).__setitem__(np.flatnonzero(s.levels)[:9], range(1, 10))),
        ("levels within 127", lambda s: s.levels.reshape(-1).__setitem__(int(np.flatnonzero(s.levels)[0]), -128)),
        ("positive scales", lambda s: s.scale.__setitem__(0, 0.0)),
    ],
)
def test_a_broken_promise_is_found(digits_network: bytes, rule: str, breaks: Any) -> None:
    choice = LayerChoice(bits=8, sparsity=0.5, clusters=5)
    layers, start = crushed_network(digits_network, choice)
    asked = Configuration(layers={layer.name: choice for layer in layers})
    broken = [dataclasses.replace(s, levels=present(s.levels).copy(), scale=present(s.scale).copy()) for s in start]
    check_kept(layers, asked, start, broken)
    if breaks is None:
        start = [dataclasses.replace(s, levels=np.ones_like(s.levels)) for s in start]
        broken = start
    else:
        breaks(broken[2])
    with pytest.raises(CandidateError, match=f"fine-tuning broke '{rule}'"):
        check_kept(layers, asked, start, broken)


@given(st.floats(-1e6, 1e6, width=32), st.integers(2, 10))
def test_short_numbers_are_those_of_the_file(value: float, bits: int) -> None:
    found = float(_short(tf.constant([value], tf.float32), bits)[0])
    step = float(np.spacing(np.float32(max(abs(value), 1e-30)))) * 2.0 ** (23 - bits)
    assert found == pytest.approx(float(short(value, bits)), abs=1.01 * step if abs(found) != abs(value) else 0)
    assert float(short(found, bits)) == found


def test_static_activations_are_rounded_as_the_file_rounds_them() -> None:
    x = np.linspace(-3, 5, 1001).astype(np.float32)
    for low, high, kind in ((-1.3, 2.7, "int8"), (0.0, 4.4, "int8"), (-2.5, 1.0, "int16")):
        expected = trace.static_quantizer(low, high, kind)(x.copy())
        np.testing.assert_allclose(_on_grid(x, low, high, kind).numpy(), expected, atol=1e-6 * high, rtol=1e-5)


# --- losses --------------------------------------------------------------------------------------------------------


def test_distillation_is_the_divergence_of_the_softened_classes() -> None:
    rng = np.random.default_rng(0)
    outputs, teacher, T = rng.normal(size=(5, 7)), rng.normal(size=(5, 7)), 3.0
    metric = get_metric("accuracy")
    loss = losses.loss_of(losses.Head(tensor=0, kind="classes"), Recipe(temperature=T), metric)
    p, q = (np.exp(a / T) / np.exp(a / T).sum(1, keepdims=True) for a in (teacher, outputs))
    np.testing.assert_allclose(loss(outputs, teacher, None).numpy(), T**2 * (p * np.log(p / q)).sum(1), rtol=1e-6)
    assert np.allclose(loss(teacher, teacher, None).numpy(), 0, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("ds-cnn", "classes"), ("shuttle", "values"), ("two-inputs", "values")])
def test_the_head_is_what_makes_the_output(name: str, kind: str) -> None:
    built = networks.load(name)
    assert losses.head_of(read_graph(built.network), get_metric(built.metric)).kind == kind


def test_labels_and_distillation_may_be_mixed() -> None:
    rng = np.random.default_rng(0)
    outputs, teacher, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    head, metric = losses.Head(tensor=0, kind="classes"), get_metric("accuracy")
    apart = [losses.loss_of(head, Recipe(loss=name), metric)(outputs, teacher, y) for name in losses_named]
    log = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    np.testing.assert_allclose(apart[1], -log[np.arange(5), y], rtol=1e-6)
    np.testing.assert_allclose(apart[2], (apart[0] + apart[1]) / 2, rtol=1e-6)


def test_labels_of_a_map_count_by_position_and_void_ones_not_at_all() -> None:
    rng = np.random.default_rng(0)
    outputs, y = rng.normal(size=(3, 4, 2, 5)), rng.integers(0, 5, (3, 4, 2))
    y[1, :2] = 255
    loss = losses.loss_of(losses.Head(tensor=0, kind="classes"), Recipe(loss="labels"), get_metric("mean-iou"))
    log = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    picked = -np.take_along_axis(log, np.where(y == 255, 0, y)[..., None], -1)[..., 0]
    expected = np.where(y == 255, 0, picked).mean((1, 2))
    np.testing.assert_allclose(loss(outputs, outputs, y).numpy(), expected, rtol=1e-6)
    shares = np.vstack([np.eye(5), np.zeros(5)])[np.minimum(y, 5)]
    np.testing.assert_allclose(loss(outputs, outputs, shares).numpy(), expected, rtol=1e-6)


def test_one_linear_column_under_a_metric_of_classes_is_a_logit() -> None:
    net = NetworkBuilder((1, 4))
    model = read_graph(net.finish(net.dense(net.input, 1, relu=False)))
    assert losses.head_of(model, get_metric("accuracy")).kind == "sigmoid"
    assert losses.head_of(model, get_metric("mae")).kind == "values"


losses_named = ("distillation", "labels", "both")


# --- networks of every kind ----------------------------------------------------------------------------------------


def small_network(layers: Any, models: Any) -> Any:
    """A convolution, batch norm, depthwise convolution and two classes; by either Keras."""
    inputs = layers.Input((8, 8, 1))
    h = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False)(inputs)))
    h = layers.Activation("relu")(layers.DepthwiseConv2D(3, padding="same")(h))
    return models.Model(inputs, layers.Dense(10, activation="softmax")(layers.Flatten()(h)))


def by_keras(version: int) -> bytes:
    """Trained on digits for a moment and converted."""
    if version == 2:
        import tf_keras as framework
    else:
        import keras as framework
    framework.utils.set_random_seed(0)
    x, y = digits.splits()["train"]
    model = small_network(framework.layers, framework.models)
    model.compile(framework.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(x, y, 32, 4, verbose=0)
    return flatbuffer.normalise(tf.lite.TFLiteConverter.from_keras_model(model).convert())


@pytest.mark.parametrize("maker", ["keras-2", "keras-3", "tf-module"])
def test_networks_of_every_maker_are_trained_on(maker: str, tmp_path: Path) -> None:
    if maker == "tf-module":
        built = networks.load("two-inputs")
        network, data, metric = flatbuffer.normalise(built.network), built.data, built.metric
        x = {spec.name: data[f"x_validation.{spec.name}"] for spec in Runner(network).inputs}
    else:
        network, metric = by_keras(int(maker[-1])), "accuracy"
        x = {Runner(network).inputs[0].name: digits.splits()["train"][0][:400]}
    choice = LayerChoice(bits=8, sparsity=0.5, clusters=8)
    layers, start, _, tuned = train(network, x, choice, tmp_path / "state.npz", metric=metric, epochs=12)
    assert tuned.loss_after < 0.7 * tuned.loss_before
    float_outputs = Runner(network).run(x)

    def error(solved: Any) -> float:
        written = keras_model.with_weights(network, layers, [(s.weight, s.bias) for s in solved])
        return float(np.abs(Runner(written).run(x) - float_outputs).mean())

    assert error(tuned.layers) < error(start)


# --- what can go wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "labels"}, "the loss 'labels' needs labels, and the task has no y_train"),
        ({"loss": "label"}, "unknown loss 'label'; did you mean 'labels'"),
        ({"assignments": "fixed", "target": 0.5}, "--sparsity prunes weights while they are trained"),
        ({"assignments": "loose"}, "unknown assignments 'loose'"),
        ({"budget_s": 0.0}, "--time-budget must be more than 0 s"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"learning_rate": -1.0}, "--learning-rate must be more than 0"),
    ],
)
def test_recipes_that_cannot_be_followed(
    digits_network: bytes, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    x = {"serving_default_keras_tensor:0": np.zeros((20, 8, 8, 1), np.float32)}
    with pytest.raises(AutocompressError, match=message):
        train(digits_network, x, LayerChoice(bits=8), tmp_path / "state.npz", **changes)


def test_a_loss_that_is_nan_ends_it_and_the_best_state_is_a_new_beginning(
    digits_network: bytes, tmp_path: Path
) -> None:
    x, _ = present(load_task("digits").train)()
    few, path = {n: v[:200] for n, v in x.items()}, tmp_path / "state.npz"
    choice = LayerChoice(sparsity=0.5)
    with pytest.raises(
        CandidateError,
        match=r"(the loss became (nan|inf)|weights became infinite or NaN) in step \d+ of fine-tuning; "
        r".* smaller --learn",
    ):
        train(digits_network, few, choice, path, learning_rate=1e30)
    assert path.exists()
    _, _, _, tuned = train(digits_network, few, choice, path, learning_rate=1e-3, epochs=1)
    assert math.isfinite(tuned.loss_after)
    assert tuned.loss_after <= tuned.loss_before


@pytest.mark.parametrize("take", [lambda: tf.zeros([2**44]), lambda: np.empty(2**60, np.uint8)], ids=["tf", "numpy"])
def test_memory_that_runs_out_is_said_and_what_was_kept_is_gone_on_with(
    digits_network: bytes, take: Any, tmp_path: Path
) -> None:
    x, _ = present(load_task("digits").train)()
    few, path = {n: v[:200] for n, v in x.items()}, tmp_path / "state.npz"

    def watch(now: Progress) -> None:
        if now.share > 0.5:
            take()

    with pytest.raises(CandidateError, match=r"memory ran out while fine-tuning; .* run it again, it goes on"):
        train(digits_network, few, LayerChoice(sparsity=0.5), path, watch=watch)
    assert path.exists()
    steps: list[int] = []
    _, _, _, tuned = train(
        digits_network, few, LayerChoice(sparsity=0.5), path, watch=lambda now: steps.append(now.steps)
    )
    assert 1 < steps[0] < tuned.steps


@given(st.integers(1, 256), st.integers(1, 4 * 2**30))
def test_the_batch_fits_into_memory(batch: int, available: int) -> None:
    tree = flatbuffer.read(digits.NETWORK.read_bytes())
    if memory.needed_bytes(graph_of(tree), 1000, min(batch, 8)) > available:
        with pytest.raises(AutocompressError, match="MB are free; close other programs"):
            memory.fitting_batch(graph_of(tree), 1000, batch, available)
        return
    found = memory.fitting_batch(graph_of(tree), 1000, batch, available)
    assert memory.needed_bytes(graph_of(tree), 1000, found) <= available
    assert found == batch or memory.needed_bytes(graph_of(tree), 1000, 2 * found) > available or found == 8


def test_free_memory_is_known_here() -> None:
    assert (memory.available_bytes() or 0) > 2**20


def test_the_limit_of_the_process_counts() -> None:
    code = (
        "import resource; from autocompress.finetune import memory; "
        "used = 4096 * int(open('/proc/self/statm').read().split()[0]); "
        "resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, -1)); print(memory.available_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 64 * 2**20


# --- in a study ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two uniform baselines that lose much, in `runs/s`."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "space.yaml").write_text(SPACE)
    done = call(
        "search",
        "--device",
        "rpi4",
        "--task",
        "digits",
        "--space",
        folder / "space.yaml",
        "--trials",
        2,
        "--study",
        "s",
        "--runs",
        folder / "runs",
    )
    assert done.exit_code == 0, done.output
    return folder / "runs"


def copied(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "runs"))


def test_a_trial_is_fine_tuned_and_joins_its_study(searched: Path, tmp_path: Path) -> None:
    runs = copied(searched, tmp_path)
    done = call(
        "finetune",
        "s",
        "--trial",
        STATIC_TRIAL,
        "--time-budget",
        "60s",
        "--epochs",
        40,
        "--batch",
        16,
        "--augment",
        "shift, mix",
        "--runs",
        runs,
        "--json",
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    study = study_records.load_study(runs, "s", None)
    record = study_records.read_record(study)
    parent, made = record.trials[STATIC_TRIAL], record.trials[2]
    assert made.state == "complete"
    assert evaluated(made).configuration == evaluated(parent).configuration
    assert evaluated(made).configuration.activations == "int8"
    assert evaluated(made).finetuned
    assert not evaluated(parent).finetuned
    assert evaluated(made).accuracy > evaluated(parent).accuracy
    assert study.trials[2].user_attrs["finetuned_from"] == STATIC_TRIAL
    assert study.trials[2].user_attrs["finetune"]["steps"] > 0
    assert study.trials[2].user_attrs["finetune"]["epochs"] <= 40
    assert study.trials[2].user_attrs["finetune"]["augment"] == ["shift", "mix"]
    assert study.trials[2].user_attrs["finetune"]["batch"] == 16
    # More accurate than its parent; whether by more than noise, and so in its place on the front, is another matter.
    assert [t.number for t in Front(record).strict if evaluated(t).finetuned] == [2]
    assert all(p["finetuned"] == (p["trial"] == 2) for p in report["front"])
    assert report["trials"]["complete"] == 3
    assert not list((runs / "s" / "finetune").glob("*"))
    again = call("finetune", "s", "--trial", 2, "--runs", runs)
    assert again.exit_code == 2
    assert "trial 2 is fine-tuned already" in again.stderr


def test_a_trial_is_pruned_further_while_it_is_trained(searched: Path, digits_network: bytes, tmp_path: Path) -> None:
    runs = copied(searched, tmp_path)
    arguments = ["finetune", "s", "--trial", 0, "--sparsity", 0.85, "--runs", runs]
    done = call(*arguments, "--time-budget", "20s")
    assert done.exit_code == 0, done.output
    study = study_records.load_study(runs, "s", None)
    record = study_records.read_record(study)
    parent, made = evaluated(record.trials[0]), evaluated(record.trials[2])
    kept = {n: c.sparsity for n, c in parent.configuration.layers.items()}
    found = {n: c.sparsity for n, c in made.configuration.layers.items()}
    assert all(found[name] >= kept[name] for name in kept)
    assert max(found.values()) > 0.8
    assert made.download_bytes < parent.download_bytes
    assert study.trials[2].user_attrs["finetune"]["sparsity"] == 0.85
    layers = layers_of(read_graph(digits_network))
    for layer, stored in zip(layers, read_layers((runs / made.artifact).read_bytes(), layers), strict=True):
        assert stored.zeros >= math.ceil(found[layer.name] * layer.weights - 1e-9)
    (tmp_path / "space.yaml").write_text(SPACE)
    again = call(
        "search",
        "--device",
        "rpi4",
        "--task",
        "digits",
        "--space",
        tmp_path / "space.yaml",
        "--trials",
        2,
        "--study",
        "s",
        "--runs",
        runs,
    )
    assert again.exit_code == 0, again.output


def test_what_is_trained_is_no_answer_for_its_configuration(searched: Path, tmp_path: Path) -> None:
    """The next search sees the parent's evaluation, and evaluates nothing twice."""
    runs = copied(searched, tmp_path)
    assert call("finetune", "s", "--trial", 0, "--time-budget", "5s", "--runs", runs).exit_code == 0
    from autocompress.search.storage.finished_trials import FinishedTrials

    study = study_records.load_study(runs, "s", None)
    ledger = FinishedTrials(study)
    ledger.read()
    first = evaluated(ledger.records[0])
    assert evaluated(ledger.records[2]).configuration.digest == first.configuration.digest
    assert ledger.seen[first.configuration.digest] == first


def test_the_best_are_fine_tuned_after_a_search(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    arguments = [
        "search",
        "--device",
        "rpi4",
        "--task",
        "digits",
        "--space",
        tmp_path / "space.yaml",
        "--trials",
        2,
        "--study",
        "s",
        "--runs",
        tmp_path / "runs",
        "--finetune",
        1,
    ]
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    assert "fine-tuned, accuracy" in done.stdout
    study = study_records.load_study(tmp_path / "runs", "s", None)
    parents = [t.user_attrs["finetuned_from"] for t in study.trials if "finetuned_from" in t.user_attrs]
    assert len(parents) == 1
    again = call(*arguments)  # nothing is trained twice
    assert again.exit_code == 0, again.output
    study = study_records.load_study(tmp_path / "runs", "s", None)
    parents = [t.user_attrs["finetuned_from"] for t in study.trials if "finetuned_from" in t.user_attrs]
    assert len(set(parents)) == len(parents)


def test_without_training_data_the_search_stands(tmp_path: Path) -> None:
    built = networks.load("ds-cnn")
    (tmp_path / "space.yaml").write_text(SPACE)
    done = call(
        "search",
        "--device",
        "rpi4",
        "--model",
        built.model_path,
        "--data",
        built.data_path,
        "--metric",
        built.metric,
        "--space",
        tmp_path / "space.yaml",
        "--trials",
        1,
        "--study",
        "s",
        "--runs",
        tmp_path / "runs",
        "--finetune",
        1,
    )
    assert done.exit_code == 1
    assert "not fine-tuned: task 'float' has no training data; fine-tuning needs x_train" in done.output
    assert "Front of study s: 1 of" in done.output


class Backwards(tf.Module):  # type: ignore[misc]
    """A network of a dense layer between two operators that have no way back to Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32)])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        return tf.math.cumsum(tf.reverse(x, [1]) @ self.kernel, 1)


def searched_without_labels(folder: Path, model: bytes, *arguments: Any) -> Any:
    """A study `s` of one trial in `runs`, of a network with training inputs and no labels at all."""
    x = np.random.default_rng(1).normal(size=(120, 8)).astype(np.float32)
    parts = {"x_calibration": x[:40], "x_validation": x[40:80], "x_test": x[80:], "x_train": x[:80]}
    np.savez(folder / "data.npz", **parts)
    (folder / "model.tflite").write_bytes(model)
    (folder / "space.yaml").write_text(SPACE)
    return call(
        "search",
        "--device",
        "rpi4",
        "--model",
        folder / "model.tflite",
        "--data",
        folder / "data.npz",
        "--metric",
        "fidelity",
        "--space",
        folder / "space.yaml",
        "--trials",
        1,
        "--study",
        "s",
        "--runs",
        folder / "runs",
        *arguments,
    )


def test_operators_without_a_way_back_are_listed_and_the_search_stands(tmp_path: Path) -> None:
    module = Backwards()
    made = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
    done = searched_without_labels(tmp_path, made.convert(), "--finetune", 1)
    listed = "no way back to Keras for REVERSE_V2, CUMSUM; it is searched without fine-tuning"
    assert done.exit_code == 1
    assert f"not fine-tuned: the network cannot be trained here: {listed}" in done.output
    assert "Front of study s: 1 of 1 trials" in done.output
    again = call("finetune", "s", "--trial", 0, "--runs", tmp_path / "runs")
    assert again.exit_code == 2
    assert listed in again.stderr
    assert again.stderr.strip().count("\n") == 0
    assert len(study_records.read_record(study_records.load_study(tmp_path / "runs", "s", None)).trials) == 1


def test_missing_labels_and_too_little_memory_end_only_the_fine_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as small:
        small.setattr("autocompress.finetune.train.available_bytes", lambda: 2**20)
        done = searched_without_labels(tmp_path, dense_model(), "--finetune", 1)
        assert done.exit_code == 1
        assert "not fine-tuned: fine-tuning needs about 256 MB of memory, 1 MB are free" in done.output
        assert "Front of study s: 1 of 1 trials" in done.output
        alone = call("finetune", "s", "--trial", 0, "--runs", tmp_path / "runs")
        assert alone.exit_code == 2
        assert "close other programs or give fewer training samples" in alone.stderr
    labels = call("finetune", "s", "--trial", 0, "--loss", "labels", "--runs", tmp_path / "runs")
    assert labels.exit_code == 2
    assert "the loss 'labels' needs labels, and the task has no y_train" in labels.stderr
    assert len(study_records.read_record(study_records.load_study(tmp_path / "runs", "s", None)).trials) == 1
    fits = call("finetune", "s", "--trial", 0, "--time-budget", "5s", "--runs", tmp_path / "runs")
    assert fits.exit_code == 0, fits.output  # distillation wants no labels


def test_a_trial_that_ends_with_nan_fails_with_its_reason(searched: Path, tmp_path: Path) -> None:
    runs = copied(searched, tmp_path)
    done = call("finetune", "s", "--trial", 0, "--learning-rate", "1e30", "--runs", runs)
    assert done.exit_code == 1
    assert "fine-tuning of trial 0 failed: the loss became" in done.stdout
    record = study_records.read_record(study_records.load_study(runs, "s", None))
    assert record.trials[2].state == "failed"
    assert "smaller --learning-rate than 1e+30" in (record.trials[2].reason or "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trial", 7], "study 's' has no trial 7; its front: "),
        (["--trial", 0, "--time-budget", "soon"], "'soon' is no duration"),
        (["--trial", 0, "--sparsity", 1], "--sparsity must be at least 0 and less than 1, got 1"),
        (["--trial", 0, "--sparsity", 0.3], "--sparsity 0.3 makes no layer of the trial sparser than it is"),
        (["--trial", 0, "--loss", "both", "--temperature", 2, "--learning-rate", 0], "--learning-rate must be more"),
        (["--trial", 0, "--augment", "mirror,mixup"], "unknown variation 'mixup'; did you mean 'mix'"),
    ],
)
def test_faults_are_one_line(searched: Path, arguments: list[Any], message: str) -> None:
    done = call("finetune", "s", *arguments, "--runs", searched)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_a_killed_training_goes_on_where_it_was(searched: Path, tmp_path: Path) -> None:
    runs = copied(searched, tmp_path)
    words = [sys.executable, "-m", "autocompress.cli", "finetune", "s", "--trial", "0", "--runs", str(runs)]
    state, root = runs / "s" / "finetune" / "0.npz", str(ROOT)
    child = subprocess.Popen(
        [*words, "--time-budget", "10m"],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stop_when(state.exists, lambda: [child.pid])
    child.kill()
    child.wait()
    with np.load(state) as archive:
        steps = json.loads(str(archive["facts"]))["steps"]
    assert steps > 0
    assert len(study_records.read_record(study_records.load_study(runs, "s", None)).trials) == 2
    done = call("finetune", "s", "--trial", 0, "--time-budget", "10m", "--runs", runs)
    assert done.exit_code == 0, done.output
    made = study_records.load_study(runs, "s", None).trials[2]
    first = json.loads(json.dumps(made.user_attrs["finetune"]))
    assert first["steps"] > steps
    assert made.user_attrs["evaluation"]["accuracy"] > 0.5
