"""What a study says of layers, groups of channels and techniques, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.records.kernels import BUILT_IN, DELEGATED
from autocompress.records.study import Importance, StudyRecord, TrialRecord
from autocompress.report.units import EXTRAPOLATED, ROUGH, score

_TECHNIQUES = ("sparsity", "bits", "clusters")
_WORTH_NAMING = 0.05  # of the largest saving: what saves less is no bargain to speak of


def importance_lines(record: StudyRecord) -> list[str]:
    """Two tables, largest savings first: what each technique saves and costs in each layer, and what widths of groups
    of channels do; empty where nothing is known (only the guided sampler has layer tables). Behind them the layers
    whose channels all stay."""
    rows = record.importance
    layers = [row for row in rows if row.technique in _TECHNIQUES]
    groups = [row for row in rows if row.technique == "channels"]
    whole = whole_channel_lines(record)
    return [
        *(_layer_table(record, layers) if layers else ()),
        *_group_table(record, groups),
        *(["Layers that keep all their channels:", *whole] if whole else ()),
    ]


def whole_channel_lines(record: StudyRecord, most: int | None = None) -> list[str]:
    """Why layers keep all their channels although the space offers fewer, a line a reason; at most `most` layers are
    named in each. Empty where the space offers none."""
    by_reason: dict[str, list[str]] = {}
    for layer, reason in record.whole_channels.items():
        by_reason.setdefault(reason, []).append(layer)
    return [f"{', '.join(layers[:most])}{_and_more(layers, most)}: {reason}" for reason, layers in by_reason.items()]


def rough_lines(record: StudyRecord) -> list[str]:
    """What the short words of a table of latencies stand for, where they stand there."""
    found = [record.baseline, *(trial.evaluation for trial in record.trials if trial.evaluation is not None)]
    rough = any(evaluation.measurement.extrapolated for evaluation in found)
    return [f"{ROUGH}: modelled latencies {EXTRAPOLATED.removeprefix(ROUGH + ', ')}"] if rough else []


def kernel_lines(record: StudyRecord, knee: TrialRecord) -> list[str]:
    """Where the layers of the knee's file run, in a line; nothing where that is not known."""
    where = None if knee.evaluation is None else record.runs_where(knee.evaluation.configuration)
    if not where:
        return []
    outside = [layer for layer, place in where.items() if place == BUILT_IN]
    taken = f"{len(where) - len(outside)} of {len(where)}"
    said = f"kernels of trial {knee.number} (knee): {DELEGATED} runs {taken} layers"
    return [f"{said}; {BUILT_IN}: {', '.join(outside)}" if outside else said]


def _and_more(names: Sequence[str], most: int | None) -> str:
    return f" and {len(names) - most} more" if most is not None and len(names) > most else ""


def advice_lines(record: StudyRecord) -> list[str]:
    """What to do next: the step that costs least for its bytes, the one that costs most, and the group of channels
    that gives most latency for the metric."""
    return [*_by_size(record), *_by_latency(record)]


def _layer_table(record: StudyRecord, rows: Sequence[Importance]) -> list[str]:
    layers = sorted({row.layer for row in rows}, key=lambda name: -sum(_saved(rows, name, t) for t in _TECHNIQUES))
    scale = record.metric_scale
    cells = [[layer, *(_cell(rows, layer, technique, scale) for technique in _TECHNIQUES)] for layer in layers]
    title = (
        f"What each technique saves (KB of the download) and costs ({record.metric_name}) at the knee, predicted "
        "against the same layer without it:"
    )
    return [title, *_aligned([["layer", "zeros", "bits", "clusters"], *cells])]


def _group_table(record: StudyRecord, rows: Sequence[Importance]) -> list[str]:
    if not rows:
        return []
    names = sorted({row.layer for row in rows}, key=lambda name: -_saved(rows, name, "channels"))
    title = "What fewer channels save and cost there, predicted against the whole group (next: one step further):"
    heads = ["channels", "kept", "download", "latency", record.metric_name, "sensitivity: tables, trials", "trials"]
    cells = [_group_cells(record, row) for name in names for row in rows if row.layer == name]
    return [title, *_aligned([heads, *cells])]


def _group_cells(record: StudyRecord, row: Importance) -> list[str]:
    kept = f"{row.value:.0f} of {row.of}"
    sensitivity = "-" if row.sensitivity is None else f"{row.table_sensitivity:.2g}, {row.sensitivity:.2g}"
    return [
        row.layer,
        kept if row.used else f"next: {kept}",
        f"{row.saves_bytes / 1000:+.2f} KB",
        _latency(record, row),
        score(-row.costs, record.metric_scale, "+"),
        sensitivity,
        "-" if row.trials is None else str(row.trials),
    ]


def _latency(record: StudyRecord, row: Importance) -> str:
    if row.saves_latency_ms is None or record.latency_source == "none":
        return "-"
    if record.baseline.measurement.known_latency_ms >= 1:
        return f"{row.saves_latency_ms:+.3f} ms"
    return f"{1000 * row.saves_latency_ms:+.1f} µs"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _row(rows: Sequence[Importance], layer: str, technique: str) -> Importance | None:
    return next((row for row in rows if row.used and (row.layer, row.technique) == (layer, technique)), None)


def _saved(rows: Sequence[Importance], layer: str, technique: str) -> float:
    row = _row(rows, layer, technique)
    return 0.0 if row is None else row.saves_bytes


def _cell(rows: Sequence[Importance], layer: str, technique: str, scale: float) -> str:
    row = _row(rows, layer, technique)
    if row is None:
        return "-"
    value = f"{100 * row.value:.0f} %" if technique == "sparsity" else f"{row.value:.0f}"
    return f"{value}: {row.saves_bytes / 1000:+.2f} KB, {score(-row.costs, scale, '+')}"


def _by_size(record: StudyRecord) -> list[str]:
    """Where a step back gives most of the metric for a byte, and which step costs least."""
    used = [row for row in record.importance if row.used]
    least = _WORTH_NAMING * max((row.saves_bytes for row in used), default=0.0)
    saving = [row for row in used if row.saves_bytes > 0 and row.saves_bytes >= least]
    if not saving:
        return []
    dearest = max(saving, key=lambda row: row.costs / row.saves_bytes)
    cheapest = min(saving, key=lambda row: row.costs / row.saves_bytes)
    price = 1000 * dearest.costs / dearest.saves_bytes
    lines = [f"cheapest: {cheapest.technique} of {cheapest.layer}; go further there first"]
    if dearest != cheapest:
        costs = f"{score(price, record.metric_scale)} {record.metric_name} a KB"
        lines.append(f"dearest: {dearest.technique} of {dearest.layer}, {costs}; undo it first")
    return lines


def _by_latency(record: StudyRecord) -> list[str]:
    """The next narrower width that costs least for its latency."""
    faster = [
        (row.costs / row.saves_latency_ms, row)
        for row in record.importance
        if not row.used and row.saves_latency_ms is not None and row.saves_latency_ms > 0
    ]
    if not faster:
        return []
    _, best = min(faster, key=lambda pair: pair[0])
    saved = _latency(record, best).lstrip("+")
    return [
        f"faster: {best.value:.0f} of {best.of} channels of {best.layer}, {saved} less for "
        f"{score(best.costs, record.metric_scale)} "
        f"{record.metric_name}; try that next"
    ]
