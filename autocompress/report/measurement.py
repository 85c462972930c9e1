"""One measured file: the JSON document of `autocompress measure`, and what people see of it in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from autocompress.records.measurement import (
    RUNTIME_BYTES,
    DeviceAccuracy,
    Environment,
    MeasuredFile,
    Measurement,
    OpProfile,
)
from autocompress.report.units import compiled_words, digits, kilobytes, latency_words, score_alone, text

_BINS, _BAR = 8, 40
_ROOM = 0.5  # of the memory of a device: the system and the runtime want theirs
_CORE = (0.005, 0.995)  # what the histogram spreads over its bins; the rest is counted in the outer ones

_TOLD_OTHERWISE = ("samples_ms", "environment", "kernel_pattern")


def document(found: MeasuredFile) -> dict[str, Any]:
    """The JSON document."""
    measured, profile, accuracy = found.measurement, found.profile, found.accuracy
    return {
        "schema": 1,
        "model": found.model,
        "device": found.device,
        **{key: value for key, value in measured.to_dict().items() if key not in _TOLD_OTHERWISE},
        "baseline": found.baseline,
        "energy_mj": found.energy_mj,
        "file_bytes": found.file_bytes,
        "download_bytes": found.download_bytes,
        **_accuracy_fields(accuracy),
        "environment": None if measured.environment is None else asdict(measured.environment),
        "ops": _op_fields(profile),
        "ops_note": profile.reason,
        "ops_runs": profile.runs,
        "ops_inference_us": profile.inference_us,
        "notes": list(found.notes),
        "samples_ms": [list(run) for run in measured.samples_ms],
    }


def _op_fields(profile: OpProfile) -> list[dict[str, Any]] | None:
    if profile.ops is None:
        return None
    return [asdict(op) | {"share": _share(profile, op.mean_us)} for op in profile.ops]


def _accuracy_fields(found: DeviceAccuracy | None) -> dict[str, Any]:
    return {
        "metric": found and found.metric,
        "accuracy": found and found.value,
        "accuracy_ci": found and found.interval,
        "accuracy_samples": found and found.samples,
        "accuracy_output": found and found.output and found.output.to_dict(),
        "accuracy_kernels": found and found.kernels,
        "accuracy_here": found and found.value_here,
        "predictions_differ": found and found.predictions_differ,
        "largest_output_difference": found and found.largest_difference,
    }


def _share(profile: OpProfile, mean_us: float) -> float | None:
    """The share of the sum over all operators; None where the profiler's clock saw nothing at all."""
    return mean_us / profile.sum_us if profile.sum_us else None


def print_measurement(console: Console, found: MeasuredFile) -> None:
    """Latency with its distribution, memory, load time, accuracy, environment, operators."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for label, line in _lines(found):
        grid.add_row(text(console, label, "bold"), text(console, line))
    title = text(console, f"autocompress measure · {found.model} on {found.device}", "bold")
    console.print(Panel(grid, title=title, title_align="left", expand=False))
    for line in histogram(found.measurement):
        console.print(text(console, line))
    _print_ops(console, found.profile)
    for note in found.notes:
        console.print(text(console, f"note: {note}"))


def _lines(found: MeasuredFile) -> list[tuple[str, str]]:
    measured = found.measurement
    lines = [("latency", _latency_line(measured)), *_distribution(measured)]
    if measured.ratio_to_baseline is not None:
        ends = "" if measured.ratio_ci is None else f" [{measured.ratio_ci[0]:.3f}, {measured.ratio_ci[1]:.3f}]"
        how = "interleaved" if measured.latency_source == "measured" else latency_words(measured)
        lines.append(("ratio", f"{measured.ratio_to_baseline:.3f}{ends} of {found.baseline} ({how})"))
    if measured.doubtful:
        lines.append(("", "doubtful: the device was throttled or the baseline moved by more than 5 %; measure again"))
    if measured.load_ms is not None and measured.first_inference_ms is not None:
        first = f"{digits(measured.first_inference_ms)} ms first inference"
        lines.append(("start", f"{digits(measured.load_ms)} ms load · {first}"))
    memory = measured.peak_memory_bytes
    if measured.ram_bytes is None or measured.flash_bytes is None:
        lines.append(("memory", "not known" if memory is None else memory_words(memory, found)))
    else:
        lines.append(("on chip", f"{kilobytes(measured.flash_bytes)} flash · {kilobytes(measured.ram_bytes)} RAM"))
    lines.append(("size", f"{kilobytes(found.file_bytes)} file · {kilobytes(found.download_bytes)} download"))
    if found.energy_mj is not None:
        lines.append(("energy", f"{digits(found.energy_mj)} mJ an inference, estimated: latency × busy power"))
    lines += [] if found.accuracy is None else _accuracy_lines(found.accuracy)
    return lines + _environment_lines(measured)


def memory_words(memory_bytes: int, found: MeasuredFile) -> str:
    """What a file takes, how that is known, and whether the device has it."""
    measured = not found.measurement.memory_estimated
    how = (
        "peak, over an idle process"
        if measured
        else f"estimated from the file alone, and some {RUNTIME_BYTES / 1e6:.0f} MB of the runtime"
    )
    has = found.device_memory_bytes
    if has is None:
        return f"{kilobytes(memory_bytes)} {how}"
    share = (memory_bytes + (0 if measured else RUNTIME_BYTES)) / has
    fits = "does not fit" if share > 1 else "leaves little room" if share > _ROOM else "fits"
    return f"{kilobytes(memory_bytes)} {how} · {fits}: {found.device} has {has / 2**20:,.0f} MiB"


def _latency_line(measured: Measurement) -> str:
    if measured.latency_ms is None:
        there = "; --host DEST measures there" if measured.flash_bytes is None else ""
        return f"not known: the device has neither a latency model nor a host{there}"
    if measured.latency_source == "compiled":
        return f"{digits(measured.latency_ms)} ms compiled: {compiled_words(measured)}"
    if measured.latency_source == "modelled":
        return f"{digits(measured.latency_ms)} ms {latency_words(measured)}"
    ends = measured.latency_ci_ms
    interval = "" if ends is None else f" [{digits(ends[0])}, {digits(ends[1])}], 95 % interval"
    return (
        f"{digits(measured.latency_ms)} ms measured{interval} over {_count(len(measured.samples_ms), 'process', 'es')}"
    )


def _distribution(measured: Measurement) -> list[tuple[str, str]]:
    if measured.p90_ms is None or measured.iqr_ms is None:
        return []
    samples = sum(map(len, measured.samples_ms))
    spread = f"p90 {digits(measured.p90_ms)} ms · interquartile range {digits(measured.iqr_ms)} ms"
    return [("", f"{spread} · {_count(measured.outliers or 0, 'outlier')} of {samples:,} samples")]


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number:,} {what}{plural * (number != 1)}"


def _accuracy_lines(found: DeviceAccuracy) -> list[tuple[str, str]]:
    value, *edges = (score_alone(each, found.metric) for each in (found.value, *found.interval))
    ends = f"[{', '.join(edges)}]"
    where = f"{found.samples:,} test samples, kernels of {found.kernels}"
    lines = [("accuracy", f"{found.metric} {value} {ends} on {where}")]
    if found.output is not None and found.output.named is not None:
        lines.append(("", f"of output {found.output.words}"))
    if found.value_here is not None:
        differ = f"outputs differ by up to {found.largest_difference:.2g}"
        if found.predictions_differ is not None:
            differ = f"{_count(found.predictions_differ, 'prediction')} differ, {differ}"
        lines.append(("", f"{score_alone(found.value_here, found.metric)} under the kernels of this machine: {differ}"))
    return lines


def _environment_lines(measured: Measurement) -> list[tuple[str, str]]:
    version, bits = measured.runtime_version or "", measured.os_bits
    parts = [f"{measured.runtime} {version}".strip(), _count(measured.threads or 1, "thread")]
    lines = [("runtime", " · ".join(parts + ([f"{bits}-bit"] if bits else [])))]
    if measured.environment is not None:
        lines += _host_lines(measured.environment)
    return lines


def _host_lines(host: Environment) -> list[tuple[str, str]]:
    names = " · ".join(name for name in (host.board, host.cpu, host.machine) if name)
    features = f" · {' '.join(host.cpu_features)}" if host.cpu_features else ""
    states = [
        _pair("clock", host.clock_mhz, ".0f", " MHz"),
        f"governor {host.governor}" if host.governor else "",
        _pair("temperature", host.temperature_c, ".0f", " °C"),
        _pair("throttle bits", host.throttled, "#x", ""),
        _pair("load average", host.load_average, ".1f", ""),
    ]
    state = " · ".join(part for part in states if part)
    return [("host", f"{names}{features} · {host.cores} cores available · Python {host.python}"), ("", state)]


def _pair(name: str, pair: Sequence[Any] | None, form: str, unit: str) -> str:
    """A value before and after; once where it is the same."""
    if pair is None:
        return ""
    shown = ["?" if value is None else format(value, form) for value in pair]
    return f"{name} {' -> '.join(dict.fromkeys(shown))}{unit}"


def histogram(measured: Measurement) -> list[str]:
    """The samples in bins of equal width, a line each; the outer bins hold whatever lies beyond them."""
    samples = np.array([sample for run in measured.samples_ms for sample in run])
    if samples.size == 0 or samples.min() == samples.max():
        return []
    low, high = np.quantile(samples, _CORE)
    edges = np.linspace(low, high if high > low else samples.max(), _BINS + 1)
    counts = np.histogram(np.clip(samples, edges[0], edges[-1]), edges)[0]
    return [
        f"{low:9.4f} – {high:9.4f} ms  {'█' * round(_BAR * count / counts.max())} {count:,}"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _print_ops(console: Console, profile: OpProfile) -> None:
    if profile.ops is None:
        console.print(text(console, f"no per-op times: {profile.reason}"))
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for header in ("layer", "kernel", "µs", "share"):
        right = header in ("µs", "share")
        table.add_column(text(console, header), justify="right" if right else "left", overflow="fold")
    for op in profile.ops:
        share = _share(profile, op.mean_us)
        time = "< 1" if op.mean_us < 0.05 else f"{op.mean_us:.1f}"
        cells = (op.layer or "", op.kernel, time, "" if share is None else f"{100 * share:.1f} %")
        table.add_row(*(text(console, cell) for cell in cells))
    console.print(table)
    whole = (
        ""
        if profile.inference_us is None
        else f" of {digits(profile.inference_us)} µs an inference with the profiler on"
    )
    said = (
        f"{profile.runs} runs; the operators take {digits(profile.sum_us)} µs{whole}; each is rounded down to whole µs"
    )
    console.print(text(console, said))
    if profile.reason is not None:
        console.print(text(console, f"layers are not named: {profile.reason}"))
