"""A task of arrays kept on disk, so that any later process can load it again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from autocompress.files import write_whole
from autocompress.metrics import is_built_in
from autocompress.tasks.load import load_task
from autocompress.tasks.task import Array, LoadedTask, SignatureChoice

DATA = "data.npz"


def store_task(task: LoadedTask, folder: Path) -> LoadedTask:
    """The task as it is read back from files in `folder`, which are its `source`; as it is where it has a source
    already, or a metric that no other process knows. Its training data are not kept."""
    if task.source is not None or not is_built_in(task.metric.name):
        return task
    folder.mkdir(parents=True, exist_ok=True)
    model, data = folder / f"{task.name}.tflite", folder / DATA  # a task of files is called as its network
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **dict(_arrays(task)))
    write_whole(model, task.original)
    write_whole(data, archive.getvalue())
    output = None if task.output is None or len(task.output.names) != 1 else task.output.names[0]
    signature = None if task.output is None else task.output.signature
    choice = SignatureChoice(output=output, signature=signature)
    return replace(load_task(None, model, data, task.metric.name, choice), train=task.train)


def _arrays(task: LoadedTask) -> Iterator[tuple[str, Array]]:
    """By the names of the data file: a network of several inputs has one array an input."""
    splits = {"x_validation": task.x_validation, "x_test": task.x_test}
    if task.x_calibration is not task.x_validation:
        splits["x_calibration"] = task.x_calibration
    for split, inputs in splits.items():
        for name, values in inputs.items():
            yield split if len(inputs) == 1 else f"{split}.{name}", values
    for name, labels in (("y_validation", task.y_validation), ("y_test", task.y_test)):
        if labels is not None:
            yield name, labels
