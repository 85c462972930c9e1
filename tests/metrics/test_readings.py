"""What outputs and labels are taken for, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from autocompress.errors import AutocompressError
from autocompress.metrics import METRICS, Metric, get_metric
from tests.builders.arrays import Array

X = np.zeros((6, 1), np.float32)
LOGITS = np.array([[-0.2], [0.3], [0.7], [-2.0], [-0.1], [-0.4]], np.float32)
SIDES = np.array([0, 1, 1, 0, 0, 1])


def of(name: str, kind: str | None, outputs: Array, y: Array) -> float:
    """The metric as a search computes it: labels taken and checked first."""
    metric = get_metric(name).read_as(kind, y if name.endswith("fidelity") else None)
    y = metric.taken(y, outputs.shape)
    metric.check_labels(outputs.shape, y, "y")
    return metric.value(outputs, y, np.zeros((len(outputs), 1), np.float32))


def test_one_logit_is_told_at_0_and_one_probability_at_a_half() -> None:
    assert of("accuracy", "linear", LOGITS, SIDES) == pytest.approx(5 / 6)
    assert of("accuracy", "logistic", 1 / (1 + np.exp(-LOGITS)), SIDES) == pytest.approx(5 / 6)
    assert of("accuracy", "logistic", LOGITS, SIDES) == pytest.approx(4 / 6)  # only .7 is above one half


@pytest.mark.parametrize("name", ["accuracy", "top-2", "macro-f1", "recall", "mean-iou"])
def test_the_same_labels_in_any_form_give_the_same(name: str) -> None:
    rng = np.random.default_rng(0)
    outputs, y = rng.normal(size=(40, 5)).astype(np.float32), np.arange(40) % 5
    forms = [y, y[:, None], y.astype(np.float32), np.eye(5)[y], np.eye(5, dtype=np.uint8)[y], np.eye(5, dtype=bool)[y]]
    assert len({of(name, "softmax", outputs, form) for form in forms}) == 1


def test_whole_numbers_are_compared_by_equality() -> None:
    outputs, y = np.array([3, 1, 7, 7], np.int64), np.array([3.0, 2.0, 7.0, 7.0])
    assert of("accuracy", "integer", outputs, y) == 0.75
    assert of("fidelity", "integer", outputs[:, None], np.array([[3], [2], [7], [6]])) == 0.5
    assert of("fidelity", "integer", np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 9]])) == 0.75


@pytest.mark.parametrize("first", [False, True])
def test_label_maps_are_scored_by_pixel(first: bool) -> None:
    rng = np.random.default_rng(1)
    outputs = rng.normal(size=(7, 6, 4, 3)).astype(np.float32)
    y = rng.integers(0, 3, (7, 6, 4))
    y[2, :3] = 255
    told, counted = outputs.argmax(-1), y != 255
    expected = np.mean([np.mean((t == r)[c]) for t, r, c in zip(told, y, counted, strict=True)])
    iou = sk.jaccard_score(y[counted], told[counted], average="macro")
    f1 = sk.f1_score(y[counted], told[counted], average="macro")
    shaped = np.moveaxis(outputs, -1, 1) if first else outputs
    for labels in (y, y[..., None], y.astype(np.uint8)):
        assert of("accuracy", "linear", shaped, labels) == pytest.approx(expected)
        assert of("mean-iou", "linear", shaped, labels) == pytest.approx(iou)
        assert of("macro-f1", "linear", shaped, labels) == pytest.approx(f1)


def test_masks_of_one_value_a_pixel() -> None:
    rng = np.random.default_rng(2)
    outputs, y = rng.normal(size=(5, 4, 4, 1)).astype(np.float32), rng.integers(0, 2, (5, 4, 4))
    told = outputs[..., 0] > 0
    assert of("accuracy", "linear", outputs, y) == pytest.approx(np.mean(told == y))
    assert of("mean-iou", "linear", outputs, y[..., None]) == pytest.approx(
        sk.jaccard_score(y.ravel(), told.ravel(), average="macro")
    )
    assert of("accuracy", "integer", told[..., 0:4].astype(np.int32), y) == pytest.approx(np.mean(told == y))


def test_f1_is_sklearns_of_two_classes_and_of_rows_of_several_labels() -> None:
    rng = np.random.default_rng(3)
    outputs, y = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 2, (60, 4))
    assert of("f1", "linear", outputs, y) == pytest.approx(sk.f1_score(y, outputs > 0, average="micro"))
    assert of("macro-f1", "logistic", outputs, y) == pytest.approx(sk.f1_score(y, outputs > 0.5, average="macro"))
    assert of("f1", "linear", outputs[:, :1], y[:, 0]) == pytest.approx(sk.f1_score(y[:, 0], outputs[:, 0] > 0))
    two = of("f1", "softmax", outputs[:, :2], y[:, 0])
    assert two == pytest.approx(sk.f1_score(y[:, 0], outputs[:, :2].argmax(1)))


@pytest.mark.parametrize("name", ["macro-f1", "f1", "recall", "mean-iou"])
def test_resampling_counts_gives_what_resampling_outputs_gives(name: str) -> None:
    rng = np.random.default_rng(4)
    outputs, y = rng.normal(size=(50, 2)).astype(np.float32), rng.integers(0, 2, 50)
    metric = get_metric(name)
    again = metric.resampled(outputs, y, X)
    for _ in range(20):
        at = rng.integers(0, 50, 50)
        assert again(at) == metric.value(outputs[at], y[at], X)


def test_likeness_of_real_numbers_is_their_relative_error_in_any_unit() -> None:
    rng = np.random.default_rng(5)
    reference = rng.normal(size=(200, 3)) + 40
    near, far = reference + 0.1 * rng.normal(size=reference.shape), reference + 5
    values = {unit: of("fidelity", "linear", unit * near, unit * reference) for unit in (1.0, 2.0**-20, 1e6)}
    assert 0.88 < values[1.0] < 0.93
    assert values[1.0] == values[2.0**-20] == pytest.approx(values[1e6])
    assert of("fidelity", "linear", far, reference) == 0
    assert of("class-fidelity", "linear", far, reference) == 1  # the same column is the largest
    assert of("value-fidelity", "softmax", reference, reference) == 1


@pytest.mark.parametrize("unit", [1.0, 2.0**-12, 1000.0])
def test_the_scale_of_an_error_is_what_the_targets_spread_by(unit: float) -> None:
    y = unit * np.array([[0.0], [1.0], [2.0], [9.0]])
    assert get_metric("mae").scale(y, unit * 0.3) == pytest.approx(unit * 2.5)  # around the median, 1.5
    assert get_metric("mae").scale(np.full((4, 1), 7.0), 0.25) == 0.25
    assert get_metric("mae").scale(np.full((4, 1), 7.0), 0.0) == 1.0
    assert get_metric("accuracy").scale(np.arange(4), 0.5) == 1.0


@pytest.mark.parametrize(
    ("name", "y", "bad", "good"),
    [
        ("accuracy", np.array([0, 0, 0, 1]), 0.7, 0.8),
        ("top-2", np.arange(8) % 4, 0.5, 0.6),
        ("recall", np.array([0, 0, 0, 1]), 0.4, 0.6),
        ("roc-auc", np.array([0, 1]), 0.3, 0.7),
        ("mae", np.array([[0.0], [2.0]]), 1.5, 0.5),
    ],
)
def test_no_better_than_knowing_nothing_is_remarked(name: str, y: Array, bad: float, good: float) -> None:
    metric: Metric = get_metric(name)
    said = metric.remark(bad, y, (len(y), 4))
    assert said is not None
    assert said.startswith(f"the float network's {name}, {bad:.4g}, is no better than")
    assert metric.remark(good, y, (len(y), 4)) is None


def test_one_class_alone_is_no_reason_for_a_remark() -> None:
    assert get_metric("accuracy").remark(1.0, np.zeros(5, int), (5, 3)) is None


@pytest.mark.parametrize(
    ("shape", "y", "message"),
    [
        ((4, 6, 6, 3), np.zeros((4, 6, 5), int), r"\(n, 6, 5\); use integer labels .* fits the output \(n, 6, 6, 3\)"),
        ((4, 6, 6, 3), np.full((4, 6, 6), 3), r"144 labels outside 0..2, such as 3"),
        ((4, 6, 6, 3), np.full((4, 6, 6), 255), r"no class in sample 0, whose label map is all 255"),
        ((4, 6, 6, 3), np.arange(4), r"must be \(n, classes\), or the labels a map"),
    ],
)
def test_wrong_label_maps_are_one_clear_line(shape: tuple[int, ...], y: Array, message: str) -> None:
    with pytest.raises(AutocompressError, match=message):
        get_metric("accuracy").check_labels(shape, y, "y_test")


def test_several_labels_are_never_told_to_take_the_largest() -> None:
    for name in ("accuracy", "recall", "mean-iou", "top-3"):
        with pytest.raises(AutocompressError) as said:
            get_metric(name).check_labels((4, 5), np.ones((4, 5), int), "y_test")
        assert "argmax" not in str(said.value)
        assert "use the metric f1" in str(said.value)


def test_detection_is_told_where_to_go() -> None:
    with pytest.raises(AutocompressError, match=r"'mAP' is not built in: .* give a function"):
        get_metric("mAP")


def test_every_metric_says_how_it_reads() -> None:
    for metric in METRICS.values():
        assert metric.words((1, 4), metric.reading)
