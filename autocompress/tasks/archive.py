"""The data file of `--data`: an `.npz` with the arrays of a task."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.metrics import Metric
from autocompress.tasks.task import Array, Inputs

REQUIRED_INPUTS = ("x_validation", "x_test")
OPTIONAL_INPUTS = ("x_calibration", "x_train")
LABELS = ("y_validation", "y_test", "y_train")


def read_archive(path: Path, metric: Metric) -> tuple[dict[str, Any], list[str]]:
    """The arrays of `path` by the names of `Task`'s fields, and notes.

    Keys: x_validation, y_validation, x_test, y_test, optional x_calibration, x_train, y_train; for a
    network of several inputs x_validation.INPUTNAME and so on. Raises AutocompressError for no archive and
    for missing keys."""
    arrays = _read(path)
    fields: dict[str, Any] = {}
    for base in (*REQUIRED_INPUTS, *OPTIONAL_INPUTS):
        inputs = _inputs(arrays, base, path)
        if inputs is not None:
            fields[base] = inputs
    fields |= {name: arrays.pop(name) for name in LABELS if name in arrays}
    _check_keys(fields, arrays, metric, path)
    ignored = [f"{path.name}: not used: {', '.join(sorted(arrays))}"] if arrays else []
    return fields, ignored


def _inputs(arrays: dict[str, Array], base: str, path: Path) -> Inputs | None:
    """What `base` and `base.INPUTNAME` hold, taken out of `arrays`."""
    prefix = f"{base}."
    named = {key.removeprefix(prefix): arrays.pop(key) for key in list(arrays) if key.startswith(prefix)}
    whole = arrays.pop(base, None)
    if whole is not None and named:
        raise AutocompressError(f"{path}: holds both {base} and {prefix}{next(iter(named))}; keep one of the two")
    return whole if whole is not None else named or None


def _check_keys(fields: dict[str, Any], rest: dict[str, Array], metric: Metric, path: Path) -> None:
    required = [*REQUIRED_INPUTS, *(("y_validation", "y_test") if metric.needs_labels else ())]
    if "x_train" in fields and metric.needs_labels:
        required.append("y_train")
    if "y_train" in fields:
        required.append("x_train")
    missing = [name for name in required if name not in fields]
    if not missing:
        return
    held = ", ".join(sorted([*fields, *rest])) or "nothing"
    labels_only = all(name.startswith("y_") for name in missing)
    remedy = "add them, or use the metric fidelity, which needs no labels" if labels_only else "add them"
    raise AutocompressError(f"{path}: lacks {', '.join(missing)} (it holds {held}); {remedy}")


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise AutocompressError(f"data '{path}' is no file; give an .npz made with numpy.savez")
    with path.open("rb") as file:  # given a path, NumPy would leave a damaged file open
        archive = _archive(file, path)
        return {key: _member(archive, key, path) for key in archive.files}


def _archive(file: BinaryIO, path: Path) -> Any:
    try:
        archive = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as fault:
        raise AutocompressError(f"data '{path}' is no .npz archive; make it with numpy.savez") from fault
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise AutocompressError(f"data '{path}' holds a single array; make an .npz with numpy.savez")
    return archive


def _member(archive: Any, key: str, path: Path) -> Array:
    try:
        array: Array = archive[key]
    except ValueError as fault:
        raise AutocompressError(f"{path}: {key} holds Python objects, not numbers; save a numeric array") from fault
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as fault:
        raise AutocompressError(f"{path}: {key} is damaged ({fault}); make the file again") from fault
    return array
