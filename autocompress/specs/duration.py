"""Durations as people write them."""

from __future__ import annotations

import re

from autocompress.errors import AutocompressError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def seconds(text: str, what: str = "time budget") -> float:
    """Seconds of `90s`, `10m`, `1h30m` or a bare number of seconds; AutocompressError for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise AutocompressError(f"{what} '{text}' is no duration; write it as 90s, 10m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
