"""The data that benchmarks judge files on, with all cores."""

from __future__ import annotations

import os
from collections.abc import Mapping

from autocompress.evaluate.quality import Split
from autocompress.tasks.task import Array, LoadedTask


def test_split(task: LoadedTask) -> Split:
    """Test data: to be looked at when nothing is left to be chosen."""
    return _split(task, task.x_test, task.y_test)


def validation_split(task: LoadedTask) -> Split:
    """Validation data: what a search ranks by."""
    return _split(task, task.x_validation, task.y_validation)


def _split(task: LoadedTask, x: Mapping[str, Array], y: Array | None) -> Split:
    return Split(x, y, task.metric, task.network, threads=len(os.sched_getaffinity(0)), seed=0)
