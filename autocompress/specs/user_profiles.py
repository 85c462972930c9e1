"""The user's own device profiles: found by name before those that come with the package, and written whole."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from autocompress.errors import AutocompressError
from autocompress.specs.device import DeviceProfile
from autocompress.specs.space_schema import NAME

_LINE = 110  # characters
_HEAD = """\
# Written by autocompress. Edit it freely: the values are checked whenever it is read.
"""


def folder() -> Path:
    """$XDG_CONFIG_HOME/autocompress/device_profiles, by default below ~/.config; it need not exist."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG base directory specification has relative paths ignored.
    root = Path(config) if os.path.isabs(config) else Path.home() / ".config"
    return root / "autocompress" / "device_profiles"


def names() -> tuple[str, ...]:
    """The names of the user's profiles, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


def check_name(name: str) -> str:
    """The name, if a profile can have it; AutocompressError else."""
    if not re.fullmatch(NAME, name):
        raise AutocompressError(
            f"profile name '{name}' is not one of letters, digits, '.', '_' and '-'; choose another"
        )
    return name


def save(profile: DeviceProfile) -> Path:
    """Write a profile as NAME.yaml into the user's folder, whole or not at all; one of that name that is there
    already is kept as NAME.yaml.bak (and takes the place of an older one). Returns where it lies.

    AutocompressError where the folder cannot be written."""
    path = folder() / f"{profile.name}.yaml"
    text = _HEAD + as_yaml(profile)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        if path.exists():
            os.replace(_copied(path), path.with_name(f"{path.name}.bak"))
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # where the folder cannot be made there is none
            partial.unlink()
        raise AutocompressError(
            f"cannot write {path}: {error.strerror}; make the folder writable or set XDG_CONFIG_HOME to another"
        ) from error
    return path


def _copied(path: Path) -> Path:
    """A copy beside `path`: there is a whole profile of that name at every moment."""
    copy = path.with_name(f"{path.name}.{os.getpid()}.bak")
    copy.write_bytes(path.read_bytes())
    return copy


def as_document(profile: DeviceProfile) -> dict[str, Any]:
    """The profile as the plain data of such a file."""
    document: dict[str, Any] = _plain({"schema": 1} | asdict(profile))
    return document


def as_yaml(profile: DeviceProfile) -> str:
    """The profile as a YAML file that `load_device` reads back equal."""
    return str(yaml.dump(_flow(as_document(profile)), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_LINE))


class _Flow(dict[str, Any]):
    """A mapping that is written in one line."""


class _Dumper(yaml.SafeDumper):
    """Writes mappings and lists of plain values in one line, as people do in these files."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _one_line(dumper: yaml.SafeDumper, data: Mapping[str, Any]) -> Any:
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True)


def _sequence(dumper: yaml.SafeDumper, data: list[Any]) -> Any:
    plain = not any(isinstance(item, dict) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=plain)


_Dumper.add_representer(_Flow, _one_line)
_Dumper.add_representer(list, _sequence)


def _plain(value: Any) -> Any:
    """Dicts and lists all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _flow(value: Any, top: bool = True) -> Any:
    """Short mappings of plain values alone, below the top, are to be written in one line."""
    if isinstance(value, list):
        return [_flow(item, False) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _flow(item, False) for key, item in value.items()}
    small = all(not isinstance(item, dict | list) for item in made.values()) and len(str(made)) <= 2 * _LINE
    return _Flow(made) if small and not top else made
