"""From what the user names (a task, or a model and data) to a checked `LoadedTask`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autocompress.errors import AutocompressError, CandidateError, unknown_name
from autocompress.metrics import METRICS, Metric, get_metric
from autocompress.network.run import TensorSpec
from autocompress.tasks.archive import read_archive
from autocompress.tasks.arrays import fit_inputs, fit_labels, sha256_of
from autocompress.tasks.task import Array, Inputs, LoadedTask, Task, TrainingData

BUILT_IN = {"digits": "autocompress.tasks.digits", "fashion-mnist": "autocompress.tasks.fashion_mnist"}
DEFAULT = "digits"
NO_CALIBRATION = "no calibration inputs: the validation inputs serve"


def load_task(
    task: str | None = None,
    model: str | Path | None = None,
    data: str | Path | None = None,
    metric: str | None = None,
) -> LoadedTask:
    """The task to search on: a built-in name or `FILE.py[:ATTR]` (ATTR is `task` unless given; a function
    is called), or `model` (a network's path), `data` (an `.npz`) and `metric`; nothing at all: `digits`.
    `metric` with a task replaces the task's own. Raises AutocompressError for anything that cannot be
    used."""
    if task is not None and (model is not None or data is not None):
        raise AutocompressError(
            "task and model are both given; give --task, or --model with --data and --metric"
        )
    chosen = None if metric is None else get_metric(metric)
    if model is None and data is None:
        return _load_named(task or DEFAULT, chosen)
    if data is None:
        raise AutocompressError(f"model '{model}' is given without data; add --data FILE.npz")
    if model is None:
        raise AutocompressError(f"data '{data}' are given without a model; add --model FILE")
    if chosen is None:
        raise AutocompressError(f"a model needs a metric; add --metric, one of: {', '.join(sorted(METRICS))}")
    return _load_files(Path(model), Path(data), chosen)


def _load_files(model: Path, data: Path, metric: Metric) -> LoadedTask:
    from autocompress.network.convert import to_float_tflite

    original = to_float_tflite(model)
    fields, notes = read_archive(data, metric)
    made = Task(name=model.stem, network=original, metric=metric.name, **fields)
    return _checked(made, original, metric, f"{data}: ", f"model '{model}'", notes)


def _load_named(name: str, metric: Metric | None) -> LoadedTask:
    from autocompress.network.convert import to_float_tflite

    file, attribute = _split(name)
    if file is not None:
        made = _from_file(file, attribute)
    elif name in BUILT_IN:
        made = importlib.import_module(BUILT_IN[name]).task()
    else:
        raise unknown_name("task", name, BUILT_IN)
    network = (
        made.network if isinstance(made.network, bytes) else to_float_tflite(_beside(file, made.network))
    )
    prefix = f"task '{name}': "
    return _checked(made, network, metric or get_metric(made.metric), prefix, f"{prefix}its network", [])


def _checked(
    task: Task, original: bytes, metric: Metric, prefix: str, network_name: str, notes: list[str]
) -> LoadedTask:
    """The task with everything checked that can be checked without running the network."""
    network, inputs, output_shape = _network(original, network_name)
    fitted: dict[str, dict[str, Array]] = {}
    for split in ("x_calibration", "x_validation", "x_test"):
        if getattr(task, split) is not None:
            fitted[split], casts = fit_inputs(getattr(task, split), inputs, f"{prefix}{split}")
            notes = [*notes, *casts]
    labels = {
        split: _labels(
            getattr(task, f"y_{split}"), metric, fitted[f"x_{split}"], output_shape, f"{prefix}y_{split}"
        )
        for split in ("validation", "test")
    }
    if "x_calibration" not in fitted:
        notes = [*notes, NO_CALIBRATION]
    return LoadedTask(
        name=task.name,
        network=network,
        original=original,
        metric=metric,
        x_calibration=fitted.get("x_calibration", fitted["x_validation"]),
        x_validation=fitted["x_validation"],
        y_validation=labels["validation"],
        x_test=fitted["x_test"],
        y_test=labels["test"],
        network_sha256=hashlib.sha256(original).hexdigest(),
        data_sha256=sha256_of(_parts(fitted, labels)),
        train=_training(task, metric, inputs, output_shape, prefix),
        notes=tuple(notes),
    )


def _network(original: bytes, name: str) -> tuple[bytes, tuple[TensorSpec, ...], tuple[int, ...]]:
    """The normalised network, its inputs and the shape of its first output."""
    from autocompress.network.flatbuffer import normalise
    from autocompress.network.run import Runner

    try:
        network = normalise(original)
        runner = Runner(network, 1)
    except (AutocompressError, CandidateError) as fault:
        raise AutocompressError(f"{name}: {fault}") from fault
    return network, runner.inputs, runner.outputs[0].shape


def _labels(
    y: Array | None, metric: Metric, x: Mapping[str, Array], output_shape: tuple[int, ...], where: str
) -> Array | None:
    """Checked labels; None for metrics that compare with the float network."""
    if not metric.needs_labels:
        return None
    if y is None:
        raise AutocompressError(f"{where} is missing; metric {metric.name} needs labels (fidelity does not)")
    return fit_labels(y, metric, x, output_shape, where)


def _training(
    task: Task, metric: Metric, inputs: tuple[TensorSpec, ...], output_shape: tuple[int, ...], prefix: str
) -> Callable[[], TrainingData] | None:
    """A function that reads and checks the training data. Arrays in memory are checked at once."""
    if task.x_train is None:
        return None

    def read() -> TrainingData:
        x: Inputs = task.x_train() if callable(task.x_train) else task.x_train  # type: ignore[assignment]
        y = task.y_train() if callable(task.y_train) else task.y_train
        fitted, _ = fit_inputs(x, inputs, f"{prefix}x_train")
        return fitted, _labels(y, metric, fitted, output_shape, f"{prefix}y_train")

    if not callable(task.x_train) and not callable(task.y_train):
        read()
    return read


def _parts(
    fitted: Mapping[str, Mapping[str, Array]], labels: Mapping[str, Array | None]
) -> Iterator[tuple[str, Array]]:
    for split, arrays in fitted.items():
        yield from ((f"{split}.{name}", array) for name, array in arrays.items())
    yield from ((f"y_{split}", y) for split, y in labels.items() if y is not None)


# --- the user's own task file ---------------------------------------------------------------------


def _split(name: str) -> tuple[Path | None, str]:
    """`FILE.py:ATTR` in its parts; no path where the text names no Python file."""
    file, colon, attribute = name.rpartition(":")
    if colon and file.endswith(".py"):
        return Path(file), attribute or "task"
    return (Path(name), "task") if name.endswith(".py") else (None, "")


def _from_file(path: Path, attribute: str) -> Task:
    if not path.is_file():
        raise AutocompressError(
            f"task file '{path}' does not exist; give FILE.py[:ATTR] or one of: {', '.join(BUILT_IN)}"
        )
    module = _user_code(path, lambda: _import(path))
    if not hasattr(module, attribute):
        names = [name for name, value in vars(module).items() if isinstance(value, Task) or callable(value)]
        raise unknown_name(f"attribute of task file '{path}':", attribute, names or ["task"])
    made = getattr(module, attribute)
    if callable(made):
        made = _user_code(path, made)
    if not isinstance(made, Task):
        kind = type(made).__name__
        raise AutocompressError(
            f"'{attribute}' of task file '{path}' is a {kind}; make it an autocompress.tasks.Task"
        )
    return made


def _import(path: Path) -> Any:
    """The file as a module; its folder is importable meanwhile, as when it is run as a script."""
    name = f"autocompress_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _user_code(path: Path, run: Callable[[], Any]) -> Any:
    """Runs the user's code; whatever it raises becomes one line with the place in their file."""
    try:
        return run()
    except AutocompressError:
        raise
    except (Exception, SystemExit) as fault:
        own = [
            frame.lineno
            for frame in traceback.extract_tb(fault.__traceback__)
            if frame.filename == str(path.resolve())
        ]
        line = fault.lineno if isinstance(fault, SyntaxError) else own[-1] if own else None
        place = f"{path}, line {line}" if line else str(path)
        reason = " ".join(str(fault).split())
        raise AutocompressError(
            f"task file {place}: {type(fault).__name__}: {reason}; correct the file"
        ) from fault


def _beside(file: Path | None, network: str | Path) -> Path:
    """A relative path beside the task's file where it exists there, else as it stands."""
    path = Path(network)
    beside = path if file is None else file.parent / path
    return beside if beside.exists() else path
