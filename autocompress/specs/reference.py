"""The reference of the YAML files, made of their JSON schemas; no key is known here.

`python -m autocompress.specs.reference > docs/reference.md` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from autocompress.specs import SCHEMA_KINDS, json_schema

Schema = Mapping[str, Any]
_INTRODUCTION = """# Reference of the YAML files

Made of the schemas that check the files, by `python -m autocompress.specs.reference > docs/reference.md`; a test holds
it up to date. Unknown keys, missing keys and values of another type are faults, and all faults of a file are told at
once with their `$.path`. Keys in **bold** must be there. For an editor that completes and checks YAML, write a schema
to a file:

```sh
python -c "import json; from autocompress.specs import json_schema; print(json.dumps(json_schema('space')))" > s.json
```
"""
_PLACES = {
    "space": "Search spaces: `search_spaces/NAME.yaml`, or any file: `--space my.yaml`.",
    "device": "Device profiles: `device_profiles/NAME.yaml`, the user's own folder (`autocompress device probe` and "
    "`calibrate` write there), or any file: `--device my.yaml`.",
    "sweep": "Sweeps: any file, `autocompress sweep my.yaml`; paths in it count from its own folder. See "
    "[sweeps](sweeps.md). A bare word stands for a task, a device profile or a space of that name.",
}
_WORDS = {"integer": "whole number", "string": "text", "boolean": "`true` or `false`", "null": "`null`"}
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def reference() -> str:
    """The page as Markdown."""
    return "\n".join([_INTRODUCTION, *(_section(kind) for kind in SCHEMA_KINDS)])


def _section(kind: str) -> str:
    schema = json_schema(kind)
    lines = [f"## `{kind}`", "", _PLACES.get(kind, schema.get("description", "")), "", *_table(schema, schema)]
    for name, part in sorted(schema.get("$defs", {}).items()):
        if "properties" in part:
            lines += ["", f"### {_title(kind, name)}", "", part.get("description", ""), "", *_table(part, schema)]
    return "\n".join(lines) + "\n"


def _title(kind: str, name: str) -> str:
    return f"`{kind}`: {name.removesuffix('File')}"


def _table(part: Schema, root: Schema) -> Iterator[str]:
    yield "| key | value | default | |"
    yield "| --- | --- | --- | --- |"
    for key, value in part["properties"].items():
        required = key in part.get("required", ())
        shown = f"**`{key}`**" if required else f"`{key}`"
        default = "" if required else _default(value)
        yield f"| {shown} | {_cell(_kind(value, root))} | {default} | {_cell(value.get('description', ''))} |"


def _default(value: Schema) -> str:
    return f"`{json.dumps(value['default'])}`" if "default" in value else "not given"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _kind(value: Schema, root: Schema) -> str:
    """What a value may be, in words."""
    if "$ref" in value:
        return _reference(value["$ref"].rsplit("/", 1)[-1], root)
    for combined in ("anyOf", "oneOf"):
        if combined in value:
            return " or ".join(dict.fromkeys(_kind(each, root) for each in value[combined]))
    if "const" in value or "enum" in value:
        return ", ".join(_literal(each) for each in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return _array(value, root)
    return _object(value, root) if value.get("type") == "object" else _scalar(value)


def _reference(name: str, root: Schema) -> str:
    part = root["$defs"][name]
    return f"see {name.removesuffix('File')}" if "properties" in part else _kind(part, root)


def _literal(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _array(value: Schema, root: Schema) -> str:
    if "prefixItems" in value:
        parts = "; then ".join(_kind(each, root) for each in value["prefixItems"])
        return f"list of {len(value['prefixItems'])}: {parts}"
    return f"list, {'not empty, ' if value.get('minItems') else ''}each: {_kind(value.get('items', {}), root)}"


def _object(value: Schema, root: Schema) -> str:
    if "properties" in value:
        keys = (f"`{key}` ({_kind(each, root)})" for key, each in value["properties"].items())
        return f"mapping of {', '.join(keys)}"
    names = value.get("propertyNames")
    keyed = "" if not names else f" with keys {_kind(names, root)}"
    return f"mapping{keyed} to: {_kind(value.get('additionalProperties', {}), root)}"


def _scalar(value: Schema) -> str:
    parts = [f"{said} {value[key]:g}" for key, said in _LIMITS.items() if key in value]
    parts += [f"matching `{value['pattern']}`"] if "pattern" in value else []
    kind = str(value.get("type", "anything"))
    return " ".join([_WORDS.get(kind, kind), " and ".join(parts)]).strip()


if __name__ == "__main__":
    print(reference(), end="")
