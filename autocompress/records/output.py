"""What of a network a study judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class JudgedOutput:
    """The outputs that the metric looks at, by name, with their shapes a sample and their positions among the
    file's outputs; `others` are compared with the float
    network's all the same. `signature`: the key of the signature they belong to, None where the file has none;
    `other_signatures` are not looked at."""

    signature: str | None
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    others: tuple[str, ...] = ()
    other_signatures: tuple[str, ...] = ()

    @property
    def named(self) -> str | None:
        """What tells this from judging another output of the same network; None where there is no other."""
        if len(self.names) > 1:
            return f"all of {', '.join(self.names)}"
        return self.names[0] if self.others else None

    @property
    def words(self) -> str:
        """Names, shapes and signature in a line."""
        judged = [f"{name} {shape_text(shape)}" for name, shape in zip(self.names, self.shapes, strict=True)]
        text = ", ".join(judged) + ("" if self.signature is None else f" of {self.signature}")
        if self.others:
            text += f" · not judged: {', '.join(self.others)}"
        if self.other_signatures:
            text += f" · without the signatures {', '.join(self.other_signatures)}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data: `signature`, `judged` (each `name`, `shape`, samples first as null, and `position`
        among the file's outputs), `others`, `other_signatures`."""
        judged = [
            {"name": name, "shape": [None, *shape], "position": position}
            for name, shape, position in zip(self.names, self.shapes, self.positions, strict=True)
        ]
        return {
            "signature": self.signature,
            "judged": judged,
            "others": list(self.others),
            "other_signatures": list(self.other_signatures),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JudgedOutput:
        """The inverse of `to_dict`."""
        return cls(
            signature=data["signature"],
            names=tuple(each["name"] for each in data["judged"]),
            shapes=tuple(tuple(each["shape"][1:]) for each in data["judged"]),
            positions=tuple(each["position"] for each in data["judged"]),
            others=tuple(data["others"]),
            other_signatures=tuple(data["other_signatures"]),
        )


def shape_text(shape: tuple[int, ...]) -> str:
    """The shape of a sample with the samples before it as n: (n, 3)."""
    return f"(n{''.join(f', {size}' for size in shape)}{'' if shape else ','})"
