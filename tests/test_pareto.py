"""Fronts, hypervolume and knee against closed forms, slow references and invariances."""

from __future__ import annotations

import itertools
import math
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autocompress import pareto
from tests.builders.arrays import Floats

SIDE = 4


@st.composite
def grid_points(draw: st.DrawFn, most_objectives: int = 5, most_points: int = 8) -> Floats:
    """Small integer points: many ties and duplicates, and volumes that are counts of unit cells."""
    shape = (draw(st.integers(1, most_points)), draw(st.integers(1, most_objectives)))
    return draw(hnp.arrays(np.float64, shape, elements=st.integers(0, SIDE).map(float)))


@st.composite
def real_points(draw: st.DrawFn, objectives: int = 3) -> Floats:
    shape = (draw(st.integers(1, 12)), objectives)
    return draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1, allow_subnormal=False)))


def _dominates(a: Floats, b: Floats) -> bool:
    return all(a <= b) and any(a < b)


def _slow_mask(p: Floats) -> list[bool]:
    return [
        not any(_dominates(other, point) for other in p) and not any((earlier == point).all() for earlier in p[:i])
        for i, point in enumerate(p)
    ]


@given(grid_points())
@settings(deadline=None)
def test_non_dominated_is_its_definition(p: Floats) -> None:
    assert pareto.non_dominated(p).tolist() == _slow_mask(p)


@given(grid_points(), st.randoms())
@settings(deadline=None)
def test_non_dominated_vectors_do_not_depend_on_the_order(p: Floats, random: Random) -> None:
    order = list(range(len(p)))
    random.shuffle(order)
    shuffled = p[order]
    assert set(map(tuple, p[pareto.non_dominated(p)])) == set(map(tuple, shuffled[pareto.non_dominated(shuffled)]))


def test_non_dominated_of_nothing_of_zeros_and_of_infinity() -> None:
    assert pareto.non_dominated(np.empty((0, 3))).tolist() == []
    assert pareto.non_dominated([]).tolist() == []
    assert pareto.non_dominated([[0.0, -0.0], [-0.0, 0.0]]).tolist() == [True, False]
    assert pareto.non_dominated([[1.0, math.inf], [1.0, 2.0], [0.0, math.inf]]).tolist() == [False, True, True]


@pytest.mark.parametrize("bad", [[[1.0, math.nan]], [1.0, 2.0]])
def test_what_is_no_set_of_points_is_refused(bad: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match="points must have shape"):
        pareto.non_dominated(bad)


def _cells_dominated(p: Floats) -> int:
    """Unit cells of [0, SIDE)^d whose lower corner some point is nowhere above."""
    cells = np.array(list(itertools.product(range(SIDE), repeat=p.shape[1])))
    return int((p[:, None, :] <= cells[None]).all(axis=2).any(axis=0).sum())


@given(grid_points())
@settings(deadline=None)
def test_hypervolume_counts_unit_cells(p: Floats) -> None:
    assert pareto.hypervolume(p, np.full(p.shape[1], float(SIDE))) == pytest.approx(_cells_dominated(p), abs=1e-9)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5])
def test_hypervolume_of_a_box(d: int) -> None:
    sides = np.arange(1.0, d + 1)
    assert pareto.hypervolume([-sides], np.zeros(d)) == pytest.approx(math.factorial(d))


@pytest.mark.parametrize(("d", "m"), [(2, 30), (3, 12), (4, 6), (5, 4)])
def test_hypervolume_of_a_stepped_simplex(d: int, m: int) -> None:
    front = np.array([c for c in itertools.product(range(m + 1), repeat=d) if sum(c) == m], dtype=float)
    missing = math.comb(m - 1 + d, d)  # unit cells with a coordinate sum below m
    assert pareto.hypervolume(front, np.full(d, m + 1.0)) == pytest.approx((m + 1) ** d - missing)


def test_hypervolume_of_two_boxes_is_their_union() -> None:
    assert pareto.hypervolume([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5]], [1, 1, 1]) == pytest.approx(0.25 + 0.25 - 0.125)


@pytest.mark.parametrize(("d", "n"), [(3, 1000), (4, 40), (5, 20)])
def test_hypervolume_agrees_with_monte_carlo(d: int, n: int) -> None:
    rng = np.random.default_rng(d)
    sphere = np.abs(rng.normal(size=(n, d)))
    front = 1 - sphere / np.linalg.norm(sphere, axis=1, keepdims=True)
    darts = rng.random((20_000, d))
    hit = np.zeros(len(darts), dtype=bool)
    for point in front:
        hit |= (point <= darts).all(axis=1)
    assert pareto.hypervolume(front, np.ones(d)) == pytest.approx(hit.mean(), abs=5 * hit.std() / math.sqrt(len(hit)))


@given(real_points(), st.permutations(range(3)), st.randoms())
@settings(deadline=None)
def test_hypervolume_does_not_depend_on_the_order_of_points_or_objectives(
    p: Floats, objectives: list[int], random: Random
) -> None:
    order = list(range(len(p)))
    random.shuffle(order)
    reference = np.array([1.0, 0.9, 0.8])
    expected = pareto.hypervolume(p, reference)
    assert pareto.hypervolume(p[order][:, objectives], reference[objectives]) == pytest.approx(expected, abs=1e-12)


@given(real_points(), hnp.arrays(np.float64, 3, elements=st.floats(0.1, 10)), st.integers(-3, 3))
@settings(deadline=None)
def test_hypervolume_scales_and_shifts_with_the_axes(p: Floats, scale: Floats, shift: int) -> None:
    expected = pareto.hypervolume(p, np.ones(3)) * np.prod(scale)
    assert pareto.hypervolume(p * scale + shift, scale + shift) == pytest.approx(expected, abs=1e-9)


@given(real_points(), hnp.arrays(np.float64, 3, elements=st.floats(0, 1)))
@settings(deadline=None)
def test_one_more_point_adds_at_most_its_box_and_nothing_if_dominated(p: Floats, extra: Floats) -> None:
    before = pareto.hypervolume(p, np.ones(3))
    after = pareto.hypervolume(np.vstack([p, extra]), np.ones(3))
    assert before - 1e-12 <= after <= before + np.prod(1 - extra) + 1e-12
    worse = np.maximum(p[0], extra)
    assert pareto.hypervolume(np.vstack([p, worse]), np.ones(3)) == pytest.approx(before, abs=1e-12)


def test_points_on_or_outside_the_reference_add_nothing() -> None:
    assert pareto.hypervolume([[1.0, 0.0], [0.0, 1.0], [0.5, 2.0], [0.0, math.inf]], [1, 1]) == 0
    assert pareto.hypervolume(np.empty((0, 3)), [1, 1, 1]) == 0


@pytest.mark.parametrize(
    ("points", "reference"), [([[0.0, 0.0]], [1.0]), ([[0.0]], [math.inf]), ([[-math.inf]], [1.0])]
)
def test_hypervolume_refuses_what_has_no_volume(points: npt.ArrayLike, reference: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match="finite reference"):
        pareto.hypervolume(points, reference)


def _distance_to_chord(p: Floats) -> Floats:
    """Distance of a two-objective front, towards the ideal, from the line through its first and last
    point."""
    q = (p - p.min(axis=0)) / np.ptp(p, axis=0)
    along, across = q[-1] - q[0], q - q[0]
    return np.asarray((along[1] * across[:, 0] - along[0] * across[:, 1]) / np.linalg.norm(along))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=12))
@settings(deadline=None)
def test_knee_of_two_objectives_is_farthest_from_the_chord(steps: list[tuple[int, int]]) -> None:
    front = np.cumsum([(0, 0), *steps], axis=0) * [1.0, -1.0]
    distance = _distance_to_chord(front)
    assert distance[pareto.knee(front)] == pytest.approx(distance.max(), abs=1e-9)


def test_knee_of_known_fronts() -> None:
    assert pareto.knee([[0.0, 10.0], [1.0, 2.0], [2.0, 1.9], [10.0, 0.0]]) == 1
    assert pareto.knee([[5.0, 5.0, 5.0]]) == 0
    assert pareto.knee([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.2, 0.2, 0.3]]) == 3
    assert (
        pareto.knee([[0.0, 7.0, 1.0], [0.1, 7.0, 0.1], [1.0, 7.0, 0.0]]) == 1
    )  # an objective that is the same for all


@given(real_points(), hnp.arrays(np.float64, 3, elements=st.sampled_from([0.001, 0.5, 1000.0])))
@settings(deadline=None)
def test_knee_does_not_depend_on_units(p: Floats, scale: Floats) -> None:
    assert pareto.knee(p * scale) == pareto.knee(p)


@pytest.mark.parametrize("bad", [np.empty((0, 2)), [[0.0, math.inf]]])
def test_knee_refuses_no_or_infinite_points(bad: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match="the knee needs"):
        pareto.knee(bad)


def _study_volume(
    accuracy: npt.ArrayLike, latency_ms: npt.ArrayLike, download_bytes: npt.ArrayLike, **changes: Any
) -> float:
    baseline = {"baseline_accuracy": 0.9, "baseline_latency_ms": 2.0, "int8_download_bytes": 1000.0}
    return pareto.study_hypervolume(accuracy, latency_ms, download_bytes, **(baseline | changes))


def test_study_hypervolume_of_one_candidate_is_a_product() -> None:
    assert _study_volume([0.85], [0.5], [250]) == pytest.approx(0.5 * (5 / 3) * (4 / 3 + 1 / 3))  # log_8(2) = 1/3
    assert _study_volume([0.92], [1.0], [500]) == pytest.approx(1.2 * (4 / 3) * (4 / 3))  # better than the baseline
    assert _study_volume([0.9], [2.0], [1000]) == pytest.approx(1)


def test_study_hypervolume_drops_what_is_outside_and_is_zero_without_candidates() -> None:
    assert _study_volume([0.79, 0.89, 0.89], [1, 16, 1], [10, 10, 8000]) == 0
    assert _study_volume([], [], []) == 0


@given(st.lists(st.tuples(st.floats(0.8, 0.95), st.floats(0.1, 2), st.floats(1, 1000)), min_size=1, max_size=8))
@settings(deadline=None)
def test_study_hypervolume_turns_the_sign_where_lower_is_better(candidates: list[tuple[float, float, float]]) -> None:
    value, latency, download = np.array(candidates).T
    expected = _study_volume(value, latency, download)
    turned = _study_volume(-value, latency, download, baseline_accuracy=-0.9, higher_is_better=False)
    assert turned == pytest.approx(expected, abs=1e-12)


def test_study_hypervolume_refuses_a_scale_of_zero() -> None:
    with pytest.raises(ValueError, match="scales must be positive"):
        _study_volume([0.9], [1], [1], int8_download_bytes=0)
