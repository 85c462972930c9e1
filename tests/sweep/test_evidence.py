"""The mathematics of verdicts against slow, obvious references: all orders, all signs, simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.sweep import evidence
from autocompress.sweep.change import steps, stretch

numbers = st.floats(-50, 50).map(lambda x: round(x, 3))
distinct = st.lists(numbers, min_size=4, max_size=9, unique=True)


@given(distinct, st.integers(1, 8))
def test_rank_sum_is_the_share_of_all_assignments_that_are_as_extreme(values: list[float], cut: int) -> None:
    cut = min(cut, len(values) - 1)
    x, y = values[:cut], values[cut:]

    def above(first: list[float], second: list[float]) -> int:
        return sum(b > a for a in first for b in second)

    found, most = above(x, y), len(x) * len(y)
    every = [
        above([values[i] for i in chosen], [values[i] for i in range(len(values)) if i not in chosen])
        for chosen in itertools.combinations(range(len(values)), cut)
    ]
    extreme = min(found, most - found)
    expected = min(1.0, 2 * sum(u <= extreme for u in every) / len(every))
    shift = evidence.rank_sum(x, y)
    assert shift.p == pytest.approx(expected)
    assert shift.estimate == pytest.approx(np.median([b - a for a in x for b in y]))


@given(st.lists(numbers.filter(bool), min_size=1, max_size=8, unique_by=abs))
def test_signed_rank_is_the_share_of_all_signs_that_are_as_extreme(d: list[float]) -> None:
    ranks = {value: rank for rank, value in enumerate(sorted(map(abs, d)), 1)}
    positive = sum(ranks[abs(value)] for value in d if value > 0)
    most = len(d) * (len(d) + 1) // 2
    every = [
        sum(rank for rank, up in zip(range(1, len(d) + 1), signs, strict=True) if up)
        for signs in itertools.product((False, True), repeat=len(d))
    ]
    extreme = min(positive, most - positive)
    expected = min(1.0, 2 * sum(w <= extreme for w in every) / len(every))
    # Walsh averages that are 0 by coincidence count against a difference, so p can only be larger.
    assert evidence.signed_rank(d).p >= expected - 1e-12
    if all(a + b for a in d for b in d):
        assert evidence.signed_rank(d).p == pytest.approx(expected)


@given(distinct, distinct, st.sampled_from([0.5, 0.1, 0.02]))
def test_the_interval_inverts_the_test(x: list[float], y: list[float], level: float) -> None:
    shift = evidence.rank_sum(x, y, level)
    low, high = shift.interval
    assert low <= shift.estimate <= high
    assert (low > 0 or high < 0) == (shift.p <= level)
    paired = evidence.signed_rank(y, level)
    assert (paired.interval[0] > 0 or paired.interval[1] < 0) == (paired.p <= level)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_counts_all_coins(gained: int, lost: int) -> None:
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(max(gained, lost), n + 1)) / 2**n
    assert evidence.mcnemar_p(gained, lost) == pytest.approx(min(1.0, 2 * tail))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(ps: list[float], alpha: float) -> None:
    rejected: set[int] = set()
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if ps[index] * (len(ps) - place) > alpha:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(evidence.holm(ps)) if p <= alpha} == rejected


@given(st.integers(2, 30), st.integers(0, 100))
def test_looks_end_at_the_most_and_spend_everything(least: int, more: int) -> None:
    counts = evidence.looks(least, least + more)
    assert counts[0] == least
    assert counts[-1] == least + more
    assert list(counts) == sorted(set(counts))
    assert sum(evidence.spending(counts)) == pytest.approx(1.0)


def test_looking_again_and_again_does_not_make_false_alarms() -> None:
    """Null samples that are looked at 4 times: the p-value over all looks holds its level; that of the best look does
    not."""
    rng, level, counts = np.random.default_rng(0), 0.05, evidence.looks(5, 40)
    shares, alarms, careless = evidence.spending(counts), 0, 0
    for _ in range(1000):
        x, y = rng.standard_cauchy(40), rng.standard_cauchy(40)
        ps = [evidence.rank_sum(x, y[:n]).p for n in counts]
        alarms += evidence.sequential_p(ps, shares) <= level
        careless += min(ps) <= level
    assert alarms <= 1000 * level
    assert careless > 1000 * level


@settings(max_examples=25, deadline=None)
@given(st.lists(numbers, min_size=6, max_size=10), st.integers(0, 9))
def test_the_stretch_is_the_one_whose_mean_rank_stands_out_most(x: list[float], seed: int) -> None:
    ranks = np.array([(sum(b < a for b in x) + sum(b <= a for b in x) + 1) / 2 for a in x])

    def apart(first: int, last: int) -> float:
        rest = np.r_[ranks[:first], ranks[last:]]
        inside = ranks[first:last]
        return float(abs(inside.mean() - rest.mean()) / math.sqrt(1 / len(inside) + 1 / len(rest)))

    def allowed(first: int, last: int) -> bool:
        parts = (first, last - first, len(x) - last)
        return parts[1] >= 3 and parts[0] + parts[2] >= 3 and parts[0] not in (1, 2) and parts[2] not in (1, 2)

    pairs = [pair for pair in itertools.combinations(range(len(x) + 1), 2) if allowed(*pair)]
    found, p = stretch(x, np.random.default_rng(seed))
    assert apart(*found) == pytest.approx(max(apart(*pair) for pair in pairs))
    assert 0 < p <= 1


def test_a_slow_week_is_two_steps_and_noise_is_none() -> None:
    rng = np.random.default_rng(1)
    nights = np.r_[rng.normal(0, 0.01, 10), rng.normal(0.1, 0.01, 7), rng.normal(0, 0.01, 10)]
    up, down = steps(nights, least=0.03)
    assert (up.index, down.index) == (10, 17)
    assert up.after - up.before == pytest.approx(0.1, abs=0.02)
    assert sum(bool(steps(rng.normal(0, 0.01, 27), least=0.03, seed=n)) for n in range(50)) == 0
    assert sum(bool(steps(rng.normal(0, 1, 27), seed=n)) for n in range(200)) <= 8  # alpha is 1 %
