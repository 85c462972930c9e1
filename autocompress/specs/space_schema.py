"""The YAML of a search space, strictly checked."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    field_validator,
)
from pydantic_core.core_schema import ValidationInfo

from autocompress.records.configuration import GRANULARITIES
from autocompress.specs.faults import hint, not_one_of, shown
from autocompress.specs.space import Rule, SearchSpace, Widths

# Ops of the TFLite schema that can have a constant weight.
WEIGHT_OPS = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
    "BATCH_MATMUL",
    "EMBEDDING_LOOKUP",
    "GATHER",
    "SVDF",
    "RNN",
    "LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
)
# Of a profile's kernels: what makes a dense weight of one that is stored sparse.
KERNEL_OPS = (*WEIGHT_OPS, "DENSIFY")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def _schema_one(value: object) -> int:
    if isinstance(value, bool) or value != 1:
        raise ValueError(f"{shown(value)} is not 1, the only schema that this version reads{hint(value)}")
    return 1


def _plain_name(value: str) -> str:
    if not re.fullmatch(NAME, value):
        raise ValueError(f"{shown(value)} is not a name of letters, digits, '.', '_' and '-' (it goes into file names)")
    return value


def _op(value: object) -> str:
    if not isinstance(value, str) or value not in WEIGHT_OPS:
        raise ValueError(not_one_of(value, WEIGHT_OPS))
    return value


def _kernel_op(value: object) -> str:
    if not isinstance(value, str) or value not in KERNEL_OPS:
        raise ValueError(not_one_of(value, KERNEL_OPS))
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{shown(value)} is not a regular expression: {error}") from error
    return value


def _granularity(value: object) -> str:
    if value not in GRANULARITIES or not isinstance(value, str):
        raise ValueError(not_one_of(value, GRANULARITIES))
    if value == "channel":
        raise ValueError("channels are kept by groups of layers, not by layer; use the key 'channels' of the space")
    return value


def _clusters(value: object) -> int | None:
    if value is None or value == "none":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 256:
        raise ValueError(f"{shown(value)} is not none or a whole number from 2 to 256{hint(value)}")
    return value


_CLUSTERS_JSON = {"anyOf": [{"type": "integer", "minimum": 2, "maximum": 256}, {"enum": ["none", None]}]}

SchemaOne = Annotated[int, PlainValidator(_schema_one), WithJsonSchema({"const": 1})]
Name = Annotated[str, AfterValidator(_plain_name), Field(json_schema_extra={"pattern": f"^{NAME}$"})]
OpName = Annotated[str, PlainValidator(_op), WithJsonSchema({"enum": list(WEIGHT_OPS)})]
KernelOp = Annotated[str, PlainValidator(_kernel_op), WithJsonSchema({"enum": list(KERNEL_OPS)})]
Regex = Annotated[str, AfterValidator(_regex)]
Dtype = Literal["float32", "int8", "int16"]
Activations = Literal["float32", "int8", "int16", "weight_only"]
Sparsity = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Granularity = Annotated[str, PlainValidator(_granularity), WithJsonSchema({"enum": list(GRANULARITIES)})]
Kept = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Divisor = Annotated[int, Field(ge=1, le=1024)]
Bits = Literal[32, 16, 8, 7, 6, 5, 4, 3, 2]
Clusters = Annotated[Any, PlainValidator(_clusters), WithJsonSchema(_CLUSTERS_JSON)]


class Strict(BaseModel):
    """No unknown keys, no guessed types."""

    model_config = ConfigDict(strict=True, extra="forbid")


class RuleFile(Strict):
    """One rule; it needs `match`, `op` or both."""

    op: OpName | None = Field(None, description="op name as in the TFLite schema")
    match: Regex | None = Field(
        None,
        validate_default=True,
        description="regular expression: whole name of the layer or of its tensor",
    )
    sparse_kernels: bool | None = Field(
        None, description="true: only layers that XNNPACK has sparse kernels for in this network; false: only others"
    )
    # An empty list is what is not given; one that is written must hold a value.
    sparsity: list[Sparsity] = Field(default_factory=list, min_length=1, description="fractions of zeros")
    granularity: list[Granularity] = Field(
        default_factory=list,
        min_length=1,
        description="pruned together; block: the weights of 4 (else 2) outputs; 2:4: two of each four inputs, at .5",
    )
    bits: list[Bits] = Field(default_factory=list, min_length=1, description="32 and 16 are float")
    clusters: list[Clusters] = Field(default_factory=list, min_length=1, description="most distinct integers")

    @field_validator("match")
    @classmethod
    def _names_something(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("op", "faulty") is None:
            raise ValueError('the rule names no layer; give match (".*" for every layer) or op')
        return value


class ChannelsFile(Strict):
    """How narrow each group of channels may become."""

    keep: list[Kept] = Field(min_length=1, description="shares of a group's channels; 1 is all of them")
    divisor: Divisor = Field(8, description="what is kept is a multiple of it")


class SpaceFile(Strict):
    """A search space, schema 1."""

    schema_: SchemaOne = Field(alias="schema")
    name: Name
    activations: list[Activations] = Field(["float32"], min_length=1, description="of the whole network")
    rules: list[RuleFile] = Field(min_length=1, description="all that match apply; merged per key, later wins")
    channels: ChannelsFile | None = Field(None, description="absent: all channels stay")


def to_space(file: SpaceFile) -> SearchSpace:
    """The checked file as frozen data."""
    return SearchSpace(
        name=file.name,
        activations=tuple(dict.fromkeys(file.activations)),
        rules=tuple(map(_rule, file.rules)),
        widths=_widths(file.channels),
    )


def to_document(space: SearchSpace) -> dict[str, Any]:
    """A space as the plain data of such a file; the inverse of `to_space`."""
    rules = [{key: value for key, value in asdict(rule).items() if value is not None} for rule in space.rules]
    listed = [{k: list(v) if isinstance(v, tuple) else v for k, v in rule.items()} for rule in rules]
    document: dict[str, Any] = {"schema": 1, "name": space.name, "activations": list(space.activations)}
    document["rules"] = listed
    if space.widths is not None:
        document["channels"] = {"keep": list(space.widths.keep), "divisor": space.widths.divisor}
    return document


def _widths(channels: ChannelsFile | None) -> Widths | None:
    if channels is None:
        return None
    return Widths(keep=tuple(dict.fromkeys(map(float, channels.keep))), divisor=channels.divisor)


def _rule(rule: RuleFile) -> Rule:
    return Rule(
        match=rule.match,
        op=rule.op,
        sparse_kernels=rule.sparse_kernels,
        sparsity=tuple(float(value) + 0.0 for value in rule.sparsity) or None,  # -0.0 + 0.0 is 0.0
        granularity=tuple(rule.granularity) or None,
        bits=tuple(map(int, rule.bits)) or None,
        clusters=tuple(rule.clusters) or None,
    )
