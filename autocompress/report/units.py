"""How numbers, names and the certainty of a latency are written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console
from rich.text import Text

from autocompress.metrics import METRICS
from autocompress.records.measurement import Measurement
from autocompress.records.noise import UNKNOWN_ERROR

_ASCII = str.maketrans({"µ": "u", "×": "x", "·": "-", "±": "+-", "█": "#", "–": "-"})

_MOST_DECIMALS = 9

ROUGH = "order of magnitude"
EXTRAPOLATED = f"{ROUGH}, outside what the model was fitted to"


def certainty(measurement: Measurement, *, short: bool = False) -> str:
    """How sure a modelled latency is: its relative error, or that it has none; nothing of a measured one. `short`: for
    a table, where the whole phrase stands nearby."""
    if measurement.latency_source != "modelled":
        return ""
    if measurement.extrapolated:
        return ROUGH if short else EXTRAPOLATED
    error = measurement.latency_error
    return "error unknown" if error is None else f"± {100 * error:.2g} %"


def latency_words(measurement: Measurement, *, short: bool = False) -> str:
    """`measured`, or `modelled` with how sure that is; that there is none."""
    if measurement.latency_source == "none":
        return "not known"
    if measurement.latency_source == "measured":
        return "measured, doubtful" if measurement.doubtful else "measured"
    if measurement.latency_source == "compiled":
        return "compiled" if measurement.of is None else f"compiled, of {measurement.of}"
    said = certainty(measurement, short=short)
    return f"modelled {said}" if said.startswith("±") else f"modelled, {said}"


def compiled_words(measurement: Measurement) -> str:
    """What a compiled figure is: whose estimate, for what, and what is not in it; nothing for others."""
    made = measurement.compilation
    if made is None:
        return ""
    left = Counter(made.on_cpu)
    outside = ", ".join(f"{count} {name}" for name, count in sorted(left.items()))
    return (
        f"the estimate of {measurement.runtime} {measurement.runtime_version} for {made.accelerator}, "
        f"{made.system_config}, {made.memory_mode}, {made.clock_mhz:g} MHz: {made.npu_ops} operators on the NPU"
        + (f"; on the CPU, whose time is not in it: {outside}" if outside else "")
    )


def all_alike(measurements: Sequence[Measurement]) -> bool:
    """Whether a column of these latencies says nothing: all are outside what the model was fitted to, and no further
    apart than what such values must be to be told apart; or there are none."""
    values = [each.latency_ms for each in measurements if each.latency_ms is not None]
    if not values:
        return True
    extrapolated = all(measurement.extrapolated for measurement in measurements)
    return len(values) > 1 and extrapolated and max(values) <= (1 + UNKNOWN_ERROR) * min(values)


def alike_line(measurements: Sequence[Measurement]) -> list[str]:
    """What is said instead of such a column."""
    if not all_alike(measurements):
        return []
    if measurements[0].latency_ms is None:
        there = "; --host DEST measures it there" if measurements[0].flash_bytes is None else ""
        return [f"latency: not known for this device{there}"]
    low, high = (digits(pick(measurement.known_latency_ms for measurement in measurements)) for pick in (min, max))
    return [f"latency: {low} to {high} ms for all, modelled, {EXTRAPOLATED}: it tells none of them apart"]


def sizes_shown(measurement: Measurement) -> tuple[str, str]:
    """The two sizes that tell most: what lies on the device where that is known, and what is sent."""
    return ("download", "file") if measurement.flash_bytes is None else ("flash", "download")


def interval(ends: tuple[float, float], scale: float, sign: str = "") -> str:
    """The ends of an interval of a metric of this scale; `sign` "+" for differences."""
    return f"[{score(ends[0], scale, sign)}, {score(ends[1], scale, sign)}]"


def milliseconds(measurement: Measurement) -> str:
    """A latency, `-` where there is none."""
    return "-" if measurement.latency_ms is None else f"{digits(measurement.latency_ms)} ms"


def memory_estimate(measurement: Measurement) -> str:
    """The memory behind sizes in a line, where it was estimated."""
    memory = measurement.peak_memory_bytes
    return f" · {kilobytes(memory)} memory, estimated" if measurement.memory_estimated and memory else ""


def duration(seconds: float) -> str:
    """Whole seconds as H:MM:SS."""
    return str(timedelta(seconds=round(seconds)))


def digits(value: float) -> str:
    """Three significant digits without an exponent."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"


def score(value: float, scale: float = 1.0, sign: str = "") -> str:
    """A value of a metric, to a ten-thousandth of its `scale` (a record's `metric_scale`); `sign` "+": of a
    difference. So what an error of 0.0001 is made of is seen, whatever the unit."""
    decimals = 4 - math.floor(math.log10(scale))
    if decimals > _MOST_DECIMALS:
        return f"{value:{sign}.4g}"
    return f"{value:{sign},.{max(decimals, 0)}f}"


def score_alone(value: float, metric: str) -> str:
    """The same of a value that stands without a record: four decimals in 0..1, else four digits."""
    bounded = metric in METRICS and math.isfinite(METRICS[metric].bounds[1])
    return score(value) if bounded else score(value, 10 * abs(value) or 1.0)


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
