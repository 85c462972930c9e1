"""The user's own task file, `--task FILE.py[:ATTR]`: their code, whose faults become one line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autocompress.errors import AutocompressError, unknown_name
from autocompress.tasks.task import Task


def split_name(name: str) -> tuple[Path | None, str]:
    """`FILE.py:ATTR` in its parts; no path where the text names no Python file."""
    file, colon, attribute = name.rpartition(":")
    if colon and file.endswith(".py"):
        return Path(file), attribute or "task"
    return (Path(name), "task") if name.endswith(".py") else (None, "")


def task_of_file(path: Path, attribute: str) -> Task:
    """The `Task` that `attribute` of the file is or, called without arguments, returns. Raises
    AutocompressError."""
    if not path.is_file():
        raise AutocompressError(f"task file '{path}' does not exist; give FILE.py[:ATTR] or a built-in task")
    module = _user_code(path, lambda: _import(path))
    if not hasattr(module, attribute):
        names = [name for name, value in vars(module).items() if isinstance(value, Task) or callable(value)]
        raise unknown_name(f"attribute of task file '{path}':", attribute, names or ["task"])
    made = getattr(module, attribute)
    if callable(made):
        made = _user_code(path, made)
    if not isinstance(made, Task):
        kind = type(made).__name__
        raise AutocompressError(f"'{attribute}' of task file '{path}' is a {kind}; make it an autocompress.tasks.Task")
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
            frame.lineno for frame in traceback.extract_tb(fault.__traceback__) if frame.filename == str(path.resolve())
        ]
        line = own[-1] if own else getattr(fault, "lineno", None)
        place = f"{path}, line {line}" if line else str(path)
        reason = " ".join(str(fault).split())
        raise AutocompressError(f"task file {place}: {type(fault).__name__}: {reason}; correct the file") from fault


def beside(file: Path | None, network: str | Path) -> Path:
    """A relative path beside the task's file where it exists there, else as it stands."""
    path = Path(network)
    near = path if file is None else file.parent / path
    return near if near.exists() else path
