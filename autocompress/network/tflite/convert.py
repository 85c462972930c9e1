"""A network as people have it (.tflite, .keras, .h5, SavedModel) to one float `.tflite`.

TensorFlow takes 5 s to import, prints to both streams, and its converter can abort the whole process, so it
runs in a child process; the parent keeps what the child wrote, or its reason in one line."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from autocompress.errors import AutocompressError, unknown_name
from autocompress.network.tflite.conversion_cache import converted

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
SUFFIXES = (".tflite", *KERAS_SUFFIXES)
REASON_CHARACTERS = 300
_log = logging.getLogger(__name__)
# -I: nothing of the user's folder (a keras.py, say) is imported; the parent's path comes as an argument.
CHILD = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from autocompress.network.tflite.convert import convert_here
convert_here(*sys.argv[2:])
"""


def to_float_tflite(path: Path) -> bytes:
    """The float flatbuffer of the network at `path`: a `.tflite` as it is; `.keras` (Keras 3 or 2), `.h5`,
    `.hdf5` and SavedModel folders converted in float32 without any optimisation, once for each content.

    Raises AutocompressError for a missing file, another kind of file, and one that cannot be read or
    converted."""
    if not path.exists():
        raise AutocompressError(f"model '{path}' does not exist; give {_allowed()}")
    if path.is_dir():
        if not any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise AutocompressError(f"folder '{path}' is no SavedModel: it has no saved_model.pb; give {_allowed()}")
        return converted(path, _convert)
    if path.suffix.lower() not in SUFFIXES:
        raise unknown_name(f"model file type of '{path.name}',", path.suffix, SUFFIXES)
    if path.stat().st_size == 0:
        raise AutocompressError(f"model '{path}' is empty (0 bytes); give {_allowed()}")
    return path.read_bytes() if path.suffix.lower() == ".tflite" else converted(path, _convert)


def is_converted(path: Path) -> bool:
    """Whether `to_float_tflite` converts what is at `path`, by its name."""
    return path.is_dir() or path.suffix.lower() in KERAS_SUFFIXES


def _allowed() -> str:
    return f"a file ending in {', '.join(SUFFIXES)} or a SavedModel folder"


def _convert(path: Path) -> bytes:
    _log.info("converting %s with TensorFlow, which takes a while; the result is kept for the next time", path.name)
    with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
        target, reason = Path(folder, "float.tflite"), Path(folder, "reason.txt")
        names = [str(path.resolve()), str(target), str(reason)]
        command = [sys.executable, "-I", "-c", CHILD, json.dumps(sys.path), *names]
        # Anything below errors goes nowhere anyway; a user who set a level wants to see it.
        level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")
        child = subprocess.run(
            command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": level}, capture_output=True, check=False
        )
        if target.exists():
            return target.read_bytes()
        text = reason.read_text() if reason.exists() else _last_line(child)
        raise AutocompressError(f"model '{path}' cannot be converted: {text}; save it again or give a .tflite")


def _last_line(child: subprocess.CompletedProcess[bytes]) -> str:
    """What is left of a child that died without giving a reason."""
    lines = child.stderr.decode(errors="replace").strip().splitlines()
    return f"the converter ended with code {child.returncode}: {_one_line(lines[-1] if lines else 'no message')}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= REASON_CHARACTERS else line[: REASON_CHARACTERS - 1] + "…"


# --- in the child ---------------------------------------------------------------------------------


def convert_here(source: str, target: str, reason: str) -> None:
    """Converts in this process: writes the flatbuffer to `target`, or why there is none to `reason`."""
    path = Path(source)
    try:
        converter = _of_saved_model(path) if path.is_dir() else _of_keras(path)
        model = converter.convert()
    except Exception as error:  # whatever TensorFlow raises is about the user's file; the parent reports it
        Path(reason).write_text(_reason(error))
        return
    partial = Path(f"{target}.partial")
    partial.write_bytes(model)
    partial.rename(target)


def _reason(error: Exception) -> str:
    """The error in one line; of the converter's pages of it, the operators that it cannot express."""
    operators = sorted(set(re.findall(r"'tf\.(\w+)' op", str(error))))
    if operators:
        return f"TFLite has no operator for {', '.join(operators)}"
    return _one_line(f"{type(error).__name__}: {error}")


def _of_saved_model(path: Path) -> Any:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_saved_model(str(path))


def _of_keras(path: Path) -> Any:
    version = _keras_version(path)  # first: a file that is none is refused before the slow import
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_keras_model(_load_keras(path, version))


def _load_keras(path: Path, version: str) -> Any:
    """The model, by the Keras of the version that wrote the file; by the other one when that fails."""
    first, second = (_load_keras_2, _load_keras_3) if version.startswith("2.") else (_load_keras_3, _load_keras_2)
    try:
        return first(path)
    except Exception as fault:  # Keras raises anything
        try:
            return second(path)
        except Exception:  # the reason of the Keras that wrote the file tells more than the other's
            raise fault from None


def _load_keras_3(path: Path) -> Any:
    import keras

    return keras.models.load_model(path, compile=False)


def _load_keras_2(path: Path) -> Any:
    import tf_keras

    return tf_keras.models.load_model(path, compile=False)


def _keras_version(path: Path) -> str:
    """The version of Keras that wrote the file, as it says itself; empty where it does not."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
    import h5py  # type: ignore[import-untyped]

    with h5py.File(path, "r") as file:
        version = file.attrs.get("keras_version", "")
    return version.decode() if isinstance(version, bytes) else str(version)
