"""Intervals and statistics against published values and slow, obvious references."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress import stats
from tests.builders.arrays import Floats
from tests.builders.optional import present

Statistic = Literal["mean", "median"]

finite = st.floats(-1e6, 1e6, allow_subnormal=False)
samples = st.lists(finite, min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_values_of_newcombe_1998_table_1(successes: int, n: int, low: float, high: float) -> None:
    assert stats.wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000), st.data())
@settings(deadline=None)
def test_wilson_ends_solve_the_score_equation_and_mirror(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = stats.wilson_interval(successes, n)
    p = successes / n
    assert 0 <= low <= p <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(p - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.959963984540054, rel=1e-6)
    mirrored = stats.wilson_interval(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes must lie in"):
        stats.wilson_interval(successes, n)


def test_wilson_is_exact_at_the_ends() -> None:
    assert stats.wilson_interval(0, 7)[0] == 0.0
    assert stats.wilson_interval(7, 7)[1] == 1.0


def _all_resamples(x: list[float]) -> Floats:
    return np.array(list(itertools.product(x, repeat=len(x))))


def _quantile_band(resampled: Floats, tail: float) -> Floats:
    """The values that the tail quantile of thousands of draws from `resampled` may take."""
    return np.quantile(resampled, [tail - 0.012, tail + 0.012], method="inverted_cdf")


@pytest.mark.parametrize("statistic", ["mean", "median"])
@given(x=st.lists(st.integers(-20, 20), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_bootstrap_agrees_with_the_enumeration_of_all_resamples(
    statistic: Statistic, x: list[float], seed: int
) -> None:
    exact = getattr(np, statistic)(_all_resamples(x), axis=1)
    ends = stats.bootstrap_interval(x, statistic, seed=seed, n=20_000)
    for tail, end in zip((0.025, 0.975), ends, strict=True):
        low, high = _quantile_band(exact, tail)
        assert low - 1e-9 <= end <= high + 1e-9


@pytest.mark.parametrize("n", [65, 800, 3001])
@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_bootstrap_of_many_distinct_values_agrees_with_resampling_one_by_one(statistic: Statistic, n: int) -> None:
    x = np.random.default_rng(n).lognormal(size=n)
    rng = np.random.default_rng(1)
    slow = [getattr(np, statistic)(rng.choice(x, size=n)) for _ in range(2000)]
    low, high = np.quantile(slow, (0.025, 0.975))
    noise = 0.3 * np.std(slow)  # 2,000 resamples know an end within about .06 standard deviations
    assert stats.bootstrap_interval(x, statistic, seed=3) == pytest.approx((low, high), abs=noise)


@pytest.mark.parametrize("n", [49, 100, 3000])
def test_one_outlier_is_drawn_once_twice_or_never(n: int) -> None:
    x = np.append(np.random.default_rng(0).random(n - 1), 1e6)
    low, high = stats.bootstrap_interval(x, "mean", n=20_000)
    # The outlier is drawn about Poisson(1) times: never with 36.8 %, at most three times with 98.1 %.
    assert low == pytest.approx(0.5, abs=0.2)
    assert high == pytest.approx(3e6 / n, rel=0.01)


def test_resampled_means_have_the_mean_variance_and_skewness_of_the_bootstrap() -> None:
    x = np.random.default_rng(0).lognormal(size=1000)
    means = stats._resampled_means(x, np.random.default_rng(1), 200_000)
    centred = x - x.mean()
    assert means.mean() == pytest.approx(x.mean(), rel=1e-3)
    assert means.std() == pytest.approx(x.std() / math.sqrt(1000), rel=1e-2)
    skewness = np.mean(centred**3) / x.std() ** 3 / math.sqrt(1000)
    assert np.mean((means - means.mean()) ** 3) / means.std() ** 3 == pytest.approx(skewness, abs=0.03)


@given(samples, st.sampled_from(["mean", "median"]), st.integers(0, 100))
@settings(deadline=None)
def test_bootstrap_lies_within_the_range_and_repeats(x: list[float], statistic: Statistic, seed: int) -> None:
    low, high = stats.bootstrap_interval(x, statistic, seed=seed, n=100)
    slack = 1e-9 * max(map(abs, x))
    assert min(x) - slack <= low <= high <= max(x) + slack
    assert (low, high) == stats.bootstrap_interval(x, statistic, seed=seed, n=100)


@given(finite, st.integers(1, 40), st.sampled_from(["mean", "median"]))
@settings(deadline=None)
def test_bootstrap_of_equal_values_is_exact(value: float, n: int, statistic: Statistic) -> None:
    assert stats.bootstrap_interval([value] * n, statistic) == (value, value)


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.inf]])
def test_no_or_non_finite_values_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="one or more finite values"):
        stats.bootstrap_interval(bad)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for seed in range(400):
        low, high = stats.bootstrap_interval(rng.random(200) < 0.4, "mean", seed=seed, n=500)
        hits += low <= 0.4 <= high
    assert 0.90 <= hits / 400 <= 0.98


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
@settings(deadline=None)
def test_paired_interval_of_right_and_wrong_answers(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    low, high = stats.paired_interval(a, b, seed=2)
    assert -1 <= low <= high <= 1
    assert stats.paired_interval(b, a, seed=2) == pytest.approx((-high, -low), abs=0.35)
    assert stats.paired_interval(a, a) == (0.0, 0.0)


def test_paired_interval_sees_what_two_separate_intervals_do_not() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(scale=10, size=500)
    b = a + rng.normal(loc=0.2, scale=0.1, size=500)
    low, high = stats.paired_interval(a, b)
    assert 0 < low < 0.2 < high < 0.25


def test_paired_interval_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="equally many, got 2 and 3"):
        stats.paired_interval([1, 2], [1, 2, 3])


def test_metric_interval_of_the_mean_is_the_bootstrap_of_the_mean() -> None:
    x = np.random.default_rng(0).normal(size=300)
    got = stats.bootstrap_metric_interval(lambda i: float(x[i].mean()), 300, seed=4, resamples=2000)
    assert got == pytest.approx(stats.bootstrap_interval(x, "mean"), abs=0.25 * x.std() / math.sqrt(300))


def test_metric_interval_leaves_undefined_resamples_out() -> None:
    drawn = iter([math.nan, 1.0, math.nan, 3.0])
    assert stats.bootstrap_metric_interval(lambda _: next(drawn), 5, resamples=4) == (1.0, 3.0)
    with pytest.raises(ValueError, match="none of 3 resamples of 5 samples"):
        stats.bootstrap_metric_interval(lambda _: math.nan, 5, resamples=3)


def test_quartiles_iqr_and_outliers_of_a_known_sample() -> None:
    x = [1, 2, 3, 4, 5, 6, 7, 8, 100]
    assert stats.quartiles(x) == (3.0, 5.0, 7.0)
    assert stats.iqr(x) == 4.0
    assert stats.tukey_outliers(x) == 1
    assert stats.tukey_outliers([*x[:-1], 13]) == 0  # on the fence is inside
    assert stats.tukey_outliers([-99, *x]) == 2


@given(samples)
@settings(deadline=None)
def test_outliers_are_never_more_than_half(x: list[float]) -> None:
    assert 0 <= stats.tukey_outliers(x) <= len(x) / 2


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=5))
def test_few_processes_against_scipy(values: list[float]) -> None:
    logs = np.log(values)
    low, high = present(stats.process_interval(values))
    assert low <= np.median(values) <= high
    if np.ptp(logs) > 1e-6:
        ends = scipy.stats.t.interval(0.95, len(values) - 1, logs.mean(), scipy.stats.sem(logs))
        assert (low, high) == pytest.approx(tuple(np.exp(ends)))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_processes_cover_the_truth(n: int) -> None:
    rng = np.random.default_rng(n)
    held = [
        low <= 1.0 <= high
        for low, high in (present(stats.process_interval(np.exp(rng.normal(0, 0.1, n)))) for _ in range(2000))
    ]
    assert 0.93 < np.mean(held) < 0.97


def test_many_processes_are_resampled_and_one_has_no_interval() -> None:
    many = [10 + 0.1 * k for k in range(15)]
    assert stats.process_interval(many) == stats.bootstrap_interval(many, "median")
    assert stats.process_interval([2.0]) is None
    assert stats.process_interval([2.0] * 3) == pytest.approx((2.0, 2.0))
    with pytest.raises(ValueError, match="above 0"):
        stats.process_interval([1.0, 0.0])
