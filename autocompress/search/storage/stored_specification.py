"""The specification of a study as its storage holds it: what any later process needs to go on with it.

User attribute `specification` (schema 2): `task` (how it is loaded again, None: by nothing but the program that made
it), `device` and `space` (the whole documents, how they were named, and the host), `objectives`, `size`, `constraints`,
`tier`, `sampler`, `seed`. Studies of schema 1 hold the words of a command instead, `words`; they are read as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import optuna

from autocompress.errors import AutocompressError
from autocompress.latency.host.client import at_host
from autocompress.search.specification import Provenance, Specification
from autocompress.search.storage import study_records
from autocompress.specs import (
    DeviceProfile,
    SearchSpace,
    device_document,
    device_of,
    load_device,
    load_space,
    space_document,
    space_of,
)

if TYPE_CHECKING:  # who only reads a study need not load what writes bundles
    from autocompress.export.bundle import ExportOptions

KEY = "specification"
SOURCE = ("task", "model", "data", "metric", "output", "signature")  # of a task, among the words of a command


@dataclass(frozen=True, kw_only=True)
class StoredSpecification:
    """What is stored of a specification. `task`: what `load_again` takes. `named`: how a command names the task,
    the device, its host and the space."""

    task: Mapping[str, str | None]
    profile: DeviceProfile
    space: SearchSpace
    tier: str
    named: Mapping[str, str | None]


def with_study(options: ExportOptions, study: optuna.Study) -> ExportOptions:
    """The options with what a study knows: the digest of its data, and how a command names its task, device and
    space."""
    identity = study_records.identity_of(study)
    data_sha256 = None if identity is None else identity.data_sha256
    return replace(options, data_sha256=data_sha256, words=named_of(study.user_attrs))


def store(study: optuna.Study, specification: Specification, provenance: Provenance) -> None:
    """Write the specification into its study, or what a command names anew (`--host`) into one that holds it."""
    if is_stored(study) and not provenance.named:
        return
    document = {
        "task": None if specification.task.source is None else dict(specification.task.source),
        "device": device_document(specification.profile),
        "space": space_document(specification.space),
        "named": dict(provenance.named),
        "objectives": list(specification.objectives),
        "size": specification.size,
        "constraints": [str(constraint) for constraint in specification.constraints],
        "tier": specification.tier,
        "sampler": specification.sampler,
        "seed": specification.seed,
    }
    if document != study.user_attrs.get(KEY):
        study.set_user_attr(KEY, document)
        study.set_user_attr("schema", study_records.SCHEMA)


def is_stored(study: optuna.Study) -> bool:
    """Whether the study holds its specification: not one of schema 1."""
    return study.user_attrs.get(KEY) is not None


def read(study: optuna.Study) -> StoredSpecification:
    """The specification of a study; AutocompressError for one that says too little to be opened again."""
    study_records.check_schema(study.study_name, study.user_attrs)  # a later one may say it in another way
    document = study.user_attrs.get(KEY)
    if document is None:
        return _of_words(study)
    if document["task"] is None:
        raise AutocompressError(
            f"study '{study.study_name}' was made by a Python program from objects of its own; go on with it there, "
            "with autocompress.open_study"
        )
    where = f"study {study.study_name}"
    return StoredSpecification(
        task=document["task"],
        profile=device_of(document["device"], f"{where}: its device"),
        space=space_of(document["space"], f"{where}: its space"),
        tier=document["tier"],
        named=named_of(study.user_attrs),
    )


def _of_words(study: optuna.Study) -> StoredSpecification:
    words = study.user_attrs.get("words")
    if not words:
        raise AutocompressError(
            f"study '{study.study_name}' does not say with what it was made, so it cannot be opened; start it with: "
            "autocompress search"
        )
    return StoredSpecification(
        task={name: words[name] for name in SOURCE if name in words},
        profile=at_host(load_device(words["device"]), words["host"]),
        space=load_space(words["space"]),
        tier="sequential",
        named=named_of(study.user_attrs),
    )


def named_of(attrs: Mapping[str, Any]) -> dict[str, str | None]:
    """How a command names the task, device, host and space of a study with these attributes."""
    document = attrs.get(KEY)
    if document is None:
        return dict(attrs.get("words", {}))
    return {**(document["task"] or {}), **document["named"]}
