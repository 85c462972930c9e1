"""Levels and scales against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compression import levels as lv
from autocompress.compression.solve import Problem, output_error, solve
from autocompress.records.configuration import LayerChoice
from tests.builders.arrays import Array

TABLES = st.lists(st.integers(-127, 127), min_size=1, max_size=20).map(lambda v: np.unique([*v, 0]).astype(float))


@given(table=TABLES, values=st.lists(st.floats(-200, 200), min_size=1, max_size=30))
def test_nearest_is_the_brute_force_minimum(table: Array, values: list[float]) -> None:
    found = lv.nearest(np.array(values), table)
    assert np.isin(found, table).all()
    gaps = np.abs(np.array(values)[:, None] - table[None, :]).min(axis=1)
    np.testing.assert_allclose(np.abs(found - values), gaps, atol=1e-9)


@pytest.mark.parametrize("limit", [1, 3, 7, 127])
def test_all_levels_are_symmetric_and_hold_zero(limit: int) -> None:
    table = lv.all_levels(limit)
    assert len(table) == 2 * limit + 1
    assert table[0] == -limit
    assert table[-1] == limit
    assert 0.0 in table


@given(seed=st.integers(0, 2**16), clusters=st.integers(2, 40), limit=st.sampled_from([3, 7, 127]))
def test_initial_levels_are_few_integers_with_zero(seed: int, clusters: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    ratios = rng.normal(size=(1, 6, 9)) * limit / 3
    table = lv.initial_levels(ratios, np.ones((1, 1, 9)), np.ones(ratios.shape, bool), limit, clusters)
    assert len(table) <= clusters
    assert 0.0 in table
    assert (np.abs(table) <= limit).all()
    assert (table == np.rint(table)).all()


def _lloyd_slow(values: Array, weights: Array, centres: Array) -> Array:
    for _ in range(20):
        owner = np.abs(values[:, None] - centres[None, :]).argmin(axis=1)
        for k, centre in enumerate(centres.copy()):
            mine = owner == k
            if centre != 0.0 and mine.any():
                centres[k] = np.average(values[mine], weights=weights[mine])
    return centres


@pytest.mark.parametrize("seed", range(8))
def test_kmeans_loses_no_more_than_plain_lloyd(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, weights = np.sort(rng.normal(size=300)) * 40, rng.random(300) + 0.1
    start = np.unique(np.quantile(values, np.linspace(0, 1, 9)))
    start[np.abs(start).argmin()] = 0.0

    def loss(centres: Array) -> float:
        return float((weights * np.abs(values[:, None] - centres).min(axis=1) ** 2).sum())

    ours = lv._kmeans_with_zero(values, weights, 9)
    assert loss(ours) == pytest.approx(loss(_lloyd_slow(values, weights, start.copy())), rel=1e-6)


def _random_problem(seed: int, groups: int = 2, rows: int = 3, columns: int = 6) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(groups, 4 * columns, columns)) @ rng.normal(size=(groups, columns, columns))
    return rng.normal(size=(groups, rows, columns)), inputs.transpose(0, 2, 1) @ inputs / (4 * columns)


def _error(weight: Array, moment: Array, values: Array) -> float:
    gap = weight - values
    return float(np.einsum("grn,gnm,grm->", gap, moment, gap))


@given(seed=st.integers(0, 2**16), shared=st.booleans(), factor=st.sampled_from([0.97, 1.03]))
def test_refitted_scale_is_the_least_squares_one(seed: int, shared: bool, factor: float) -> None:
    weight, moment = _random_problem(seed)
    start = np.full((1, 3, 1) if shared else (2, 3, 1), 0.4)
    q = np.clip(np.rint(weight / start), -7, 7)
    scale = lv.refit_scale(weight, moment, q, start, shared)
    assert scale.shape == start.shape
    best = _error(weight, moment, q * scale)
    assert best <= _error(weight, moment, q * start) + 1e-9
    assert best <= _error(weight, moment, q * scale * factor) + 1e-9


def test_refitted_levels_solve_the_normal_equations() -> None:
    weight, moment = _random_problem(5, groups=1, rows=4, columns=8)
    scale = np.full((1, 4, 1), 0.02)
    table = np.array([-60.0, -20.0, 0.0, 25.0, 70.0])
    q = lv.nearest(weight / scale, table)
    refitted, moved = lv.refit_levels(weight, moment, q, scale, table, 127, 5)
    columns = []  # the slow way: one stacked least-squares problem in the square root of H
    root = np.linalg.cholesky(moment[0]).T
    for level in table[table != 0]:
        columns.append(((q[0] == level) * scale[0] @ root.T).ravel())
    slow = np.linalg.lstsq(np.stack(columns, axis=1), (weight[0] @ root.T).ravel(), rcond=None)[0]
    np.testing.assert_array_equal(refitted[refitted != 0], np.unique(np.clip(np.rint(slow), -127, 127)))
    assert np.isin(moved, refitted).all()


def test_low_bits_clip_where_that_loses_less() -> None:
    weight = np.concatenate([np.full(200, 0.1), [1.0]])[None, None, :]
    scale = lv.initial_scale(weight, np.ones((1, 1, 201)), np.ones(weight.shape, bool), 3, None, False)
    assert scale[0, 0, 0] < 1.0 / 3


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_levels_fitted_on_some_output_channels_are_as_good(
    groups: int, sparsity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((groups, 400, 40)) @ rng.standard_normal((groups, 40, 40))
    moment = x.transpose(0, 2, 1) @ x / 400
    weight = rng.standard_normal((groups, 96, 40)) * rng.uniform(0.3, 1.0, (1, 96, 1))
    choice = LayerChoice(bits=8, clusters=8, sparsity=sparsity)
    errors = []
    for work in (1e12, 32 * groups * 40**2):
        monkeypatch.setattr(lv, "_MOST_WORK", work)
        problem = Problem(weight=weight, moment=moment, shared_scale=groups > 1)
        errors.append(output_error(problem, solve(problem, choice).values))
    assert errors[1] != errors[0]
    assert errors[1] == pytest.approx(errors[0], rel=0.08)
