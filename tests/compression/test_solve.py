"""The layer solver: its promises hold for every problem, its steps equal slow references, and it beats the simple
way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression import levels as lv
from autocompress.compression import solve as sv
from autocompress.compression.solve import Problem, output_error, solve
from autocompress.compression.zero_pattern import ZeroPattern
from autocompress.records.configuration import LayerChoice
from tests.builders.arrays import Array

CHOICES = st.builds(
    LayerChoice,
    sparsity=st.sampled_from([0.0, 0.25, 0.5, 0.61, 0.8, 0.95]),
    bits=st.sampled_from([32, 16, 8, 5, 4, 3, 2]),
    clusters=st.sampled_from([None, 2, 5, 16]),
).map(LayerChoice.normalised)


def make_problem(seed: int, groups: int = 1, rows: int = 8, columns: int = 20, shared: bool = False) -> Problem:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(groups, columns, columns))
    inputs = np.maximum(rng.normal(size=(groups, 8 * columns, columns)) @ mixing, 0.0)
    moment = inputs.transpose(0, 2, 1) @ inputs / (8 * columns)
    return Problem(weight=rng.normal(size=(groups, rows, columns)), moment=moment, shared_scale=shared)


@settings(max_examples=60, deadline=None)
@given(choice=CHOICES, seed=st.integers(0, 999), shape=st.sampled_from([(1, 8, 20), (5, 1, 9), (1, 3, 40), (3, 2, 4)]))
def test_every_promise_holds(choice: LayerChoice, seed: int, shape: tuple[int, int, int]) -> None:
    problem = make_problem(seed, *shape)
    weight, moment = problem.weight.copy(), problem.moment.copy()
    solution = solve(problem, choice)
    np.testing.assert_array_equal(problem.weight, weight)
    np.testing.assert_array_equal(problem.moment, moment)
    assert np.count_nonzero(solution.values == 0) >= math.ceil(choice.sparsity * problem.size - 1e-9)
    assert np.isfinite(solution.values).all()
    if choice.is_integer:
        assert solution.levels is not None
        assert solution.scale is not None
        assert (solution.scale > 0).all()
        assert np.abs(solution.levels).max() <= 2 ** (choice.bits - 1) - 1
        assert len(np.unique(solution.levels)) <= (choice.clusters or 2**choice.bits - 1)
        np.testing.assert_allclose(solution.values, solution.levels * solution.scale, atol=1e-12)
    else:
        stored = solution.values.astype(np.float16 if choice.bits == 16 else np.float32)
        assert (stored.astype(np.float64) == solution.values).all()


def test_dead_inputs_and_all_zero_weights_are_no_fault() -> None:
    problem = Problem(weight=np.zeros((1, 4, 6)), moment=np.zeros((1, 6, 6)))
    for choice in (LayerChoice(bits=4), LayerChoice(bits=8, clusters=4, sparsity=0.5), LayerChoice(sparsity=0.5)):
        assert (solve(problem, choice).values == 0).all()


def test_padding_counts_as_no_zero() -> None:
    whole = make_problem(1, groups=2, rows=4, columns=10, shared=True)
    weight, moment = whole.weight.copy(), whole.moment.copy()
    weight[-1, :, -3:] = 0.0
    moment[-1, -3:, :] = moment[-1, :, -3:] = 0.0
    problem = Problem(weight=weight, moment=moment, shared_scale=True, padding=3)
    values = solve(problem, LayerChoice(sparsity=0.5, bits=8)).values
    exists = np.ones(values.shape, bool)
    exists[-1, :, -3:] = False
    assert np.count_nonzero(values[exists] == 0) >= math.ceil(0.5 * problem.size)
    assert (values[~exists] == 0).all()


def _obq_sweep(target: Array, damped: Array, kept: Array, table: Array, scale: Array) -> Array:
    """Optimal brain quantization in fixed order: quantize a weight, correct all later ones, drop it from the
    inverse."""
    work, inverse = target.copy(), np.linalg.inv(damped)
    for j in range(target.shape[1]):
        q = lv.nearest(work[:, j] / scale[:, 0], table) * scale[:, 0]
        q = np.where(kept[:, j], q, 0.0)
        error = (work[:, j] - q) / inverse[j, j]
        work[:, j + 1 :] -= np.outer(error, inverse[j, j + 1 :])
        work[:, j] = q
        inverse = inverse - np.outer(inverse[:, j], inverse[j, :]) / inverse[j, j]
    return work


@pytest.mark.parametrize(("seed", "columns"), [(0, 7), (1, 33), (2, 70)])
def test_sweep_equals_optimal_brain_quantization(seed: int, columns: int) -> None:
    problem = make_problem(seed, columns=columns)
    damped = problem.damped
    kept = np.random.default_rng(seed).random(problem.weight.shape) < 0.6
    table, scale = lv.all_levels(7), np.full((1, 8, 1), 0.3)
    ours = sv._sweep(problem.weight, problem.feedback, kept, table, scale)
    slow = _obq_sweep(problem.weight[0], damped[0], kept[0], table, scale[0])
    np.testing.assert_allclose(ours[0], slow, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), columns=st.sampled_from([5, 40]))
def test_descent_never_loses_and_ends_where_no_single_move_helps(seed: int, columns: int) -> None:
    problem = make_problem(seed, rows=4, columns=columns)
    damped = problem.damped
    table, scale = lv.all_levels(3), np.full((1, 4, 1), 0.5)
    kept = np.ones(problem.weight.shape, bool)
    values = lv.nearest(problem.weight / scale, table) * scale
    exact = Problem(weight=problem.weight, moment=damped)
    before = output_error(exact, values)
    for _ in range(60):
        moved = sv._descend(problem.weight, damped, kept, table, scale, values)
        assert output_error(exact, moved) <= before + 1e-9
        if np.array_equal(moved, values):
            break
        before, values = output_error(exact, moved), moved
    for row in range(4):
        for level in table:
            for column in range(0, columns, 7):
                other = values.copy()
                other[0, row, column] = level * 0.5
                assert output_error(exact, other) >= before - 1e-9


def test_float_weights_on_a_mask_are_least_squares() -> None:
    problem = make_problem(3, rows=3, columns=12)
    damped = problem.damped
    mask = np.random.default_rng(3).random(problem.weight.shape) < 0.5
    found = sv._descend_float(problem, mask, steps=60)
    for row in range(3):
        on = mask[0, row]
        slow = np.linalg.solve(damped[0][np.ix_(on, on)], (damped[0] @ problem.weight[0, row])[on])
        np.testing.assert_allclose(found[0, row, on], slow, atol=1e-6)
        assert (found[0, row, ~on] == 0).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), zeros=st.integers(1, 159))
def test_mask_drops_exactly_what_is_asked(seed: int, zeros: int) -> None:
    problem = make_problem(seed)
    mask = sv.choose_mask(problem, ZeroPattern(zeros=zeros))
    assert mask is not None
    assert np.count_nonzero(~mask) == zeros


def _simple(weight: Array, choice: LayerChoice) -> Array:
    """Magnitude pruning and rounding to nearest, one scale an output channel."""
    kept = (
        np.abs(weight) > np.quantile(np.abs(weight), choice.sparsity)
        if choice.sparsity
        else np.ones(weight.shape, bool)
    )
    limit = 2 ** (choice.bits - 1) - 1
    scale = np.abs(weight).max(axis=-1, keepdims=True) / limit
    return np.where(kept, np.rint(weight / scale) * scale, 0.0)


@pytest.mark.parametrize("shape", [(1, 16, 40), (48, 1, 9), (6, 4, 12)], ids=["plain", "depthwise", "grouped"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("choice", [LayerChoice(bits=4), LayerChoice(bits=3), LayerChoice(bits=8, sparsity=0.5)])
def test_it_beats_magnitude_and_rounding(seed: int, choice: LayerChoice, shape: tuple[int, int, int]) -> None:
    problem = make_problem(seed, *shape)
    ours = output_error(problem, solve(problem, choice).values)
    assert ours < 0.8 * output_error(problem, _simple(problem.weight, choice))
