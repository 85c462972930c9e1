"""The metrics by name, and those that a user adds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError, unknown_name
from autocompress.metrics import classes, values
from autocompress.metrics.metric import Metric, never
from autocompress.metrics.reading import Array, Reading, Samples, Shape

_UNIT = (0.0, 1.0)
_LABELLED = {"higher_is_better": True, "needs_labels": True, "bounds": _UNIT}  # type: dict[str, Any]
_ONE_LABEL = {**_LABELLED, "take": classes.take_classes, "words": classes.words}
_ROWS = {**_LABELLED, "take": classes.take_rows, "words": classes.decisions}
_LIKENESS = {
    "higher_is_better": True,
    "needs_labels": False,
    "bounds": _UNIT,
    "labels": values.float_outputs_fault,
}  # type: dict[str, Any]


def _top(k: int) -> Metric:
    return Metric(
        name=f"top-{k}",
        labels=partial(classes.labels_fault, metric=f"top-{k}", k=k),
        samples=partial(classes.in_top, k=k),
        chance=partial(classes.commonest, k=k),
        **_ONE_LABEL,
    )


_ALL = [
    Metric(
        name="accuracy",
        labels=partial(classes.labels_fault, metric="accuracy"),
        samples=classes.correct,
        chance=classes.commonest,
        **_ONE_LABEL,
    ),
    *map(_top, range(2, 11)),
    Metric(
        name="macro-f1",
        labels=partial(classes.rows_fault, metric="macro-f1"),
        tallies=classes.tallies,
        total=classes.macro_f1,
        **_ROWS,
    ),
    Metric(
        name="f1",
        labels=partial(classes.rows_fault, metric="f1"),
        tallies=partial(classes.tallies, only=1),
        total=classes.micro_f1,
        **_ROWS,
    ),
    Metric(
        name="recall",
        labels=partial(classes.labels_fault, metric="recall"),
        tallies=classes.tallies,
        total=classes.macro_recall,
        chance=classes.even,
        **_ONE_LABEL,
    ),
    Metric(
        name="mean-iou",
        labels=partial(classes.labels_fault, metric="mean-iou"),
        tallies=classes.tallies,
        total=classes.mean_iou,
        **_ONE_LABEL,
    ),
    Metric(
        name="roc-auc",
        labels=values.binary_labels_fault,
        whole=values.roc_auc,
        chance=values.half,
        **{**_ONE_LABEL, "words": values.scores_words},
    ),
    Metric(
        name="mae",
        higher_is_better=False,
        needs_labels=True,
        bounds=(0.0, math.inf),
        labels=values.targets_fault,
        words=values.words,
        samples=values.absolute_error,
        spread=values.spread,
        chance=values.constant_error,
        decides=never,
    ),
    Metric(
        name="fidelity",
        samples=values.fidelity,
        unit=values.deviation,
        words=values.fidelity_words,
        decides=values.is_decided,
        **_LIKENESS,
    ),
    Metric(name="class-fidelity", samples=values.agreement, words=classes.words, **_LIKENESS),
    Metric(
        name="value-fidelity",
        samples=values.closeness,
        unit=values.deviation,
        words=values.closeness_words,
        decides=never,
        **_LIKENESS,
    ),
]
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
_ELSEWHERE = {
    "map": "the boxes and the post-processing that a detector means stand in no file; give a function of outputs and "
    "labels as the metric of a task, over pycocotools say (docs/python.md)",
}


def get_metric(name: str) -> Metric:
    """The metric called `name`; raises AutocompressError with the nearest name."""
    if name not in METRICS:
        if name.lower() in _ELSEWHERE:
            raise AutocompressError(f"metric '{name}' is not built in: {_ELSEWHERE[name.lower()]}")
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


def is_built_in(name: str) -> bool:
    """Whether every process knows the metric of this name."""
    return any(metric.name == name for metric in _ALL)


def register_metric(
    name: str,
    function: Callable[[Array, Array], Any],
    *,
    higher_is_better: bool,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    needs_labels: bool = True,
) -> Metric:
    """Make a function of outputs (n, ...) and labels (n, ...) a metric of this process, under `name`.

    It gives a score a sample, (n,), whose mean is the metric. AutocompressError for a name that a built-in metric has,
    and at the first use for scores of another shape."""
    if is_built_in(name):
        raise AutocompressError(f"'{name}' is a metric of autocompress; give yours another name")

    def fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None, reading: Reading) -> str | None:
        return None

    def scores(outputs: Array, y: Array, reading: Reading) -> Samples:
        found = np.asarray(function(outputs, y), np.float64)
        if found.shape != (len(outputs),):
            raise AutocompressError(
                f"metric '{name}' gives shape {found.shape}; give a score a sample, ({len(outputs)},)"
            )
        return found

    METRICS[name] = Metric(
        name=name,
        higher_is_better=higher_is_better,
        needs_labels=needs_labels,
        bounds=bounds,
        labels=fault,
        words=lambda *_: "as the metric's function has it",
        samples=scores,
        decides=never,
    )
    return METRICS[name]
