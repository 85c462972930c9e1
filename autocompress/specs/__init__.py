"""Search spaces and device profiles: YAML in, frozen dataclasses out.

pydantic and PyYAML are imported when a file is read, not when this package is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocompress.specs.delegation import left_out_line, not_delegated, offered_kernels
from autocompress.specs.device import (
    FIGURES,
    CalibratedModel,
    CalibratedRuntime,
    Coefficients,
    Cost,
    CrossValidation,
    DeviceProfile,
    FittedPoint,
    LatencyModel,
    LatencyRuntime,
    PowerDraw,
    Runtime,
    is_ssh_word,
)
from autocompress.specs.legality import (
    allowed_activations,
    allowed_choices,
    container_bits,
    is_unpacked,
    sparse_containers,
)
from autocompress.specs.space import Rule, SearchSpace, Widths
from autocompress.specs.sweep import Sweep, SweepBudget, SweepDevice, SweepSpace, SweepTask, VerdictRules

SCHEMA_KINDS = ("space", "device", "sweep")  # the kinds of files that `json_schema` knows

__all__ = [
    "FIGURES",
    "SCHEMA_KINDS",
    "CalibratedModel",
    "CalibratedRuntime",
    "Coefficients",
    "Cost",
    "CrossValidation",
    "DeviceProfile",
    "FittedPoint",
    "LatencyModel",
    "LatencyRuntime",
    "PowerDraw",
    "Rule",
    "Runtime",
    "SearchSpace",
    "Sweep",
    "SweepBudget",
    "SweepDevice",
    "SweepSpace",
    "SweepTask",
    "VerdictRules",
    "Widths",
    "allowed_activations",
    "allowed_choices",
    "check_device_name",
    "container_bits",
    "device_document",
    "device_names",
    "device_of",
    "device_yaml",
    "is_ssh_word",
    "is_unpacked",
    "json_schema",
    "left_out_line",
    "load_device",
    "load_space",
    "load_sweep",
    "not_delegated",
    "offered_kernels",
    "own_device_names",
    "save_device",
    "space_document",
    "space_names",
    "space_of",
    "sparse_containers",
]


def space_names() -> tuple[str, ...]:
    """The names of the search spaces that come with the package, sorted."""
    from autocompress.specs import packed

    return packed.names("search_spaces")


def device_names() -> tuple[str, ...]:
    """The names of the device profiles, the user's own and those that come with the package, sorted."""
    from autocompress.specs import packed

    return tuple(sorted({*packed.names("device_profiles"), *own_device_names()}))


def own_device_names() -> tuple[str, ...]:
    """The names of the profiles in the user's own folder, sorted."""
    from autocompress.specs import user_profiles

    return user_profiles.names()


def check_device_name(name: str) -> str:
    """The name, if a profile can have it; AutocompressError else."""
    from autocompress.specs import user_profiles

    return user_profiles.check_name(name)


def save_device(profile: DeviceProfile) -> Path:
    """Write a profile into the user's own folder, where `load_device` finds it by name before the packaged one.

    What was there under that name is kept as NAME.yaml.bak. AutocompressError where the folder cannot be written."""
    from autocompress.specs import user_profiles

    return user_profiles.save(profile)


def device_yaml(profile: DeviceProfile) -> str:
    """A profile as the YAML file that `load_device` reads back equal."""
    from autocompress.specs import user_profiles

    return user_profiles.as_yaml(profile)


def device_document(profile: DeviceProfile) -> dict[str, Any]:
    """A profile as the plain data of its file, for JSON; the inverse of `device_of`."""
    from autocompress.specs import user_profiles

    return user_profiles.as_document(profile)


def device_of(document: Mapping[str, Any], where: str) -> DeviceProfile:
    """The profile that `device_document` made these data of; AutocompressError, which names `where`, else."""
    from autocompress.specs import device_schema, yaml_file

    return device_schema.to_device(yaml_file.checked(document, device_schema.DeviceFile, where))


def space_document(space: SearchSpace) -> dict[str, Any]:
    """A search space as the plain data of its file, for JSON; the inverse of `space_of`."""
    from autocompress.specs import space_schema

    return space_schema.to_document(space)


def space_of(document: Mapping[str, Any], where: str) -> SearchSpace:
    """The space that `space_document` made these data of; AutocompressError, which names `where`, else."""
    from autocompress.specs import space_schema, yaml_file

    return space_schema.to_space(yaml_file.checked(document, space_schema.SpaceFile, where))


def load_space(name_or_path: str | Path) -> SearchSpace:
    """The search space of that name, or of that `.yaml` file.

    AutocompressError where there is none, or with all faults of the file and their `$.path`."""
    from autocompress.specs import packed, space_schema, yaml_file

    path = packed.find("search_spaces", "search space", name_or_path)
    return space_schema.to_space(yaml_file.load(path, space_schema.SpaceFile))


def load_device(name_or_path: str | Path) -> DeviceProfile:
    """The device profile of that name, the user's own before the packaged one, or of that `.yaml` file.

    AutocompressError where there is none, or with all faults of the file and their `$.path`."""
    from autocompress.specs import device_schema, packed, user_profiles, yaml_file

    path = packed.find("device_profiles", "device", name_or_path, user_profiles.folder())
    return device_schema.to_device(yaml_file.load(path, device_schema.DeviceFile))


def load_sweep(path: str | Path) -> Sweep:
    """The sweep of a `.yaml` file. AutocompressError with all its faults and their `$.path`."""
    from autocompress.specs import sweep_schema, yaml_file

    return sweep_schema.to_sweep(yaml_file.load(Path(path), sweep_schema.SweepFile), Path(path))


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a `space`, a `device` or a `sweep` file, for editors that complete and check YAML."""
    from autocompress.errors import unknown_name
    from autocompress.specs import device_schema, space_schema, sweep_schema

    models: dict[str, type[space_schema.Strict]] = {
        "space": space_schema.SpaceFile,
        "device": device_schema.DeviceFile,
        "sweep": sweep_schema.SweepFile,
    }
    if kind not in models:
        raise unknown_name("kind of file", kind, models)
    return models[kind].model_json_schema(by_alias=True)
