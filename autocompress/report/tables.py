"""A table of text, as a terminal and Markdown show it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text with a title. `right`: the names of the columns whose numbers end at the same place."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()
