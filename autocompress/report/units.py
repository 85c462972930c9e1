"""How numbers and names are written on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

_ASCII = str.maketrans({"µ": "u", "×": "x", "·": "-", "±": "+-", "█": "#", "–": "-"})


def digits(value: float) -> str:
    """Three significant digits without an exponent."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"


def kilobytes(size_bytes: float) -> str:
    """Bytes as KB of 1,000."""
    return f"{digits(size_bytes / 1000)} KB"


def text(console: Console, said: str, style: str = "") -> Text:
    """Text as it is, whatever a user named things: no markup, no control characters, nothing the console's
    encoding lacks."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in said)
    try:
        shown.encode(console.encoding)
    except UnicodeEncodeError:
        shown = shown.translate(_ASCII).encode(console.encoding, "backslashreplace").decode(console.encoding)
    return Text(shown, style=style)
