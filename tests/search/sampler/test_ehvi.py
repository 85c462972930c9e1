"""Expected hypervolume improvement against the hypervolume itself and against Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress import pareto
from autocompress.search.sampler.ehvi import CellDecomposition
from tests.builders.arrays import Array

coordinates = st.floats(0.0, 1.3, allow_nan=False)


def fronts(objectives: int) -> st.SearchStrategy[Array]:
    points = st.lists(st.lists(coordinates, min_size=objectives, max_size=objectives), max_size=7)
    return points.map(lambda rows: np.array(rows, dtype=float).reshape(len(rows), objectives))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_sure_candidate_gains_what_the_hypervolume_grows_by(objectives: int, data: st.DataObject) -> None:
    front = data.draw(fronts(objectives))
    point = np.array(data.draw(st.lists(coordinates, min_size=objectives, max_size=objectives)))
    reference = np.ones(objectives)
    cells = CellDecomposition(front, reference)
    gain = cells.expected_gain(point[None], np.zeros((1, objectives)))[0]
    grown = pareto.hypervolume(np.vstack([front, point]), reference) - pareto.hypervolume(front, reference)
    assert gain == pytest.approx(grown, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_an_unsure_candidate_gains_the_mean_over_its_draws(seed: int) -> None:
    rng = np.random.default_rng(seed)
    front, reference = rng.uniform(0.1, 1.0, (6, 3)), np.ones(3)
    mean, deviation = rng.uniform(0.1, 0.9, 3), rng.uniform(0.02, 0.2, 3)
    before = pareto.hypervolume(front, reference)
    draws = mean + deviation * rng.standard_normal((20_000, 3))
    gains = [pareto.hypervolume(np.vstack([front, draw]), reference) - before for draw in draws[:4000]]
    expected = CellDecomposition(front, reference).expected_gain(mean[None], deviation[None])[0]
    assert expected == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(len(gains)))


def test_a_large_front_is_looked_at_on_a_coarser_grid_that_overstates_little() -> None:
    rng = np.random.default_rng(0)
    front = rng.dirichlet(np.ones(3), 500)
    reference, point = np.ones(3), np.array([[0.2, 0.2, 0.2]])
    grown = pareto.hypervolume(np.vstack([front, point]), reference) - pareto.hypervolume(front, reference)
    gain = CellDecomposition(front, reference).expected_gain(point, np.zeros((1, 3)))[0]
    assert grown - 1e-9 <= gain <= grown + 0.05
