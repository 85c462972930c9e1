"""A task of arrays kept on disk, so that any later process can load it again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from autocompress.files import write_whole
from autocompress.metrics import is_built_in
from autocompress.tasks.task import Array, LoadedTask

NETWORK, DATA = "network.tflite", "data.npz"


def store_task(task: LoadedTask, folder: Path) -> LoadedTask:
    """The task with its network and arrays as files in `folder` for its `source`; as it is where it has one
    already, or a metric that no other process knows. Its training data are not kept."""
    if task.source is not None or not is_built_in(task.metric.name):
        return task
    model, data = folder / NETWORK, folder / DATA
    folder.mkdir(parents=True, exist_ok=True)
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **dict(_arrays(task)))
    write_whole(model, task.original)
    write_whole(data, archive.getvalue())
    output = None if task.output is None or len(task.output.names) != 1 else task.output.names[0]
    source = {
        "task": None,
        "model": str(model.resolve()),
        "data": str(data.resolve()),
        "metric": task.metric.name,
        "output": output,
        "signature": None if task.output is None else task.output.signature,
    }
    return replace(task, source=source)


def _arrays(task: LoadedTask) -> Iterator[tuple[str, Array]]:
    """By the names of the data file: a network of several inputs has one array an input."""
    splits = {"x_calibration": task.x_calibration, "x_validation": task.x_validation, "x_test": task.x_test}
    for split, inputs in splits.items():
        for name, values in inputs.items():
            yield split if len(inputs) == 1 else f"{split}.{name}", values
    for name, labels in (("y_validation", task.y_validation), ("y_test", task.y_test)):
        if labels is not None:
            yield name, labels
