"""Metrics against scikit-learn and slow obvious references."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from autocompress.errors import AutocompressError, CandidateError
from autocompress.metrics import METRICS, Metric, get_metric
from tests.builders.arrays import Array

SMALL = (np.eye(2), np.array([0, 1]), np.zeros((2, 3)))  # outputs, labels, first input


@st.composite
def classified(draw: st.DrawFn, min_classes: int = 2) -> tuple[Array, Array]:
    """Outputs (n, classes) of few distinct values, so that ties occur, and labels (n,)."""
    n, classes = draw(st.integers(1, 30)), draw(st.integers(min_classes, 12))
    few = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 3.0])
    outputs = draw(hnp.arrays(np.float32, (n, classes), elements=few))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return outputs, labels


@st.composite
def scored(draw: st.DrawFn) -> tuple[Array, Array]:
    """Scores (n,) with ties and binary labels (n,) of both classes."""
    n = draw(st.integers(2, 40))
    scores = draw(hnp.arrays(np.float32, n, elements=st.integers(-4, 4).map(lambda v: v / 4)))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    labels[:2] = 0, 1
    return scores, labels


def value(name: str, outputs: Array, y: Array, x: Array | None = None) -> float:
    return get_metric(name).value(outputs, y, np.zeros((len(outputs), 5), np.float32) if x is None else x)


@given(classified())
def test_accuracy_is_sklearns(case: tuple[Array, Array]) -> None:
    outputs, y = case
    assert value("accuracy", outputs, y) == pytest.approx(sk.accuracy_score(y, outputs.argmax(1)))


@given(classified(min_classes=3), st.integers(2, 10))
def test_top_k_is_a_slow_stable_sort(case: tuple[Array, Array], k: int) -> None:
    outputs, y = case
    order = [[c for _, c in sorted((-value, c) for c, value in enumerate(row))] for row in outputs]
    hits = [label in best[:k] for best, label in zip(order, y, strict=True)]
    assert value(f"top-{k}", outputs, y) == pytest.approx(np.mean(hits))


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_top_k_without_ties_is_sklearns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, y = rng.normal(size=(40, 12)), rng.permutation(np.arange(40) % 12)
    for k in (2, 5, 10):
        expected = sk.top_k_accuracy_score(y, outputs, k=k, labels=np.arange(12))
        assert value(f"top-{k}", outputs, y) == pytest.approx(expected)


@given(classified())
def test_macro_f1_and_recall_are_sklearns(case: tuple[Array, Array]) -> None:
    outputs, y = case
    predicted, labels = outputs.argmax(1), np.unique(y)
    f1 = sk.f1_score(y, predicted, labels=labels, average="macro")
    assert value("macro-f1", outputs, y) == pytest.approx(f1)
    recall = sk.recall_score(y, predicted, labels=labels, average="macro")
    assert value("recall", outputs, y) == pytest.approx(recall)


@given(scored())
def test_roc_auc_is_sklearns_for_one_and_two_columns(case: tuple[Array, Array]) -> None:
    scores, y = case
    expected = sk.roc_auc_score(y, scores)
    assert value("roc-auc", scores[:, None], y) == pytest.approx(expected)
    assert value("roc-auc", np.stack([1 - scores, scores], 1), y) == pytest.approx(expected)


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_roc_auc_of_an_autoencoder_is_the_share_of_ordered_pairs_by_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, outputs = rng.normal(size=(2, 20, 3, 2)).astype(np.float32)
    y = np.arange(20) % 2
    error = [float(np.mean((a - b) ** 2)) for a, b in zip(outputs, x, strict=True)]
    pairs = [error[i] > error[j] for i in range(20) for j in range(20) if y[i] and not y[j]]
    assert value("roc-auc", outputs, y, x) == pytest.approx(np.mean(pairs))


def test_roc_auc_of_one_class_is_undefined() -> None:
    assert math.isnan(value("roc-auc", np.ones((3, 1), np.float32), np.ones(3, np.int64)))


@given(
    hnp.arrays(np.float32, (7, 2, 3), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float32, (7, 2, 3), elements=st.floats(-100, 100, width=32)),
)
def test_mae_is_sklearns(outputs: Array, y: Array) -> None:
    expected = sk.mean_absolute_error(y.ravel(), outputs.ravel())
    assert value("mae", outputs, y) == pytest.approx(expected, rel=1e-5)


@given(classified(), st.integers(0, 100))
def test_fidelity_is_agreement_of_the_argmax(case: tuple[Array, Array], seed: int) -> None:
    outputs, _ = case
    other = np.random.default_rng(seed).normal(size=outputs.shape)
    expected = sk.accuracy_score(other.argmax(1), outputs.argmax(1))
    assert value("fidelity", outputs, other) == pytest.approx(expected)
    assert value("fidelity", other, other) == 1.0


def test_fidelity_of_one_column_is_the_side_of_a_half() -> None:
    outputs, reference = np.array([[0.2], [0.7], [0.9], [0.4]]), np.array([[0.4], [0.6], [0.1], [0.8]])
    assert value("fidelity", outputs, reference) == 0.5
    assert value("fidelity", outputs[:, 0], reference[:, 0]) == 0.5


def test_fidelity_of_maps_is_the_mean_share_of_a_samples_positions() -> None:
    reference = np.zeros((1, 2, 2, 3))
    outputs = reference.copy()
    outputs[0, 0, 0, 2] = 1
    assert value("fidelity", outputs, reference) == 0.75


@pytest.mark.parametrize("name", ["accuracy", "top-2", "mae", "fidelity"])
def test_mean_of_the_per_sample_scores_is_the_value(name: str) -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(50, 6)).astype(np.float32)
    y = rng.normal(size=(50, 6)) if name in ("mae", "fidelity") else rng.integers(0, 6, 50)
    scores = get_metric(name).per_sample(outputs, y, outputs)
    assert scores is not None
    assert scores.shape == (50,)
    assert scores.mean() == value(name, outputs, y)


@pytest.mark.parametrize("name", ["macro-f1", "recall", "roc-auc"])
def test_metrics_of_the_whole_have_no_per_sample_scores(name: str) -> None:
    assert get_metric(name).per_sample(np.eye(2), np.arange(2), np.eye(2)) is None


def test_one_output_column_is_a_probability() -> None:
    assert value("accuracy", np.array([[0.2], [0.8], [0.5]]), np.array([0, 1, 1])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["accuracy", "mae", "fidelity"])
def test_nan_outputs_are_no_candidate(name: str) -> None:
    outputs = np.array([[0.0, np.nan], [1.0, 0.0]])
    y = outputs if name != "accuracy" else np.array([0, 1])
    with pytest.raises(CandidateError, match="1 NaN of 4"):
        value(name, outputs, y)


def test_overflowed_outputs_have_no_mean_absolute_error() -> None:
    with pytest.raises(CandidateError, match="not finite"):
        value("mae", np.array([[np.inf]]), np.array([[1.0]]))


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_every_metric_survives_pickling_for_worker_processes(metric: Metric) -> None:
    assert pickle.loads(pickle.dumps(metric)).value(*SMALL) == metric.value(*SMALL)


def test_directions_bounds_and_labels() -> None:
    assert [m.name for m in METRICS.values() if not m.higher_is_better] == ["mae"]
    assert [m.name for m in METRICS.values() if not m.needs_labels] == ["fidelity", "class-fidelity", "value-fidelity"]
    assert get_metric("mae").bounds == (0.0, math.inf)
    assert get_metric("top-5").bounds == (0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "near"), [("acuracy", "'accuracy'"), ("top-11", "'top-1"), ("blue", "choose one of: accuracy")]
)
def test_unknown_metric_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(AutocompressError, match=near):
        get_metric(name)


@pytest.mark.parametrize(
    ("name", "y", "message"),
    [
        ("accuracy", np.array([0, 1, 5, 7]), r"y_test holds 2 labels outside 0..4, such as 5"),
        ("accuracy", np.array([0, -1, 2, 3]), "holds 1 labels outside"),
        (
            "recall",
            np.ones((4, 5), int),
            r"several labels, 5 of 5 in the mean; recall is for one .*: use the metric f1",
        ),
        ("accuracy", np.full((4, 5), 0.2), "shares of the classes"),
        ("f1", np.arange(4), "one label of 5 a sample; .* use macro-f1"),
        ("macro-f1", np.array([0.0, 1.0, 2.0, 3.5]), "is float64; use integer labels in 0..4"),
        ("accuracy", np.array(["a", "b", "c", "d"]), "use integer labels"),
        ("accuracy", np.zeros((4, 2, 2), int), r"has shape \(n, 2, 2\)"),
        ("top-5", np.arange(4), "cannot be scored by top-5: the network has 5 outputs"),
        ("accuracy", np.arange(3), "holds 3 labels for 4 samples"),
        ("accuracy", np.int64(3), "is a single value"),
        ("roc-auc", np.arange(4), r"labels other than 0 and 1, such as 2"),
        ("roc-auc", np.ones(4, int), "only the label 1"),
        ("roc-auc", np.ones(4), "integer labels 0 and 1"),
        ("mae", np.zeros((4, 3)), r"shape \(n, 3\), the network's output \(n, 5\)"),
        ("mae", np.full((4, 5), np.nan), "20 NaN or infinite"),
        ("mae", np.full((4, 5), "a"), "use numbers"),
        ("fidelity", np.zeros((4, 3)), r"output \(n, 5\); they must"),
        ("fidelity", np.full((4, 5), np.nan), "holds 20 NaN"),
    ],
)
def test_wrong_labels_are_one_clear_line(name: str, y: Array, message: str) -> None:
    with pytest.raises(AutocompressError, match=message) as error:
        get_metric(name).check_labels((4, 5), y, "y_test")
    assert str(error.value).startswith("y_test ")
    assert "\n" not in str(error.value)


def test_no_samples_and_unsuited_outputs() -> None:
    with pytest.raises(AutocompressError, match="no samples"):
        get_metric("accuracy").check_labels((0, 5), np.zeros(0, int), "y_test")
    with pytest.raises(AutocompressError, match=r"output \(n, 5\) is neither one column"):
        get_metric("roc-auc").check_labels((4, 5), np.arange(4) % 2, "y_test", (4, 9))
    with pytest.raises(AutocompressError, match=r"output is \(n, 8, 8, 3\)"):
        get_metric("accuracy").check_labels((4, 8, 8, 3), np.arange(4) % 2, "y_test")


@pytest.mark.parametrize(
    ("name", "shape", "y"),
    [
        ("accuracy", (4, 5), np.arange(4, dtype=np.uint8)),
        ("accuracy", (4, 1, 1, 5), np.arange(4)),
        ("accuracy", (4, 1), np.array([True, False, True, False])),
        ("roc-auc", (4, 9), np.array([0, 1, 0, 1])),
        ("mae", (4, 1), np.arange(4.0)),
        ("fidelity", (4, 5), np.zeros((4, 5), np.float32)),
    ],
)
def test_right_labels_pass(name: str, shape: tuple[int, ...], y: Array) -> None:
    get_metric(name).check_labels(shape, y, "y_test", (4, 9))
