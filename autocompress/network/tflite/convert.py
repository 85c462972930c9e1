"""A network as people have it (.tflite, .keras, .h5, SavedModel) to one float `.tflite`.

TensorFlow takes 5 s to import, prints to both streams, and its converter can abort the whole process, so it
runs in a child process; the parent keeps what the child wrote, or its reason in one line."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from autocompress.errors import AutocompressError, unknown_name
from autocompress.network.tflite.conversion import one_line
from autocompress.network.tflite.conversion_cache import converted

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
SUFFIXES = (".tflite", *KERAS_SUFFIXES)
_log = logging.getLogger(__name__)
# -I: nothing of the user's folder (a keras.py, say) is imported; the parent's path comes as an argument.
CHILD = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from autocompress.network.tflite.conversion import convert_here
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
        text, _, remedy = (reason.read_text() if reason.exists() else _last_line(child)).partition("\n")
        remedy = remedy or "save it again or give a .tflite"
        raise AutocompressError(f"model '{path}' cannot be converted: {text}; {remedy}")


def _last_line(child: subprocess.CompletedProcess[bytes]) -> str:
    """What is left of a child that died without giving a reason."""
    lines = child.stderr.decode(errors="replace").strip().splitlines()
    return f"the converter ended with code {child.returncode}: {one_line(lines[-1] if lines else 'no message')}"
