"""Expected hypervolume improvement against the hypervolume itself and against Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress import pareto
from autocompress.records.hypervolume import Reference
from autocompress.search.sampler.acquisition import HypervolumeScale
from autocompress.search.sampler.ehvi import CellDecomposition
from tests.builders.arrays import Array
from tests.builders.records import make_evaluation

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


def test_a_belief_about_a_size_is_the_log_normal_one_of_the_same_mean_and_variance() -> None:
    baseline = make_evaluation(0.9, 0.2, 80_000)
    reference = Reference(baseline=baseline, int8_download_bytes=20_000, higher_is_better=True)
    scale = HypervolumeScale(reference, ("accuracy", "download_bytes", "file_bytes"))
    mean, deviation = np.array([[0.02, 0.5, 0.1]]), np.array([[0.01, 0.2, 0.06]])
    middle, spread = scale(mean, deviation)
    draws = np.random.default_rng(0).normal(middle, spread, (400_000, 3))
    back = np.column_stack([draws[:, 0] * 0.1, 8 ** draws[:, 1], 8 ** draws[:, 2] / 4])
    assert back.mean(axis=0) == pytest.approx(mean[0], rel=5e-3)
    assert back.std(axis=0) == pytest.approx(deviation[0], rel=2e-2)
    sure, none = scale(np.array([[0.1, 1.0, 0.25]]), np.zeros((1, 3)))
    assert sure[0] == pytest.approx([1, 0, 0])
    assert (none == 0).all()
    assert np.isfinite(scale(np.array([[0.0, -0.5, 0.0]]), deviation)).all()
