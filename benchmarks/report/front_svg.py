"""A study's front as a picture: download against metric, with the float network and plain int8 marked.

`docs/front.svg` is made so:
    autocompress search --device rpi4 --task fashion-mnist --trials 40 --study front
    python -m benchmarks.report.front_svg front --out docs/front.svg
Values are those on validation data. A front has a third objective, latency: points that are as fast as plain int8 are
filled, slower ones are rings. Candidates that lose more than LOSS_SHOWN lie outside of the picture."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from autocompress.records.front import Front, complete, evaluated, plain_int8
from autocompress.records.study import Evaluation, StudyRecord
from autocompress.search.storage.study_records import load_study, read_record

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 36, 66, 56  # margins of the plot
LOSS_SHOWN = 0.05  # of the metric, below the float network's value
MARGIN = 1.3  # beside the smallest and the largest download, as a factor
SAME_LATENCY = 1.02  # relative: what counts as as fast as plain int8
FAST, SLOWER = "on the front, as fast as plain int8", "on the front, slower"
RADIUS = {"front": 5.0, "front fast": 5.0, "other": 3.5}
TICKS_KB = tuple(step * 10**power for power in range(6) for step in (1, 2, 5))
STYLE = """
.back { fill: #ffffff } text { fill: #1b1f24; font: 13px system-ui, "DejaVu Sans", sans-serif }
.grid { stroke: #dde2e7 } .soft { fill: #4a525c } .title { font-size: 15px; font-weight: 600 }
.other { fill: #9aa4af; fill-opacity: .55 } .front { stroke: #b3261e; stroke-width: 2; fill: none }
.fast { fill: #b3261e } .reference { fill: #0b5cad } .knee { stroke: #1b1f24; fill: none }
@media (prefers-color-scheme: dark) {
.back { fill: #14171a } text { fill: #e8ebee } .grid { stroke: #333b43 } .soft { fill: #b4bcc6 }
.front { stroke: #ff8a80 } .fast { fill: #ff8a80 } .reference { fill: #7ab8ff } .knee { stroke: #e8ebee } }
"""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What is shown: downloads in KB (1,000 bytes), logarithmic, and values of the metric, linear."""

    least_kb: float
    most_kb: float
    least: float
    most: float

    def place(self, evaluation: Evaluation) -> tuple[float, float] | None:
        """Where a candidate stands in the picture; None outside of it."""
        if not self.least <= evaluation.accuracy <= self.most:
            return None
        return self.x(evaluation.download_bytes / 1000), self.y(evaluation.accuracy)

    def x(self, kb: float) -> float:
        share = math.log(kb / self.least_kb) / math.log(self.most_kb / self.least_kb)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.least) / (self.most - self.least) * (HEIGHT - TOP - BOTTOM)


def axes_of(record: StudyRecord) -> Axes:
    """Room for the front, the float network and what loses at most LOSS_SHOWN. Raises ValueError for a metric of which
    less is better."""
    if not record.higher_is_better:
        raise ValueError(f"{record.metric_name}: the picture is made for metrics of which more is better")
    lowest = record.baseline.accuracy - LOSS_SHOWN
    shown = [evaluation for _, evaluation in complete(record) if evaluation.accuracy >= lowest]
    sizes = [evaluation.download_bytes / 1000 for evaluation in (record.baseline, *shown)]
    values = [evaluation.accuracy for evaluation in (record.baseline, *shown)]
    return Axes(
        least_kb=min(sizes) / MARGIN,
        most_kb=max(sizes) * MARGIN,
        least=min(values) - LOSS_SHOWN / 10,
        most=max(values) + LOSS_SHOWN / 10,
    )


def picture(record: StudyRecord) -> str:
    """The SVG of a study."""
    axes = axes_of(record)
    parts = [*_frame(record, axes), *_candidates(record, axes), *_references(record, axes)]
    title = escape(f"{record.task} for {record.device}: {record.metric_name} against download size")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n<title>{title}</title>\n'
        f'<style>{STYLE}</style>\n<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="8"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _frame(record: StudyRecord, axes: Axes) -> Iterator[str]:
    front, all_of_them = len(Front(record).trials), len(complete(record))
    said = f"{record.task} for {record.device}: {front} of {all_of_them} evaluated candidates are on the front"
    yield _text(LEFT, 26, said, "title")
    yield from _legend(record)
    for kb in (tick for tick in TICKS_KB if axes.least_kb <= tick <= axes.most_kb):
        yield f'<path class="grid" d="M{axes.x(kb):.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        yield _text(axes.x(kb), HEIGHT - BOTTOM + 18, str(kb), "soft", "middle")
    for hundredth in range(math.ceil(axes.least * 100), math.floor(axes.most * 100) + 1):
        yield f'<path class="grid" d="M{LEFT} {axes.y(hundredth / 100):.1f}H{WIDTH - RIGHT}"/>'
        yield _text(LEFT - 8, axes.y(hundredth / 100) + 4, f"{hundredth / 100:.2f}", "soft", "end")
    yield _text(LEFT, HEIGHT - 14, "download in KB (gzip, logarithmic)", "soft")
    label = _text(0, 0, f"{record.metric_name} on validation data", "soft", "middle")
    yield f'<g transform="translate(20 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">{label}</g>'


def _legend(record: StudyRecord) -> Iterator[str]:
    fast_ms = _fast_ms(record)
    kinds = {_kind(trial.evaluation, fast_ms) for trial in Front(record).trials if trial.evaluation is not None}
    told = [("other", "other candidates")]
    told += [(kind, name) for kind, name in (("front", SLOWER), ("front fast", FAST)) if kind in kinds]
    x = float(LEFT)
    for kind, name in reversed(told):
        yield _circle((x + 6, 46), kind, RADIUS[kind])
        yield _text(x + 18, 50, name, "soft")
        x += 40 + 7 * len(name)
    said = f"latency {record.latency_source}" + (", extrapolated" if record.baseline.measurement.extrapolated else "")
    yield _text(WIDTH - RIGHT, HEIGHT - 14, said, "soft", "end")


def _kind(evaluation: Evaluation, fast_ms: float) -> str:
    """How a point of the front is drawn."""
    ms = evaluation.measurement.latency_ms
    return "front fast" if ms is not None and ms <= fast_ms else "front"


def _candidates(record: StudyRecord, axes: Axes) -> Iterator[str]:
    front = {trial.number for trial in Front(record).trials}
    fast_ms = _fast_ms(record)
    for on_front in (False, True):  # the front is drawn over the others
        for trial, evaluation in complete(record):
            place = axes.place(evaluation)
            if place is None or (trial.number in front) is not on_front:
                continue
            kind = _kind(evaluation, fast_ms) if on_front else "other"
            yield _circle(place, kind, RADIUS[kind])


def _fast_ms(record: StudyRecord) -> float:
    """Up to which latency a candidate counts as fast; none does where plain int8 was not tried."""
    int8 = plain_int8(record)
    return 0.0 if int8 is None else SAME_LATENCY * (evaluated(int8).measurement.latency_ms or 0.0)


def _references(record: StudyRecord, axes: Axes) -> Iterator[str]:
    """The float network, plain int8 and the knee, with what they are."""
    int8 = plain_int8(record)
    named = [("float", record.baseline), ("plain int8", None if int8 is None else int8.evaluation)]
    for name, evaluation in named:
        if evaluation is not None and (place := axes.place(evaluation)) is not None:
            x, y = place
            yield f'<path class="reference" d="M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z"/>'
            yield from _name(evaluation, name, (x, y + 26))
    knee = Front(record).pick("knee").evaluation if Front(record).trials else None
    if knee is not None and (place := axes.place(knee)) is not None:
        yield _circle(place, "knee", 9.5)
        yield from _name(knee, "knee", (place[0] + 56, place[1] + 22))


def _name(evaluation: Evaluation, name: str, place: tuple[float, float]) -> Iterator[str]:
    ms = evaluation.measurement.latency_ms
    told = [f"{evaluation.download_bytes / 1000:.0f} KB"]
    told += [] if ms is None else [f"{ms:.2f} ms"]
    for row, (said, kind) in enumerate(((name, ""), *((line, "soft") for line in told))):
        yield _text(place[0], place[1] + 16 * row, said, kind, "middle")


def _circle(place: tuple[float, float], kind: str, radius: float) -> str:
    return f'<circle class="{kind}" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius}"/>'


def _text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a study's front as an SVG.")
    parser.add_argument("study")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--storage", help="as of the search")
    parser.add_argument("--out", type=Path, default=Path("front.svg"))
    arguments = parser.parse_args()
    record = read_record(load_study(arguments.runs, arguments.study, arguments.storage))
    arguments.out.write_text(picture(record), encoding="utf-8")
    print(f"{arguments.out}: {len(Front(record).trials)} points, hypervolume {Front(record).hypervolume}")


if __name__ == "__main__":
    main()
