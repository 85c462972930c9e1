"""The regression with effects of choices: against the same model written with one weight for each choice of each layer,
and what it must learn and must not claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.search.sampler.size_model import Coded, SizeModel, fit_size_model, log_likelihood
from tests.builders.arrays import Array

CHOICES = 4


def rows(rng: np.random.Generator, count: int, layers: int = 3) -> Coded:
    choices = rng.integers(CHOICES, size=(count, layers))
    sizes = np.take_along_axis(np.geomspace(0.02, 0.3, CHOICES)[:, None], choices, axis=0)
    return Coded(features=np.ones((count, 1)), sizes=sizes * np.geomspace(1, 3, layers), choices=choices)


def one_weight_each(coded: Coded) -> Array:
    """The features, and of each layer a column for each choice, which holds the layer's size where it has it."""
    hot = np.eye(CHOICES)[coded.choices] * coded.sizes[:, :, None]
    return np.concatenate([coded.features, hot.reshape(len(hot), hot.shape[1] * CHOICES)], axis=1)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 30))
def test_it_is_the_regression_with_one_weight_for_each_choice(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    seen, other, values = rows(rng, count), rows(rng, 5), rng.normal(0, 0.01, count)
    fitted = fit_size_model(seen, values, np.array([0.05]))
    mean, variance = fitted.predict(other)
    noise = fitted.scatter**2 * seen.sizes.sum(axis=1) ** 2 + 1e-9
    design, wanted = one_weight_each(seen), one_weight_each(other)
    prior = np.append([0.05], np.full(design.shape[1] - 1, fitted.effect**2))
    covariance = np.linalg.inv(design.T @ (design / noise[:, None]) + np.diag(1 / prior))
    weights = covariance @ (design.T @ (values / noise))
    np.testing.assert_allclose(mean, wanted @ weights, rtol=1e-4, atol=1e-7)
    least = fitted.scatter**2 * other.sizes.sum(axis=1) ** 2 + 1e-9
    np.testing.assert_allclose(variance, ((wanted @ covariance) * wanted).sum(axis=1) + least, rtol=1e-3, atol=1e-9)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12))
def test_the_likelihood_is_the_normal_distributions(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(count, count))
    covariance, values = root @ root.T + np.eye(count), rng.normal(size=count)
    slow = -0.5 * values @ np.linalg.inv(covariance) @ values - 0.5 * np.linalg.slogdet(covariance)[1]
    assert log_likelihood(covariance, values) == pytest.approx(slow)


def taught(effect: float, scatter: float, count: int = 150, seed: int = 3) -> tuple[SizeModel, Coded, Array]:
    """A fit to drawn values, and other rows with their values but for the noise."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, effect, (3, CHOICES))

    def truth(coded: Coded) -> Array:
        return np.asarray(0.02 + (coded.sizes * effects[np.arange(3), coded.choices]).sum(axis=1))

    seen, other = rows(rng, count), rows(rng, 200)
    noise = rng.normal(0, scatter, count) * seen.sizes.sum(axis=1)
    return fit_size_model(seen, truth(seen) + noise, np.array([0.05])), other, truth(other)


def test_it_learns_what_is_drawn_from_it() -> None:
    fitted, other, truth = taught(effect=0.03, scatter=0.002)
    assert (fitted.effect, fitted.scatter) == (0.03, 0.002)
    mean, variance = fitted.predict(other)
    whole = other.sizes.sum(axis=1)
    assert np.sqrt(np.mean(((mean - truth) / whole) ** 2)) < 0.001
    # Nearly all that is left is the noise of one value, which is relative: the smallest are known best.
    np.testing.assert_allclose(np.sqrt(variance), 0.002 * whole, rtol=0.25)


def test_what_no_trial_had_is_known_as_badly_as_the_tables_know_it() -> None:
    rng = np.random.default_rng(0)
    seen = rows(rng, 100)
    fitted = fit_size_model(seen, 0.02 + rng.normal(0, 0.002, 100) * seen.sizes.sum(axis=1), np.array([0.05]))
    known, new = seen.choices[:1], np.full((1, 3), CHOICES)  # a choice that none has
    sizes = seen.sizes[:1]
    deviations = [
        np.sqrt(fitted.predict(Coded(features=np.ones((1, 1)), sizes=sizes, choices=each))[1][0])
        for each in (known, new)
    ]
    assert deviations[1] ** 2 - deviations[0] ** 2 == pytest.approx(fitted.effect**2 * (sizes**2).sum(), rel=0.2)


def test_without_trials_the_tables_hold() -> None:
    rng = np.random.default_rng(1)
    other = rows(rng, 4)
    fitted = fit_size_model(rows(rng, 0), np.empty(0), np.array([0.05]))
    mean, variance = fitted.predict(other)
    assert (mean == 0).all()
    assert (fitted.effect, fitted.scatter) == (0.01, 0.002)
    assert (variance > 0.05).all()
