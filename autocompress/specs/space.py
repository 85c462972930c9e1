"""Search spaces: which choices each layer has."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from autocompress.records.configuration import TWO_OF_FOUR, LayerChoice

# What a rule may set, in the order of the design, with what holds where no rule sets it.
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "sparsity": (0.0,),
    "granularity": ("element",),
    "bits": (32,),
    "clusters": (None,),
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Values for the layers that it names. `match`: a regular expression for the whole name of a layer or of
    its tensor; `op`: an op name as in the TFLite schema; `sparse_kernels`: whether XNNPACK has sparse kernels for it in
    its network; what is given must hold. None: not given."""

    match: str | None = None
    op: str | None = None
    sparse_kernels: bool | None = None
    sparsity: tuple[float, ...] | None = None
    granularity: tuple[str, ...] | None = None
    bits: tuple[int, ...] | None = None
    clusters: tuple[int | None, ...] | None = None

    def names_layer(self, *, name: str, tensor_name: str, op: str, sparse_kernels: bool = False) -> bool:
        """Whether the rule applies to this layer."""
        if self.op not in (None, op) or self.sparse_kernels not in (None, sparse_kernels):
            return False
        return self.match is None or any(re.fullmatch(self.match, text) for text in (name, tensor_name))


@dataclass(frozen=True, kw_only=True)
class Widths:
    """How narrow each group of channels may become: `keep`, shares of its channels in (0, 1]; what is kept is a
    multiple of `divisor` (and at least that many), or all."""

    keep: tuple[float, ...]
    divisor: int = 8

    def counts(self, channels: int) -> tuple[int, ...]:
        """How many channels a group of `channels` may keep, all of them first; only all where it has no more than
        `divisor`."""
        rounded = {max(1, round(share * channels / self.divisor)) * self.divisor for share in self.keep}
        return (channels, *sorted((count for count in rounded if count < channels), reverse=True))


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Choices per layer, the activation precisions of the network and the widths of its groups of channels, as the
    file gives them. `widths` None: all channels stay."""

    name: str
    activations: tuple[str, ...] = ("float32",)
    rules: tuple[Rule, ...] = ()
    widths: Widths | None = None

    def names_layer(self, *, name: str, tensor_name: str, op: str, sparse_kernels: bool = False) -> bool:
        """Whether any rule applies to this layer; a layer that none names stays float."""
        layer = {"name": name, "tensor_name": tensor_name, "op": op}
        return any(rule.names_layer(**layer, sparse_kernels=sparse_kernels) for rule in self.rules)

    def choices(self, *, name: str, tensor_name: str, op: str, sparse_kernels: bool = False) -> tuple[LayerChoice, ...]:
        """The choices of one layer: every rule that applies, merged per key, later ones winning; then all
        combinations, normalised, each once, in the order of the file (the last key varies fastest)."""
        values = dict(_DEFAULTS)
        for rule in self.rules:
            if rule.names_layer(name=name, tensor_name=tensor_name, op=op, sparse_kernels=sparse_kernels):
                values |= {key: given for key in _DEFAULTS if (given := getattr(rule, key)) is not None}
        if op == "DEPTHWISE_CONV_2D":  # an output channel has inputs of its own: there are no blocks
            values["granularity"] = ("element",)
        combinations = (
            LayerChoice(**dict(zip(values, each, strict=True))) for each in itertools.product(*values.values())
        )
        return unique(each for each in combinations if each.granularity != TWO_OF_FOUR or each.sparsity in (0, 0.5))


def unique(choices: Iterable[LayerChoice]) -> tuple[LayerChoice, ...]:
    """The choices normalised, each once, in the order of their first appearance."""
    return tuple(dict.fromkeys(choice.normalised() for choice in choices))
