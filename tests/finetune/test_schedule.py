"""The gradual schedule of sparsity: its closed form, and which layers it reaches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autocompress.errors import AutocompressError
from autocompress.finetune.schedule import LEAST_WEIGHTS, RISES_UNTIL, lamp, share_of_zeros, shares, sparser
from autocompress.network.graph.layers import Geometry, Layer
from autocompress.records.configuration import Configuration, LayerChoice
from tests.builders.arrays import Array

SHARES = st.floats(0, 0.99)
STEPS = 1000


def layer(name: str, op: str = "FULLY_CONNECTED", weights: int = LEAST_WEIGHTS) -> Layer:
    return Layer(
        name=name,
        op=op,
        tensor_name=name,
        operator=0,
        input=0,
        weight=1,
        bias=None,
        output=2,
        shape=(1, weights),
        input_shape=(1, weights),
        output_shape=(1, 1),
        geometry=Geometry(),
        macs=weights,
    )


@given(SHARES, SHARES, st.integers(0, STEPS))
def test_rises_by_the_cubic_of_zhu_and_gupta(first: float, target: float, step: int) -> None:
    first, target = min(first, target), max(first, target)
    rising = RISES_UNTIL * STEPS  # n * delta_t of eq. 1
    expected = target if step >= rising else target + (first - target) * (1 - step / rising) ** 3
    assert share_of_zeros(first, target, step / STEPS) == pytest.approx(expected, abs=1e-12)


@given(SHARES, SHARES, st.floats(0, 1), st.floats(0, 1))
def test_never_falls(first: float, target: float, one: float, other: float) -> None:
    early, late = share_of_zeros(first, target, min(one, other)), share_of_zeros(first, target, max(one, other))
    assert first <= early <= late + 1e-15
    assert late <= max(first, target) + 1e-15


@given(SHARES, SHARES)
def test_ends_at_the_target_unless_there_was_more(first: float, target: float) -> None:
    assert share_of_zeros(first, target, 0.0) == pytest.approx(first)
    assert share_of_zeros(first, target, RISES_UNTIL) == share_of_zeros(first, target, 1.0) == max(first, target)


WEIGHTS = arrays(np.float32, st.integers(2, 40), elements=st.floats(-8, 8, width=32))


@given(WEIGHTS)
def test_scores_are_those_of_the_paper(weight: Array) -> None:
    """Against its equation written out; equal sizes share the sum, so one of them may stand for the other."""
    squares = weight.astype(np.float64) ** 2
    order = np.argsort(squares, kind="stable")
    for place, at in enumerate(order):
        rest = squares[order[place:]].sum()
        assert lamp(weight)[at] == pytest.approx(squares[at] / rest if rest > 0 else 0.0, rel=1e-9, abs=1e-300)


@given(st.lists(WEIGHTS, min_size=1, max_size=4), st.floats(0, 0.999))
def test_so_many_of_all_weights_become_zeros(weights: list[Array], sparsity: float) -> None:
    found = shares(weights, [str(n) for n in range(len(weights))], sparsity)
    zeros = [math.ceil(found[str(n)] * each.size - 1e-9) for n, each in enumerate(weights)]
    kept_one = sum(count >= each.size - 1 for count, each in zip(zeros, weights, strict=True))
    assert sum(zeros) >= math.ceil(sparsity * sum(each.size for each in weights) - 1e-9) - kept_one
    assert all(0 <= share < 1 for share in found.values())


def test_a_target_raises_only_layers_that_are_pruned_and_have_less() -> None:
    layers = [layer("a_0"), layer("b_0"), layer("dw_0", "DEPTHWISE_CONV_2D"), layer("c_0", weights=LEAST_WEIGHTS - 1)]
    weights = {each.name: np.random.default_rng(0).normal(size=each.shape) for each in layers}
    choices = {each.name: LayerChoice(sparsity=0.5, bits=4, clusters=8) for each in layers}
    choices["b_0"] = LayerChoice(sparsity=0.95, bits=8)
    found = sparser(Configuration(layers=choices), layers, weights, 0.8).layers
    assert found["a_0"].sparsity == pytest.approx(0.8, abs=0.05)
    assert found == choices | {"a_0": LayerChoice(sparsity=found["a_0"].sparsity, bits=4, clusters=8)}


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_target_outside_is_refused(sparsity: float) -> None:
    with pytest.raises(AutocompressError, match="at least 0 and less than 1"):
        sparser(Configuration(layers={"a_0": LayerChoice()}), [layer("a_0")], {"a_0": np.ones((1, 256))}, sparsity)


@pytest.mark.parametrize(("op", "sparsity"), [("FULLY_CONNECTED", 0.5), ("DEPTHWISE_CONV_2D", 0.99)])
def test_a_target_that_changes_nothing_is_refused(op: str, sparsity: float) -> None:
    weights = {"a_0": np.random.default_rng(0).normal(size=(1, LEAST_WEIGHTS))}
    with pytest.raises(AutocompressError, match="makes no layer of the trial sparser than it is"):
        sparser(Configuration(layers={"a_0": LayerChoice(sparsity=0.9)}), [layer("a_0", op)], weights, sparsity)
