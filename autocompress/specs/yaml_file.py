"""Reading one YAML file into a checked model, with all its faults at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from autocompress.errors import AutocompressError, faulty_file
from autocompress.specs.faults import Fault, faults_of, joined_path, shown

_Model = TypeVar("_Model", bound=BaseModel)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 32  # libyaml recurses over nested collections without a limit of its own
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def load(path: Path, model: type[_Model]) -> _Model:
    """The file as a `model`; AutocompressError in one line with every fault and its `$.path`."""
    data, faults = _data(_text(path))
    if data is not None:
        found, wrong = _checked(data, model)
        faults += wrong
        if found is not None and not faults:
            return found
    raise faulty_file(path, [str(fault) for fault in faults])


def checked(data: Mapping[str, Any], model: type[_Model], where: str) -> _Model:
    """Plain data, stored as such a file would hold them, as a `model`; AutocompressError as `load`."""
    found, faults = _checked(dict(data), model)
    if found is None:
        raise faulty_file(Path(where), [str(fault) for fault in faults])
    return found


def _checked(data: dict[str, Any], model: type[_Model]) -> tuple[_Model | None, list[Fault]]:
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, faults_of(error, data, model)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise AutocompressError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise AutocompressError(f"{path}: cannot be read: {error.strerror}; give a readable .yaml file") from error


def _data(text: str) -> tuple[dict[str, Any] | None, list[Fault]]:
    """The top mapping, None where there is none, and the faults that only the YAML itself shows."""
    faults: list[Fault] = []
    try:
        _check_depth(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, [Fault("$", "the file is empty; start it with 'schema: 1'")]
        _drop_bad_keys(node, (), faults, set())
        data = loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a value like 2022-13-45 that is no date
        return None, [Fault("$", f"not valid YAML{_where(error)}: {_problem(error)}")]
    if not isinstance(data, dict):
        return None, [Fault("$", f"{shown(data)} is not a mapping of keys to values; start it with 'schema: 1'")]
    return data, faults


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"nested more than {_DEEPEST} deep; rules and values are flat")


def _drop_bad_keys(node: Any, path: tuple[str | int, ...], faults: list[Fault], seen: set[int]) -> None:
    """Note keys that are given twice or are no text, and take them out so that the rest can be checked."""
    if id(node) in seen:  # an alias: noted where it was written
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _drop_bad_keys(item, (*path, index), faults, seen)
    elif isinstance(node, yaml.MappingNode):
        kept: dict[str, Any] = {}
        for key, value in node.value:
            fault = _key_fault(key, kept)
            if fault is None:
                kept[key.value] = (key, value)
                _drop_bad_keys(value, (*path, key.value), faults, seen)
            else:
                faults.append(Fault(joined_path(path), fault))
        node.value = list(kept.values())


def _key_fault(key: Any, kept: dict[str, Any]) -> str | None:
    if key.tag not in (_TEXT, _MERGE):
        written = shown(key.value) if isinstance(key, yaml.ScalarNode) else "(a collection)"
        kind = key.tag.rsplit(":", 1)[-1]
        return f"key {written} is read by YAML as {kind}, not as text; put it in quotes or remove it"
    if key.value in kept:
        return f"key {shown(key.value)} is given twice, again in line {key.start_mark.line + 1}; keep one"
    return None


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"


def _problem(error: Exception) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return " ".join(str(problem).split())
