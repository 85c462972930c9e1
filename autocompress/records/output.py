"""What of a network a study judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class JudgedOutput:
    """The outputs that the metric looks at, by name, with their shapes a sample and their positions among the
    file's outputs; `kinds`: what makes each of them ("integer", "softmax", "logistic", "linear"), None in studies that
    say nothing of it. `read_as`: how the metric reads them, for people; `reads_anew`: otherwise than studies that say
    nothing of it. `others` are compared with the float network's
    all the same. `signature`: the key of the signature they belong to, None where the file has none;
    `other_signatures` are not looked at."""

    signature: str | None
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    others: tuple[str, ...] = ()
    other_signatures: tuple[str, ...] = ()
    kinds: tuple[str | None, ...] = ()
    read_as: str | None = None
    reads_anew: bool = False

    @property
    def named(self) -> str | None:
        """What tells this from judging another output of the same network, or the same one in another way; None where
        there is no other."""
        told = f"all of {', '.join(self.names)}" if len(self.names) > 1 else self.names[0] if self.others else None
        return told if not self.reads_anew else f"{told or self.names[0]} as {self.read_as}"

    @property
    def words(self) -> str:
        """Names, shapes and signature in a line."""
        judged = [f"{name} {shape_text(shape)}" for name, shape in zip(self.names, self.shapes, strict=True)]
        text = ", ".join(judged) + ("" if self.signature is None else f" of {self.signature}")
        text += "" if self.read_as is None else f": {self.read_as}"
        if self.others:
            text += f" · not judged: {', '.join(self.others)}"
        if self.other_signatures:
            text += f" · without the signatures {', '.join(self.other_signatures)}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data: `signature`, `judged` (each `name`, `shape`, samples first as null, `position` among the
        file's outputs, and `kind`), `read_as`, `reads_anew`, `others`, `other_signatures`."""
        kinds = self.kinds or (None,) * len(self.names)
        judged = [
            {"name": name, "shape": [None, *shape], "position": position, "kind": kind}
            for name, shape, position, kind in zip(self.names, self.shapes, self.positions, kinds, strict=True)
        ]
        return {
            "read_as": self.read_as,
            "reads_anew": self.reads_anew,
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
            kinds=tuple(each.get("kind") for each in data["judged"]),
            read_as=data.get("read_as"),
            reads_anew=data.get("reads_anew", False),
        )


def shape_text(shape: tuple[int, ...]) -> str:
    """The shape of a sample with the samples before it as n: (n, 3)."""
    return f"(n{''.join(f', {size}' for size in shape)}{'' if shape else ','})"
