"""What is asked of a network: layer choices and the configuration that they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from typing import Any

ACTIVATIONS = ("float32", "int8", "int16", "weight_only")
STATIC_ACTIVATIONS = ("int8", "int16")  # computed as integers, by ranges seen in calibration
BITS = (32, 16, 8, 7, 6, 5, 4, 3, 2)
TWO_OF_FOUR = "2:4"  # of each four neighbouring inputs of an output two are zero, at least
GRANULARITIES = ("element", "channel", "block", TWO_OF_FOUR)


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """What is asked of one layer. `sparsity` in [0, 1) is a floor, `bits` 32 and 16 are float, `clusters` the most
    distinct integers of the whole tensor, zero included; None: all levels of the bit-width."""

    sparsity: float = 0.0
    granularity: str = "element"
    bits: int = 32
    clusters: int | None = None

    @property
    def is_integer(self) -> bool:
        """Whether the weights are stored as integers."""
        return self.bits <= 8

    @property
    def is_baseline(self) -> bool:
        """Whether the layer stays exactly as it came."""
        return self == LayerChoice()

    def normalised(self) -> LayerChoice:
        """The one spelling of this choice, so that equal choices are equal: clusters only where they bind."""
        clusters = self.clusters
        if not self.is_integer or (clusters is not None and clusters >= 2**self.bits - 1):
            clusters = None
        sparsity = float(self.sparsity)
        return LayerChoice(
            sparsity=sparsity,
            granularity=self.granularity if sparsity > 0 else "element",
            bits=int(self.bits),
            clusters=None if clusters is None else int(clusters),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, keys in the order of the design."""
        return asdict(self)

    def to_json(self) -> str:
        """Compact JSON; the categorical value of this choice in the study."""
        return self._text

    @cached_property
    def _text(self) -> str:
        # Every trial asks for those of all choices of a space.
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerChoice:
        """The inverse of `to_dict`."""
        return _layer_choice(**data)


@lru_cache(maxsize=4096)
def _layer_choice(**values: Any) -> LayerChoice:
    # A study's trials hold the same few hundred choices thousands of times.
    return LayerChoice(**values)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A choice per layer (all layers, keyed by layer name), one activation precision for the network, and how many
    channels the groups keep that lose some (by the group's name; groups that are not named keep all).

    Of `activations`, `float32` and `weight_only` are both float: integer weights meet inputs rounded to 8 bits as they
    come (dynamic range), or are unpacked when the file is loaded, and float kernels compute."""

    activations: str = "float32"
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_baseline(self) -> bool:
        """Whether this is the float network as given."""
        return not self.channels and all(choice.is_baseline for choice in self.layers.values())

    def normalised(self) -> Configuration:
        """Each choice normalised; without an integer layer the activations are float32."""
        layers = {name: choice.normalised() for name, choice in self.layers.items()}
        integer = any(choice.is_integer for choice in layers.values())
        activations = self.activations if integer else "float32"
        return Configuration(activations=activations, layers=layers, channels=dict(sorted(self.channels.items())))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `channels` only where some are gone."""
        plain: dict[str, Any] = {
            "activations": self.activations,
            "layers": {name: choice.to_dict() for name, choice in self.layers.items()},
        }
        return plain | ({"channels": dict(self.channels)} if self.channels else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Configuration:
        """The inverse of `to_dict`."""
        layers = {name: LayerChoice.from_dict(choice) for name, choice in data["layers"].items()}
        return cls(activations=data["activations"], layers=layers, channels=dict(data.get("channels", {})))

    @property
    def digest(self) -> str:
        """SHA-256 of the normalised configuration: equal means equal."""
        text = json.dumps(self.normalised().to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
