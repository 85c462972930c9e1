"""Moments and weights as bad calibration data and odd networks give them: the solver's result is defined all the
same."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression import definite
from autocompress.compression.solve import Problem, output_error, solve
from autocompress.compression.survey import survey
from autocompress.compression.tables import probe_choices, sensitivity_curve
from autocompress.network.tflite.short_floats import short
from autocompress.records.configuration import LayerChoice
from tests.builders.arrays import Array

CHOICES = st.builds(
    LayerChoice,
    sparsity=st.sampled_from([0.0, 0.5, 0.9]),
    bits=st.sampled_from([32, 16, 8, 4, 2]),
    clusters=st.sampled_from([None, 2, 16]),
).map(LayerChoice.normalised)
COLUMNS = 12
INPUTS = ("sound", "dead", "duplicated", "few", "constant", "shifted", "all constant", "none")
MOMENTS = ("as is", "tiny", "huge", "not a number", "infinite", "indefinite")
WEIGHTS = ("sound", "zero row", "zeros", "denormal", "tiny", "huge", "mixed", "constant")


def inputs_of(kind: str, rng: np.random.Generator) -> Array:
    x = np.maximum(rng.normal(size=(5 if kind == "few" else 60, COLUMNS)), 0.0)
    if kind == "dead":
        x[:, ::3] = 0.0
    elif kind == "duplicated":
        x[:, 6:] = x[:, :6]
    elif kind == "constant":
        x[:, 2], x[:, 7] = 5.0, -3000.0
    elif kind == "shifted":
        x += 3000.0
    elif kind == "all constant":
        x[:] = 7.3
    elif kind == "none":
        x[:] = 0.0
    return x.astype(np.float32)


def moment_of(inputs: str, kind: str, centred: bool, rng: np.random.Generator) -> Array:
    """As it is computed: in single precision, then the mean's part taken away."""
    x = inputs_of(inputs, rng)
    moment = (x.T @ x / np.float32(len(x))).astype(np.float64)
    if centred:
        mean = x.mean(axis=0).astype(np.float64)
        moment = moment - np.outer(mean, mean)
    moment = moment * {"tiny": 1e-70, "huge": 1e60}.get(kind, 1.0)
    if kind in ("not a number", "infinite"):
        moment[3, 3] = np.nan if kind == "not a number" else np.inf
    if kind == "indefinite":
        moment = (noise := rng.normal(size=moment.shape)) + noise.T
    return moment[None]


def weight_of(kind: str, rng: np.random.Generator) -> Array:
    weight = rng.normal(size=(1, 6, COLUMNS))
    sizes = {"zeros": 0.0, "denormal": 1e-42, "tiny": 1e-20, "huge": 1e30}
    if kind == "zero row":
        weight[:, 2] = 0.0
    elif kind == "mixed":
        weight *= 10.0 ** rng.uniform(-30, 0, (1, 6, 1))
    elif kind == "constant":
        weight[:] = 0.3
    found: Array = (weight * sizes.get(kind, 1.0)).astype(np.float32).astype(np.float64)
    return found


problems = st.builds(
    lambda inputs, moment, centred, weight, seed: Problem(
        weight=weight_of(weight, np.random.default_rng(seed)),
        moment=moment_of(inputs, moment, centred, np.random.default_rng(seed + 1)),
    ),
    st.sampled_from(INPUTS),
    st.sampled_from(MOMENTS),
    st.booleans(),
    st.sampled_from(WEIGHTS),
    st.integers(0, 99),
)


@settings(max_examples=400, deadline=None)
@given(problem=problems, choice=CHOICES)
def test_every_promise_holds_whatever_the_numbers(problem: Problem, choice: LayerChoice) -> None:
    solution = solve(problem, choice)
    assert np.isfinite(solution.values).all()
    assert np.count_nonzero(solution.values == 0) >= math.ceil(choice.sparsity * problem.size - 1e-9)
    assert output_error(problem, solution.values) >= -1e-9 * problem.energy
    if choice.is_integer:
        assert solution.levels is not None
        assert solution.scale is not None
        scale = solution.scale.astype(np.float32)
        assert np.isfinite(scale).all()
        assert (scale >= np.finfo(np.float32).tiny).all()  # XNNPACK takes no denormal scales
        np.testing.assert_array_equal(scale, solution.scale)
        np.testing.assert_allclose(solution.values, solution.levels * solution.scale, rtol=1e-9, atol=0)
        assert np.abs(solution.levels).max() <= 2 ** (choice.bits - 1) - 1
        assert len(np.unique(solution.levels)) <= (choice.clusters or 2**choice.bits - 1)


def slow_error(problem: Problem, values: Array) -> float:
    """The output error by the moment's eigenvectors, those above zero, and what damping adds to it."""
    total, gaps = 0.0, (problem.weight - values)[0]
    eigenvalues, vectors = np.linalg.eigh((problem.moment[0] + problem.moment[0].T) / 2)
    above = np.maximum(eigenvalues, 0.0)
    for value, vector in zip(above, vectors.T, strict=True):
        total += value * sum(float(gap @ vector) ** 2 for gap in gaps)
    return total + (0.01 * float(above.sum()) / COLUMNS) * float((gaps * gaps).sum())


finite = st.builds(
    lambda inputs, moment, centred, weight, seed: Problem(
        weight=weight_of(weight, np.random.default_rng(seed)),
        moment=moment_of(inputs, moment, centred, np.random.default_rng(seed + 1)),
    ),
    st.sampled_from(INPUTS),
    st.sampled_from(("as is", "tiny", "huge", "indefinite")),
    st.booleans(),
    st.sampled_from(WEIGHTS),
    st.integers(0, 99),
)


@settings(max_examples=200, deadline=None)
@given(problem=finite, bits=st.sampled_from([8, 4]))
def test_the_error_stays_that_of_plain_rounding(problem: Problem, bits: int) -> None:
    largest = np.abs(problem.weight).max(axis=2, keepdims=True)
    scale = short(np.maximum(largest / (2 ** (bits - 1) - 1), 2.0**-100), up=True)
    plain = np.rint(problem.weight / scale) * scale
    solved = solve(problem, LayerChoice(bits=bits)).values
    # At 8 bits the last fit of the scale may clip the largest weights, on sound moments too: some 1e-4 of the energy.
    room = 1e-3 * slow_error(problem, 0.0 * plain)
    assert slow_error(problem, solved) <= 1.5 * slow_error(problem, plain) + room


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 999), columns=st.integers(1, 20), samples=st.integers(1, 80))
def test_a_moment_of_any_samples_is_left_as_it_is(seed: int, columns: int, samples: int) -> None:
    x = np.random.default_rng(seed).normal(size=(samples, columns)).astype(np.float32)
    moment = (x.T @ x / np.float32(samples)).astype(np.float64)[None]
    assert definite.semidefinite(moment) is moment
    problem = Problem(weight=np.ones((1, 2, columns)), moment=moment)
    assert problem.ordinary is problem


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 999), columns=st.integers(1, 9), shift=st.floats(-3, 3))
def test_what_is_no_moment_becomes_the_nearest_one(seed: int, columns: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    given_ = rng.normal(size=(columns, columns))
    given_ = (given_ + given_.T) / 2 + shift * np.eye(columns)
    (found,) = definite.semidefinite(given_[None])
    assert np.linalg.eigvalsh(found).min() >= -1e-9 - 0.005 * max(float(np.trace(found)), 0.0) / columns
    distance = np.linalg.norm(found - given_)
    for _ in range(20):  # none of other semidefinite matrices is nearer
        factor = rng.normal(size=(columns, columns)) * rng.uniform(0, 1)
        assert distance <= np.linalg.norm(factor @ factor.T - given_) + 1e-9


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), choice=CHOICES, power=st.integers(-60, 60))
def test_a_unit_of_weights_changes_nothing(seed: int, choice: LayerChoice, power: int) -> None:
    """Solved in any unit the result is the same but for the unit."""
    rng = np.random.default_rng(seed)
    one = Problem(weight=rng.normal(size=(1, 6, COLUMNS)), moment=moment_of("sound", "as is", True, rng))
    other = dataclasses.replace(one, weight=one.weight * 2.0**power, _masks={}, _inverses={})
    choice = dataclasses.replace(choice, bits=32) if choice.bits == 16 else choice
    np.testing.assert_allclose(solve(other, choice).values, solve(one, choice).values * 2.0**power, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(problem=problems)
def test_layer_tables_stay_finite(problem: Problem) -> None:
    choices = [
        LayerChoice(),
        LayerChoice(bits=8),
        LayerChoice(bits=4, sparsity=0.5),
        LayerChoice(bits=8, clusters=4),
        LayerChoice(bits=16),
        LayerChoice(sparsity=0.8),
    ]
    seen = survey(problem, choices)
    assert np.isfinite(seen.error).all()
    assert (seen.error >= 0).all()
    assert np.isfinite(seen.bytes).all()
    curve = sensitivity_curve([(float(seen.error[at]), 0.1) for at in probe_choices(choices, seen.error)], seen.error)
    assert np.isfinite(curve).all()


def test_weights_beyond_half_precision_get_its_largest() -> None:
    problem = Problem(weight=np.array([[[1e6, -2.0]]]), moment=np.eye(2)[None])
    np.testing.assert_array_equal(solve(problem, LayerChoice(bits=16)).values, [[[65504.0, -2.0]]])


@pytest.mark.parametrize("size", [0.0, 1.0, 2.0**-20, 2.0**20, -0.0])
def test_ordinary_sizes_keep_their_unit(size: float) -> None:
    assert definite.unit_of(size, "weight") == 1.0


@given(seed=st.integers(0, 1000), size=st.integers(1, 9), groups=st.integers(1, 3), single=st.booleans())
def test_wide_matrices_are_inverted_as_narrow_ones_are(seed: int, size: int, groups: int, single: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, 2 * size + 2, size))
    matrix = definite.damped(x.transpose(0, 2, 1) @ x).astype(np.float32 if single else np.float64)
    right = rng.standard_normal((groups, size, 2)).astype(matrix.dtype)
    near = 1e-2 if single else 1e-8
    narrow = definite.inverse(matrix), definite.inverse_factor(matrix), definite.solve(matrix, right)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(definite, "_WIDE", 0)
        wide = definite.inverse(matrix), definite.inverse_factor(matrix), definite.solve(matrix, right)
    for ours, reference in zip(wide, narrow, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=near, atol=near)
    assert (np.tril(wide[1], -1) == 0).all()


def test_a_wide_matrix_that_is_not_definite_is_a_fault_of_linear_algebra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definite, "_WIDE", 0)
    with pytest.raises(np.linalg.LinAlgError):
        definite.inverse(-np.eye(3)[None])
    with pytest.raises(np.linalg.LinAlgError):
        definite.inverse_factor(-np.eye(3)[None])
    np.testing.assert_allclose(definite.solve(-np.eye(3)[None], np.ones((1, 3, 1))), -np.ones((1, 3, 1)))
