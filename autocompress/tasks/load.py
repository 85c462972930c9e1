"""From what the user names (a task, or a model and data) to a checked `LoadedTask`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from autocompress.errors import AutocompressError, unknown_name
from autocompress.metrics import METRICS, Metric, get_metric, register_metric
from autocompress.network.tflite.interpreter import TensorSpec
from autocompress.tasks.archive import read_archive
from autocompress.tasks.arrays import fit_inputs, fit_labels
from autocompress.tasks.check import checked
from autocompress.tasks.task import NOTHING, Array, LoadedTask, SignatureChoice, Task, asked_by
from autocompress.tasks.user_file import beside, split_name, task_of_file

BUILT_IN = {"digits": "autocompress.tasks.digits", "fashion-mnist": "autocompress.tasks.fashion_mnist"}
DEFAULT = "digits"


def load_task(
    task: str | None = None,
    model: str | Path | None = None,
    data: str | Path | None = None,
    metric: str | None = None,
    asked: SignatureChoice = NOTHING,
) -> LoadedTask:
    """The task to search on: a built-in name or `FILE.py[:ATTR]` (ATTR is `task` unless given; a function
    is called), or `model` (a network's path), `data` (an `.npz`) and `metric`; nothing at all: `digits`.
    `metric` with a task replaces the task's own, as does what is `asked` of outputs and signatures. Raises
    AutocompressError for anything that cannot be used."""
    loaded = _loaded(task, model, data, metric, asked)
    return replace(loaded, source=_source(task or (None if model else DEFAULT), model, data, metric, asked))


def load_again(source: Mapping[str, str | None]) -> LoadedTask:
    """The task that has this `source`; of a study of an older version its first output is judged, as it was."""
    named = {name: source.get(name) for name in ("task", "model", "data", "metric")}
    return replace(load_task(**named, asked=asked_by(source)), source=source)


def _source(
    task: str | None, model: str | Path | None, data: str | Path | None, metric: str | None, asked: SignatureChoice
) -> dict[str, str | None]:
    """What loads the same task again from whatever folder: the paths of files made absolute."""
    file, _ = (None, "") if task is None else split_name(task)
    if file is not None and file.exists():
        task = task and str(file.resolve()) + task.removeprefix(str(file))
    paths = {
        name: None if path is None else str(Path(path).resolve()) for name, path in (("model", model), ("data", data))
    }
    return {"task": task, **paths, "metric": metric, "output": asked.output, "signature": asked.signature}


def _loaded(
    task: str | None, model: str | Path | None, data: str | Path | None, metric: str | None, asked: SignatureChoice
) -> LoadedTask:
    if task is not None and (model is not None or data is not None):
        raise AutocompressError("task and model are both given; give --task, or --model with --data and --metric")
    chosen = None if metric is None else get_metric(metric)
    if model is None and data is None:
        return _load_named(task or DEFAULT, chosen, asked)
    if data is None:
        raise AutocompressError(f"model '{model}' is given without data; add --data FILE.npz")
    if model is None:
        raise AutocompressError(f"data '{data}' are given without a model; add --model FILE")
    if chosen is None:
        raise AutocompressError(f"a model needs a metric; add --metric, one of: {', '.join(sorted(METRICS))}")
    return _load_files(Path(model), Path(data), chosen, asked)


def load_test_data(
    data: Path, metric: Metric, inputs: tuple[TensorSpec, ...], output_shape: tuple[int, ...]
) -> tuple[dict[str, Array], Array | None, list[str]]:
    """The test split of an `.npz` for a network with these inputs and this output: inputs by name, labels (None with
    `fidelity`), notes. Raises AutocompressError where the data do not fit."""
    fields, notes = read_archive(data, metric)
    x, cast = fit_inputs(fields["x_test"], inputs, f"{data}: x_test")
    if not metric.needs_labels:
        return x, None, [*notes, *cast]
    return x, fit_labels(fields["y_test"], metric, x, output_shape, f"{data}: y_test"), [*notes, *cast]


def _load_files(model: Path, data: Path, metric: Metric, asked: SignatureChoice) -> LoadedTask:
    from autocompress.network.tflite.convert import to_float_tflite

    fields, notes = read_archive(data, metric)  # first: a conversion takes 10 s
    network = to_float_tflite(model)
    made = Task(name=model.stem, network=network, metric=metric.name, **fields)
    task = checked(made, network, metric, f"{data}: ", f"model '{model}'", asked)
    return replace(task, notes=(*notes, *task.notes))


def _load_named(name: str, metric: Metric | None, asked: SignatureChoice) -> LoadedTask:
    file, attribute = split_name(name)
    if file is not None:
        made = task_of_file(file, attribute)
    elif name in BUILT_IN:
        made = importlib.import_module(BUILT_IN[name]).task()
    else:
        raise unknown_name("task", name, [*BUILT_IN, "FILE.py[:ATTR]"])
    return _load_object(made, metric, asked, f"task '{name}': ", file)


def loaded_task(task: Task) -> LoadedTask:
    """A task object, checked. One of two files has a `source`; one of arrays has none until these are stored.
    AutocompressError for anything that cannot be used."""
    task = _with_named_metric(task)
    if isinstance(task.network, str | Path) and task.data is not None:
        choice = SignatureChoice(output=task.output, signature=task.signature)
        loaded = load_task(None, task.network, task.data, str(task.metric), choice)
        return replace(loaded, name=task.name or loaded.name)
    name = task.name or (Path(task.network).stem if isinstance(task.network, str | Path) else "task")
    return _load_object(replace(task, name=name), None, NOTHING, f"task '{name}': ", None)


def _with_named_metric(task: Task) -> Task:
    """The task, its function of outputs and labels registered as the metric of that name."""
    if not callable(task.metric):
        return task
    own = register_metric(task.metric.__name__, task.metric, higher_is_better=task.higher_is_better)
    return replace(task, metric=own.name)


def _load_object(
    made: Task, metric: Metric | None, asked: SignatureChoice, prefix: str, file: Path | None
) -> LoadedTask:
    """A task object; `file` is where it was written, whose folder relative paths count from."""
    from autocompress.network.tflite.convert import to_float_tflite

    made = _with_named_metric(made)
    network = made.network
    if not isinstance(network, bytes | str | Path):
        raise AutocompressError(f"{prefix}network is a {type(network).__name__}; give bytes or a path")
    chosen = metric or get_metric(str(made.metric))
    if made.data is not None:
        fields, _ = read_archive(beside(file, made.data), chosen)
        made = replace(made, **fields)
    model = network if isinstance(network, bytes) else to_float_tflite(beside(file, network))
    choice = replace(asked, output=asked.output or made.output, signature=asked.signature or made.signature)
    return checked(made, model, chosen, prefix, f"{prefix}its network", choice)
