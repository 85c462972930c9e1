"""Faults of a YAML file in words: where, what is wrong with the value, what to write instead."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_SHAPES = {
    "list_type": "a list (write it in brackets: [a, b])",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text (put it in quotes)",
    "finite_number": "a finite number",
    "bool_type": "true or false",
}
_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}


@dataclass(frozen=True)
class Fault:
    """One fault: `path` as `$.rules[0].bits[1]`, and what is wrong there."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def joined_path(parts: Iterable[str | int]) -> str:
    """Keys and indices as one path from the root `$`; keys that are no plain word stand in quotes."""
    text = "$"
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if re.fullmatch(r"[\w-]+", part) else f"[{json.dumps(part)}]"
    return text


def shown(value: object) -> str:
    """A value as it is written in YAML, cut after 60 characters."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, str):
        text = f"'{' '.join(value.split())}'"
    elif isinstance(value, list):
        text = f"[{', '.join(shown(item) for item in value[:8])}{', ...' if len(value) > 8 else ''}]"
    elif isinstance(value, dict):
        text = "a mapping"
    else:
        text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def hint(value: object) -> str:
    """What YAML does to values that people write in good faith."""
    if isinstance(value, bool):
        return " (YAML reads on, off, yes and no as true and false)"
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return f" (YAML reads this as text: write {float(value):.10g} without quotes)"
    return ""


def not_one_of(value: object, allowed: Iterable[object]) -> str:
    """`value is not one of ...`, with the nearest name where there is one (and then no long list)."""
    names = [str(name) for name in allowed]
    upper = {name.upper(): name for name in names}
    near = difflib.get_close_matches(value.upper(), upper, n=1) if isinstance(value, str) else []
    remedy = f"; did you mean {upper[near[0]]}?" if near else ""
    if near and len(names) > 9:
        return f"{shown(value)} is not known here{remedy}"
    return f"{shown(value)} is not one of {', '.join(names)}{remedy}{hint(value)}"


def faults_of(error: ValidationError, data: Mapping[str, Any], model: type[BaseModel]) -> list[Fault]:
    """All faults that pydantic found in `data`, in its order, each once."""
    faults = [_fault(dict(detail), data, model) for detail in error.errors(include_url=False)]
    return list(dict.fromkeys(faults))


def _fault(detail: dict[str, Any], data: Mapping[str, Any], model: type[BaseModel]) -> Fault:
    path = _path(detail["loc"], data)
    return Fault(joined_path(path), _message(detail, path, model))


def _path(loc: Path, data: Any) -> Path:
    """pydantic's location without the parts that are its own: union tags and `[key]`."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        inside = isinstance(data, dict) and part in data
        inside = inside or (isinstance(data, list) and isinstance(part, int) and part < len(data))
        if inside:
            data = data[part]
            path.append(part)
        elif position == len(loc) - 1 and isinstance(data, dict) and part != "[key]":
            path.append(part)  # a missing key
    return tuple(path)


def _message(detail: dict[str, Any], path: Path, model: type[BaseModel]) -> str:
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), _keys_at(path[:-1], model))
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind in _SHAPES:
        return f"{shown(value)} is not {_SHAPES[kind]}{hint(value)}"
    if kind == "literal_error":
        return not_one_of(value, context["expected"].replace(" or ", ", ").replace("'", "").split(", "))
    if kind == "too_short":
        return f"{shown(value)} is empty; give at least one value"
    if kind in _BOUNDS:
        return f"{shown(value)} is not {_BOUNDS[kind]} {next(iter(context.values())):g}"
    return f"{shown(value)}: {detail['msg']}"


def _unknown_key(key: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(key, allowed, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"keys here: {', '.join(allowed)}"
    return f"unknown key; {remedy}"


def _keys_at(path: Path, model: type[BaseModel]) -> list[str]:
    """The keys of the models that `path` leads to: several where a value has more than one form."""
    models = [model]
    for part in path:
        found = [
            inner
            for each in models
            for name, field in each.model_fields.items()
            if part == (field.alias or name)
            for inner in _models_in(field.annotation)
        ]
        models = found or models
    return list(dict.fromkeys(field.alias or name for each in models for name, field in each.model_fields.items()))


def _models_in(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
