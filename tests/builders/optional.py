"""Values that may be missing, and are not where a test looks."""

from __future__ import annotations

from typing import TypeVar

Value = TypeVar("Value")


def present(value: Value | None) -> Value:
    """The value itself; the test fails where it is missing."""
    assert value is not None
    return value
