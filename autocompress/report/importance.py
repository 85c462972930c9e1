"""What a study says of layers and techniques, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.records import Importance, StudyRecord

_TECHNIQUES = ("sparsity", "bits", "clusters")


def importance_lines(record: StudyRecord) -> list[str]:
    """The table of what each technique saves and costs in each layer, largest savings first; empty where nothing is
    known (only the guided sampler has layer tables). One line of advice below: the best and the worst bargain."""
    rows = record.importance
    if not rows:
        return []
    layers = sorted({row.layer for row in rows}, key=lambda name: -sum(_saved(rows, name, t) for t in _TECHNIQUES))
    cells = [[layer, *(_cell(rows, layer, technique) for technique in _TECHNIQUES)] for layer in layers]
    table = [["layer", "zeros", "bits", "clusters"], *cells]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]
    title = (
        f"What each technique saves (KB of the download) and costs ({record.metric_name}) at the knee, predicted "
        "against the same layer without it:"
    )
    return [title, *lines, *_advice(rows, record.metric_name)]


def _row(rows: Sequence[Importance], layer: str, technique: str) -> Importance | None:
    return next((row for row in rows if (row.layer, row.technique) == (layer, technique)), None)


def _saved(rows: Sequence[Importance], layer: str, technique: str) -> float:
    row = _row(rows, layer, technique)
    return 0.0 if row is None else row.saves_bytes


def _cell(rows: Sequence[Importance], layer: str, technique: str) -> str:
    row = _row(rows, layer, technique)
    if row is None:
        return "-"
    value = f"{100 * row.value:.0f} %" if technique == "sparsity" else f"{row.value:.0f}"
    return f"{value}: {row.saves_bytes / 1000:+.2f} KB, {-row.costs:+.4f}"


def _advice(rows: Sequence[Importance], metric: str) -> list[str]:
    """Where a step back gives most of the metric for a byte, and which step costs least."""
    saving = [row for row in rows if row.saves_bytes > 0]
    if not saving:
        return []
    dearest = max(saving, key=lambda row: row.costs / row.saves_bytes)
    cheapest = min(saving, key=lambda row: row.costs / row.saves_bytes)
    price = 1000 * dearest.costs / dearest.saves_bytes
    lines = [f"cheapest: {cheapest.technique} of {cheapest.layer}; go further there first"]
    if dearest != cheapest:
        lines.append(f"dearest: {dearest.technique} of {dearest.layer}, {price:.4f} {metric} a KB; undo it first")
    return lines
