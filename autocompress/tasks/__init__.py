"""Tasks: a trained network, its data and the metric. Built in: `digits` and `fashion-mnist`."""

from autocompress.tasks.load import BUILT_IN, load_again, load_task, load_test_data, loaded_task
from autocompress.tasks.stored import store_task
from autocompress.tasks.task import LoadedTask, SignatureChoice, Task

__all__ = [
    "BUILT_IN",
    "LoadedTask",
    "SignatureChoice",
    "Task",
    "load_again",
    "load_task",
    "load_test_data",
    "loaded_task",
    "store_task",
]
