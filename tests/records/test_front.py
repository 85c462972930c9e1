"""The front of a study and its picks: values that cannot be told apart are equal."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress import pareto
from autocompress.errors import AutocompressError, UnmetError
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.constraint import violation
from autocompress.records.front import Front, evaluated, front_of, nearest, why_empty
from autocompress.records.hypervolume import volume
from autocompress.records.noise import UNKNOWN_ERROR, modelled_error, runs_float_kernels
from autocompress.records.study import Constraint, StudyRecord, TrialRecord
from autocompress.report import study_document
from tests.builders.optional import present
from tests.builders.records import ALL, FAILED, make_configuration, make_evaluation, make_record, make_trial, numbers


def test_front_holds_each_non_dominated_vector_once_best_metric_first() -> None:
    assert numbers(Front(make_record(*ALL)).trials) == [2, 1, 3, 0]
    assert numbers(Front(make_record(*reversed(ALL))).trials) == [2, 1, 3, 0]
    assert Front(make_record()).trials == ()


values = st.tuples(st.integers(0, 4).map(lambda v: v / 4), st.integers(1, 4), st.integers(1, 4))


@given(st.lists(values, max_size=12), st.booleans(), st.sampled_from([0.0, 0.5]))
@settings(deadline=None)
def test_front_is_its_definition(points: list[tuple[float, float, float]], higher: bool, least: float) -> None:
    trials = [make_trial(number, *point) for number, point in enumerate(points)]
    constraint = Constraint(name="accuracy", relation=">=", bound=least)
    record = make_record(*trials, higher_is_better=higher, constraints=(constraint,))
    sign = -1 if higher else 1
    vectors = {n: (sign * a, lat, size) for n, (a, lat, size) in enumerate(points) if a >= least}
    expected = {
        n
        for n, v in vectors.items()
        if not any(w != v and all(p <= q for p, q in zip(w, v, strict=True)) for w in vectors.values())
        and not any(vectors[m] == v for m in vectors if m < n)
    }
    assert set(numbers(Front(record).trials)) == expected


def test_front_is_over_the_objectives_and_the_size_asked_for() -> None:
    a = make_trial(0, 0.9, 0.2, 100, file_bytes=900)
    b = make_trial(1, 0.9, 0.1, 200, file_bytes=800)
    assert numbers(Front(make_record(a, b, objectives=("metric", "size"))).trials) == [0]
    assert numbers(Front(make_record(a, b, objectives=("metric", "size"), size="file")).trials) == [1]
    assert numbers(Front(make_record(a, b, objectives=("metric", "latency"))).trials) == [1]


def test_a_trial_without_the_value_of_an_objective_is_not_on_the_front() -> None:
    known = make_trial(0, 0.8, peak_memory_bytes=1000)
    unknown, broken = make_trial(1, 0.9), make_trial(2, math.nan, peak_memory_bytes=1)
    record = make_record(known, unknown, broken, objectives=("metric", "memory"))
    assert numbers(Front(record).trials) == [0]
    without = make_record(unknown, objectives=("metric", "memory"))
    assert "no complete trial has a value for each objective (metric, memory)" in why_empty(without)


def test_front_satisfies_every_constraint_and_unknown_values_satisfy_none() -> None:
    def constrained(*texts: tuple[str, str, float]) -> StudyRecord:
        constraints = [Constraint(name=n, relation=r, bound=b) for n, r, b in texts]
        return make_record(*ALL, constraints=tuple(constraints))

    assert numbers(Front(constrained(("latency_ms", "<=", 0.13))).trials) == [1, 3, 0]
    assert numbers(Front(constrained(("latency_ms", "<=", 0.13), ("accuracy", ">=", 0.9))).trials) == [1]
    assert Front(constrained(("energy_mj", "<=", 1e9))).trials == ()


def test_violations_are_relative_to_the_bound() -> None:
    evaluation = make_evaluation(0.9, 0.2)
    assert violation(evaluation, Constraint(name="latency_ms", relation="<=", bound=0.1)) == pytest.approx(1)
    assert violation(evaluation, Constraint(name="latency_ms", relation="<=", bound=0.2)) == 0
    assert violation(evaluation, Constraint(name="accuracy", relation=">=", bound=1.0)) == pytest.approx(0.1)
    assert violation(evaluation, Constraint(name="accuracy", relation="<=", bound=0)) == pytest.approx(0.9)
    assert violation(evaluation, Constraint(name="energy_mj", relation="<=", bound=1)) == math.inf


def test_nearest_trials_miss_by_least() -> None:
    tight = Constraint(name="latency_ms", relation="<=", bound=0.05)
    record = make_record(*ALL, constraints=(tight,))
    assert numbers(nearest(record)) == [3, 0, 1]
    assert numbers(nearest(record, 1)) == [3]


def test_hypervolume_of_a_front_that_is_not_thinned_can_be_computed_from_the_document() -> None:
    document = study_document.document(make_record(*ALL))
    points = [
        [(0.9186 - e["accuracy"]) / 0.10, math.log(e["latency_ms"] / 0.3, 8), math.log(e["download_bytes"] / 80_000, 8)]
        for e in document["front"]
    ]
    assert document["hypervolume"] == pytest.approx(pareto.hypervolume(points, [1, 1, 1]))
    assert study_document.document(make_record())["hypervolume"] == 0


def test_without_a_plain_int8_file_a_quarter_of_the_float_network_stands_for_it() -> None:
    unknown, quarter = (make_record(*ALL, int8_download_bytes=size) for size in (None, 288_000 // 4))
    assert Front(unknown).hypervolume == Front(quarter).hypervolume > 0


def test_the_hypervolume_tells_candidates_apart_where_nothing_is_faster_than_float() -> None:
    slow = [make_trial(n, 0.91, ms, size) for n, (ms, size) in enumerate([(0.9, 60_000), (0.8, 70_000), (0.6, 75_000)])]
    volumes = [Front(make_record(*slow[: n + 1])).hypervolume for n in range(len(slow))]
    assert 0 < volumes[0] < volumes[1] < volumes[2]
    lossless = make_trial(0, 0.9186, 0.3, 80_000)
    assert Front(make_record(lossless)).hypervolume == pytest.approx(1)


@pytest.mark.parametrize("objectives", [("metric", "size"), ("metric", "memory"), ("energy", "latency", "metric")])
def test_the_hypervolume_is_over_the_objectives_of_the_study(objectives: tuple[str, ...]) -> None:
    def record(*trials: TrialRecord) -> StudyRecord:
        return make_record(*trials, objectives=objectives, baseline=baseline, size="file")

    seen: dict[str, Any] = {"peak_memory_bytes": 1000, "energy_mj": 5.0}
    baseline = make_evaluation(0.9186, 0.3, 288_000, accuracy_delta_ci=None, **seen)
    missing = make_trial(2, 0.91, 0.2, 1000)
    same = make_trial(0, 0.9186, 0.3, 288_000 // 4, **seen)
    better = make_trial(1, 0.9186, 0.15, 288_000 // 8, peak_memory_bytes=500, energy_mj=2.5)
    assert Front(record(same)).hypervolume == pytest.approx(1)
    halved = 1 + math.log(2, 8)
    assert Front(record(same, better)).hypervolume == pytest.approx(halved ** (len(objectives) - 1))
    if "size" not in objectives:
        assert Front(record(missing)).hypervolume == 0


def test_an_error_is_compared_in_its_own_scale() -> None:
    def record(error: float) -> StudyRecord:
        baseline = make_evaluation(3.2, 0.3, 288_000, accuracy_delta_ci=None)
        trial = make_trial(0, error, 0.3, 80_000)
        return make_record(trial, higher_is_better=False, baseline=baseline, metric_scale=20.0)

    assert Front(record(4.2)).hypervolume == pytest.approx(0.5)
    assert Front(record(5.3)).hypervolume == 0


@pytest.mark.parametrize(
    ("which", "number"),
    [("best", 2), ("fastest", 3), ("smallest", 0), ("knee", 1), ("4", 4), (5, 5), ("04", 4)],
)
def test_pick(which: str | int, number: int) -> None:
    assert Front(make_record(*ALL)).pick(which).number == number


def test_the_best_of_equally_fast_or_small_points_is_picked() -> None:
    record = make_record(make_trial(0, 0.8, 0.1, 50), make_trial(1, 0.9, 0.1, 60), make_trial(2, 0.91, 0.2, 50))
    assert Front(record).pick("fastest").number == 1
    assert Front(record).pick("smallest").number == 2


def test_the_knee_is_among_networks_that_still_work() -> None:
    working = [
        make_trial(0, 0.915, 0.2, 60_000),
        make_trial(1, 0.91, 0.2, 20_000),
        make_trial(2, 0.85, 0.2, 12_000),
    ]
    ruined = [make_trial(3, 0.10, 0.2, 3_000)]
    assert Front(make_record(*working)).pick("knee").number == 1
    assert Front(make_record(*working, *ruined)).pick("knee").number == 1
    assert Front(make_record(*ruined)).pick("knee").number == 3


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("kne", "unknown pick 'kne'; did you mean 'knee'"),
        ("-1", "unknown pick '-1'; choose one of: a trial number, best"),
        ("99", "there is no trial 99 among 9 trials"),
        ("9" * 5000, "there is no trial 99999999999999999999 among"),
        ("6", "trial 6 is failed (no kernel for int4 CONV_2D); pick a complete trial"),
        ("7", "trial 7 is stopped early; pick a complete trial"),
        ("8", "trial 8 is running; pick a complete trial"),
    ],
)
def test_what_cannot_be_picked_is_named(which: str, message: str) -> None:
    with pytest.raises(AutocompressError) as raised:
        Front(make_record(*ALL)).pick(which)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_picking_from_an_empty_front_says_why() -> None:
    with pytest.raises(AutocompressError, match="none of 1 trials is complete; the last failure: no kernel") as raised:
        Front(make_record(FAILED)).pick("knee")
    assert raised.value.exit_code == 2
    unmet = make_record(*ALL, constraints=(Constraint(name="latency_ms", relation="<=", bound=0.01),))
    with pytest.raises(UnmetError, match=r"none of 6 complete trials meets latency_ms<=0\.01"):
        Front(unmet).pick("best")


def measured(
    number: int, accuracy: float, latency_us: float, interval: tuple[float, float], download_bytes: int, **changes: Any
) -> TrialRecord:
    """A trial whose latency was measured; intervals in microseconds."""
    found = {"latency_source": "measured", "latency_error": None, "latency_ci_ms": tuple(us / 1000 for us in interval)}
    return make_trial(number, accuracy, latency_us / 1000, download_bytes, **(found | changes))


def members_of(*trials: TrialRecord, **changes: Any) -> list[int]:
    return numbers(Front(make_record(*trials, **changes)).trials)


def test_the_noise_of_a_latency_decides_nothing() -> None:
    """9.89 [9.81, 10.0] µs is not faster than 10.0 [8.97, 14.2]: the smaller and more accurate file stands."""
    lucky = measured(0, 0.890, 9.89, (9.81, 10.0), 8_200)
    better = measured(1, 0.917, 10.0, (8.97, 14.2), 7_900)
    assert {t.number for t in Front(make_record(lucky, better)).strict} == {0, 1}
    found = Front(make_record(lucky, better))
    assert numbers(found.trials) == [1]
    assert {trial.number for trial in found.picks.values()} == {1}
    sure = measured(1, 0.917, 10.0, (9.99, 10.01), 7_900)
    assert members_of(measured(0, 0.890, 9.5, (9.45, 9.55), 8_200), sure) == [1, 0]


def test_a_latency_is_its_ratio_to_the_interleaved_baseline_where_that_was_measured() -> None:
    """The first was measured while the machine was slow, and so was the float network beside it."""
    slow = {"ratio_to_baseline": 0.50, "ratio_ci": (0.49, 0.51)}
    quick = {"ratio_to_baseline": 0.60, "ratio_ci": (0.59, 0.61)}
    first = measured(0, 0.9, 200, (198, 202), 9_000, **slow)
    second = measured(1, 0.9, 150, (149, 151), 9_000, **quick)
    assert members_of(first, second) == [0]
    assert Front(make_record(first, second)).pick("fastest").number == 0


def test_a_latency_without_an_interval_may_be_off_by_a_tenth() -> None:
    one, other = (measured(n, 0.9, us, (0, 0), size) for n, us, size in ((0, 100, 9_000), (1, 108, 8_000)))
    one, other = (
        replace(t, evaluation=replace(e, measurement=replace(e.measurement, latency_ci_ms=None)))
        for t, e in ((t, evaluated(t)) for t in (one, other))
    )
    assert members_of(one, other) == [1]
    assert members_of(one, measured(2, 0.9, 111, (111, 111), 8_000)) == [2, 0]


def test_a_modelled_latency_is_as_sure_as_its_model() -> None:
    def pair(**changes: Any) -> list[int]:
        return members_of(make_trial(0, 0.9, 0.100, 9_000, **changes), make_trial(1, 0.9, 0.106, 8_000, **changes))

    assert pair(latency_error=0.034) == [1, 0]
    assert pair(latency_error=0.07) == [1]
    assert pair(latency_error=0.034, extrapolated=True) == [1]
    assert pair(latency_error=None) == [1]
    known = make_evaluation(latency_error=0.34, extrapolated=True).measurement
    assert known.latency_error is None  # an estimate that was made elsewhere is none here
    assert modelled_error(known) == UNKNOWN_ERROR
    assert modelled_error(make_evaluation(latency_error=0.34).measurement) == 0.34


def test_sizes_that_nobody_would_choose_by_are_equal() -> None:
    assert members_of(make_trial(0, 0.9, 0.1, 7_378), make_trial(1, 0.9, 0.1, 7_374)) == [1]
    assert members_of(make_trial(0, 0.9, 0.1, 7_378), make_trial(1, 0.9, 0.1, 7_374), size="file") == [1]
    assert members_of(make_trial(0, 0.91, 0.1, 7_400), make_trial(1, 0.9, 0.1, 7_300)) == [0, 1]


def test_accuracy_is_told_apart_by_the_paired_intervals() -> None:
    def pair(half: float, lost: float = 0.01) -> list[int]:
        deltas: list[dict[str, Any]] = [
            {"accuracy_delta_ci": (a - 0.9186 - half, a - 0.9186 + half)} for a in (0.915, 0.915 - lost)
        ]
        return members_of(
            make_trial(0, 0.915, 0.1, 9_000, **deltas[0]), make_trial(1, 0.915 - lost, 0.1, 8_000, **deltas[1])
        )

    assert pair(0.007) == [0, 1]  # sqrt(2) x .007 = .0099
    assert pair(0.0072) == [1]
    assert members_of(make_trial(0, 0.92, 0.1, 9_000, accuracy_delta_ci=None), make_trial(1, 0.9195, 0.1, 8_000)) == [1]


def test_an_interval_counts_on_the_side_of_the_other_value() -> None:
    """The metric falls: what it may be above the value lies towards a worse one."""
    near = make_trial(0, 1.0, 0.1, 9_000, accuracy_delta_ci=(0.08, 0.60))  # the baseline's .9186 and .0814
    far = make_trial(1, 1.3, 0.1, 8_000, accuracy_delta_ci=(0.38, 0.39))
    assert members_of(near, far, higher_is_better=False) == [1]
    assert members_of(near, far, higher_is_better=True) == [1]
    sure = make_trial(0, 1.0, 0.1, 9_000, accuracy_delta_ci=(-0.40, 0.09))
    assert members_of(sure, far, higher_is_better=False) == [0, 1]


Point = tuple[float, float, int, dict[str, Any]]
INT8 = make_configuration()
UNPACKED = make_configuration("weight_only")


def test_ties_go_to_what_is_certain() -> None:
    def pair(first: Point, second: Point) -> list[int]:
        return members_of(make_trial(0, *first[:3], **first[3]), make_trial(1, *second[:3], **second[3]))

    plain, safe = {"configuration": INT8}, {"configuration": UNPACKED}
    assert pair((0.9100, 0.100, 8_000, plain), (0.9101, 0.101, 7_990, safe)) == [1]
    assert pair((0.9101, 0.100, 7_990, safe), (0.9100, 0.101, 8_000, plain)) == [0]
    assert pair((0.9100, 0.100, 8_000, plain), (0.9100, 0.099, 7_990, plain)) == [1]
    assert pair((0.9100, 0.100, 8_000, plain), (0.9101, 0.101, 8_000, plain)) == [1]
    assert pair((0.9100, 0.100, 8_000, plain), (0.9100, 0.100, 8_000, plain)) == [0]
    smaller = pair((0.9100, 0.100, 8_000, safe), (0.9100, 0.100, 7_000, plain))
    assert smaller == [1]  # beaten, not level


def test_ties_by_what_is_no_objective() -> None:
    """Over metric and latency alone a file that is surely smaller is the one to show."""
    large, small = make_trial(0, 0.9101, 0.100, 20_000), make_trial(1, 0.9100, 0.101, 10_000)
    assert members_of(large, small, objectives=("metric", "latency")) == [1]


@pytest.mark.parametrize(
    ("activations", "bits", "safe"),
    [("float32", 32, True), ("float32", 16, True), ("float32", 8, False), ("int8", 8, False), ("weight_only", 4, True)],
)
def test_kernels_that_compute_in_float(activations: str, bits: int, safe: bool) -> None:
    configuration = Configuration(activations=activations, layers={"a": LayerChoice(), "b": LayerChoice(bits=bits)})
    assert runs_float_kernels(make_evaluation(configuration=configuration)) == safe


def test_picks_go_by_what_can_be_told_apart() -> None:
    fast = make_trial(0, 0.80, 0.100, 8_000)
    nearly = make_trial(1, 0.91, 0.101, 20_000)  # 1 % slower by a model that is off by 3.4
    slow = make_trial(2, 0.9101, 0.200, 7_000)
    found = Front(make_record(fast, nearly, slow))
    assert {trial.number for trial in found.trials} == {0, 1, 2}
    assert found.pick("fastest").number == 1
    assert found.pick("best").number == 2
    assert found.pick("smallest").number == 2
    assert Front(make_record(fast, nearly)).pick("knee").number == 1


def test_noise_is_no_axis_of_the_knee() -> None:
    """All latencies are level: they decide nothing, however far the front stretches them."""
    trials = [
        make_trial(0, 0.90, 0.1020, 10_000),
        make_trial(1, 0.88, 0.1030, 5_000),
        make_trial(2, 0.85, 0.1000, 4_500),
    ]
    assert {t.number for t in Front(make_record(*trials)).trials} == {0, 1, 2}
    assert pareto.knee([[-0.90, 0.1020, 10_000], [-0.88, 0.1030, 5_000], [-0.85, 0.1000, 4_500]]) == 2
    assert Front(make_record(*trials)).pick("knee").number == 1


figures = st.tuples(st.integers(0, 20), st.integers(100, 120), st.integers(1000, 1020), st.integers(0, 5))


@given(st.lists(figures, min_size=1, max_size=10), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_picks_are_of_the_front_and_hang_on_no_order(
    found: list[tuple[int, int, int, int]], order: random.Random
) -> None:
    trials = [
        measured(n, 0.8 + a / 200, us, (us - w / 2, us + w), size, accuracy_delta_ci=None)
        for n, (a, us, size, w) in enumerate(found)
    ]
    front = Front(make_record(*trials))
    assert {trial.number for trial in front.picks.values()} <= set(numbers(front.trials))
    shuffled = order.sample(trials, len(trials))
    again = Front(make_record(*shuffled))
    assert numbers(again.trials) == numbers(front.trials)
    assert {k: t.number for k, t in again.picks.items()} == {k: t.number for k, t in front.picks.items()}


@given(st.lists(figures, min_size=1, max_size=10))
@settings(deadline=None, max_examples=60)
def test_the_hypervolume_is_of_values_as_they_are_and_never_falls(found: list[tuple[int, int, int, int]]) -> None:
    trials = [make_trial(n, 0.8 + a / 200, us / 500, size) for n, (a, us, size, _) in enumerate(found)]
    volumes = [present(Front(make_record(*trials[: n + 1])).hypervolume) for n in range(len(trials))]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(volumes))
    record = make_record(*trials)
    assert volumes[-1] == pytest.approx(volume(record, [evaluated(t) for t in trials]))
    assert volumes[-1] >= present(volume(record, [evaluated(t) for t in Front(record).trials])) - 1e-12


def test_the_standard_deviation_of_a_hypervolume_is_that_of_drawn_values() -> None:
    sizes, accuracies, latencies = (20_000, 40_000), (0.90, 0.915), (100, 120)
    trials = [
        measured(n, a, us, (us * 0.98, us / 0.98), size)
        for n, (a, us, size) in enumerate(zip(accuracies, latencies, sizes, strict=True))
    ]
    record, rng = make_record(*trials), np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        moved = [
            replace(
                e,
                accuracy=e.accuracy + rng.normal(0, 0.002 / 1.96),
                measurement=replace(
                    e.measurement,
                    latency_ms=present(e.measurement.latency_ms) * math.exp(rng.normal(0, -math.log(0.98) / 1.96)),
                ),
            )
            for e in map(evaluated, trials)
        ]
        drawn.append(present(volume(record, moved)))
    assert Front(record).hypervolume_sd == pytest.approx(np.std(drawn), rel=0.1)
    assert Front(make_record()).hypervolume_sd == 0


def test_a_record_has_one_front() -> None:
    record = make_record(*ALL)
    assert front_of(record) is front_of(record)
    assert record == make_record(*ALL)  # which has none yet
    changed = replace(record, trials=record.trials[:1])
    assert front_of(changed) is not front_of(record)
    assert len(front_of(changed).trials) == 1
