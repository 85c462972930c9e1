"""Defaults of the user's own: `AUTOCOMPRESS_*` variables, then the `[tool.autocompress]` table of a pyproject.toml.

`AUTOCOMPRESS_SEARCH_TRIALS` and `trials` in `[tool.autocompress.search]` are for one command, and come before
`AUTOCOMPRESS_TRIALS` and `trials` in `[tool.autocompress]`, which are for every command that has `--trials`. What the
command line says comes before all. Flags are true or false; several values of one option are a list, in a variable with
`;` between them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from autocompress.errors import AutocompressError, faulty_file, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "AUTOCOMPRESS_"
_NOT_HERE = ("help", "quiet", "verbose", "attached")
_PATHS = ("runs", "model", "data", "baseline", "to", "html", "junit", "markdown")  # in a table they count from its file
_log = logging.getLogger(__name__)

Key = tuple[str, ...]  # the words of a command, perhaps none, and an option without its dashes


def default_map(context: typer.Context) -> dict[str, Any]:
    """The defaults of all commands of the root that `context` is of, as Click takes them: by command, then by
    parameter.

    AutocompressError for a table that cannot be read or has a key that is no option, and for values that no option
    takes. A variable that is no option's is warned of: it may be another program's."""
    file = _pyproject()
    values = {} if file is None else dict(_flat(_table(file)))
    variables = {name: text for name, text in os.environ.items() if name.startswith(PREFIX) and text}
    if not values and not variables:
        return {}
    found: dict[str, Any] = {}
    known: dict[Key, str] = {}
    for words, option in _options(context.command):
        keys = [(*words[:end], _long(option)) for end in range(len(words), -1, -1)]
        known |= {key: variable_of(key) for key in keys}
        chosen = next((key for key in keys if known[key] in variables), None)
        if chosen is not None:
            value, where = _split(option, variables[known[chosen]]), known[chosen]
        else:
            chosen = next((key for key in keys if key in values), None)
            if chosen is None or file is None:
                continue
            value, where = _from_file(option, values[chosen], file), f"{file}: {'.'.join(chosen)}"
        _put(found, (*words, option.name), _checked(option, value, where, context))
    _check_names(values, variables, known, file)
    return found


def variable_of(key: Key) -> str:
    """The variable of an option: AUTOCOMPRESS_SEARCH_TIME_BUDGET."""
    return PREFIX + "_".join(key).upper().replace("-", "_")


def _pyproject() -> Path | None:
    """The nearest pyproject.toml, in the current folder or above it, that speaks of us."""
    here = Path.cwd()
    path = next(
        (each / "pyproject.toml" for each in (here, *here.parents) if (each / "pyproject.toml").is_file()), None
    )
    return path if path is not None and b"autocompress" in path.read_bytes() else None


def _table(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("autocompress", {})
    except ValueError as fault:  # of the encoding or of TOML
        raise AutocompressError(f"cannot read {file}: {fault}; mend it") from fault
    if not isinstance(found, dict):
        raise AutocompressError(f"{file}: tool.autocompress is no table; write [tool.autocompress]")
    return found


def _flat(table: Mapping[str, Any], words: Key = ()) -> Iterator[tuple[Key, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, (*words, name))
        else:
            yield (*words, name), value


def _options(group: Any, words: Key = ()) -> Iterator[tuple[Key, Any]]:
    """All options, each with the words of its command."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _options(command, (*words, word))
        else:
            for option in command.params:
                if option.param_type_name == "option" and option.name not in _NOT_HERE:
                    yield (*words, word), option


def _long(option: Any) -> str:
    name: str = next(each for each in option.opts if each.startswith("--"))
    return name[2:]


def _split(option: Any, text: str) -> Any:
    if option.nargs != 1:
        return text.split()
    return [part.strip() for part in text.split(";") if part.strip()] if option.multiple else text


def _from_file(option: Any, value: Any, file: Path) -> Any:
    if option.multiple and not isinstance(value, list):
        value = [value]
    if option.name in _PATHS and isinstance(value, str) and file.parent != Path.cwd():
        return str(file.parent / value)
    return value


def _checked(option: Any, value: Any, where: str, context: typer.Context) -> Any:
    """The value, if the option takes it."""
    plain = (
        [str(each) for each in value] if isinstance(value, list) else value if isinstance(value, bool) else str(value)
    )
    try:
        option.process_value(context, plain)
    except typer.BadParameter as fault:
        raise AutocompressError(f"{where}: {fault.message.rstrip('.')}; --{_long(option)} does not take it") from None
    return plain


def _put(found: dict[str, Any], path: Key, value: Any) -> None:
    for word in path[:-1]:
        found = found.setdefault(word, {})
    found[path[-1]] = value


def _check_names(
    values: Mapping[Key, Any], variables: Mapping[str, str], known: Mapping[Key, str], file: Path | None
) -> None:
    names = {".".join(key) for key in known}
    faults = [str(unknown_name("option", ".".join(key), names)) for key in values if key not in known]
    if faults and file is not None:
        raise faulty_file(file, [f"[tool.autocompress]: {fault}" for fault in faults])
    for name in variables:
        if name not in known.values():
            near = unknown_name("variable", name, known.values()).remedy or ""
            said = near if near.startswith("did you mean") else "it is no option's"
            _log.warning("%s is not used; %s", name, said)
