"""The data that benchmarks judge files on, with all cores."""

from __future__ import annotations

import os

from autocompress.measure.accuracy import Split
from autocompress.tasks.task import LoadedTask


def test_split(task: LoadedTask) -> Split:
    """Test data: to be looked at when nothing is left to be chosen."""
    return Split(task.x_test, task.y_test, task.metric, task.network, threads=_cores(), seed=0)


def validation_split(task: LoadedTask) -> Split:
    """Validation data: what a search ranks by."""
    return Split(task.x_validation, task.y_validation, task.metric, task.network, threads=_cores(), seed=0)


def _cores() -> int:
    return len(os.sched_getaffinity(0))
