"""Better, same, worse or unknown: by effect and evidence, over all comparisons of a night at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from autocompress.specs import VerdictRules
from autocompress.sweep import evidence
from autocompress.sweep.change import steps
from autocompress.sweep.compare import drift, threshold
from autocompress.sweep.night import CellNight, Check, Night

TIMED = ("latency_ms", "hypervolume")  # what a canary that drifts makes doubtful
MOST_NIGHTS = 60


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one comparison came to. `verdict`: better | same | worse | unknown. `p`: adjusted for all comparisons of the
    night (Holm); `note`: why unknown; `since`: the first night of those in a row that were worse."""

    cell: str
    check: Check
    verdict: str
    p: float | None
    note: str | None
    since: int | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change of level over nights: at `night` these figures (`series`: cell and figure) went by `change` (relative,
    the median) and stayed until `until`, None: until now."""

    night: int
    until: int | None
    series: tuple[str, ...]
    change: float


def verdicts(night: Night, rules: VerdictRules) -> tuple[Verdict, ...]:
    """The verdicts of a night's comparisons, in the order of its cells.

    What is certain needs no correction and takes no part in it: what cannot be rejected by chance does not count among
    the comparisons (Tarone 1990, Biometrics 46)."""
    found = [(cell, check) for cell in night.cells for check in (*cell.checks, *_missing(night, cell))]
    tested = [check for _, check in found if check.p is not None and not check.certain]
    adjusted = dict(zip(map(id, tested), evidence.holm([check.p or 0.0 for check in tested]), strict=True))
    return tuple(_verdict(cell, check, adjusted.get(id(check), check.p), rules) for cell, check in found)


def _missing(night: Night, cell: CellNight) -> tuple[Check, ...]:
    """A cell that did not come to its end as a comparison of which nothing is known."""
    if cell.state == "done" or night.accepted is None:
        return ()
    why = f"{cell.state}: {cell.reason}"
    return (Check(file="front", metric="cell", before=None, after=None, note=why),)


def _verdict(cell: CellNight, check: Check, p: float | None, rules: VerdictRules) -> Verdict:
    verdict, note = judged(check, p, rules)
    moved = drift(cell.canary_ms)
    if verdict == "worse" and check.metric in TIMED and moved > rules.drift:
        verdict, note = "unknown", f"the canary drifted by {100 * moved:.0f} % during the cell"
    return Verdict(
        cell=cell.cell, check=check, verdict=verdict, p=None if check.p is None else p, note=note or check.note
    )


def judged(check: Check, p: float | None, rules: VerdictRules) -> tuple[str, str | None]:
    """The verdict on one comparison with the adjusted `p`, and why it is unknown."""
    if check.effect is None or p is None:
        return "unknown", None
    limit = threshold(check.metric, rules)
    if p <= rules.alpha and abs(check.effect) >= limit:
        if check.confirmed is False:
            return "unknown", "not seen again at the end of the night"
        return ("worse" if check.effect > 0 else "better"), None
    if check.interval is not None and -limit < check.interval[0] and check.interval[1] < limit:
        return "same", None
    if p <= rules.alpha:
        return "same", None  # surely different, by less than counts
    return "unknown", "not enough evidence"


def exit_code(night: Night, found: Sequence[Verdict]) -> int:
    """1: something is worse or a cell failed; 3: a device was away and nothing could be judged (without an accepted
    night: no cell is done); else 0."""
    states = {cell.state for cell in night.cells}
    if any(each.verdict == "worse" for each in found) or "failed" in states:
        return 1
    judged = "done" in states if night.accepted is None else any(each.verdict != "unknown" for each in found)
    return 3 if "away" in states and not judged else 0


def with_history(found: Sequence[Verdict], before: Iterable[Night], rules: VerdictRules) -> tuple[Verdict, ...]:
    """The verdicts with `since`, from earlier nights (latest first) that were compared with the same accepted one."""
    since: dict[tuple[str, str, str], int] = {}
    lasting = {_key(each) for each in found if each.verdict == "worse"}
    for night in before:
        lasting &= {_key(each) for each in verdicts(night, rules) if each.verdict == "worse"}
        since |= dict.fromkeys(lasting, night.number)
        if not lasting:
            break
    return tuple(
        Verdict(**{**vars(each), "since": since.get(_key(each)) if each.verdict == "worse" else None}) for each in found
    )


def _key(each: Verdict) -> tuple[str, str, str]:
    return each.cell, each.check.file, each.check.metric


def events(nights: Sequence[Night], rules: VerdictRules) -> tuple[Event, ...]:
    """The steps of all figures over the last nights (oldest first): those of one night are one event."""
    found: dict[tuple[int, int | None], list[tuple[str, float]]] = {}
    for name, numbers, values in _series(nights[-MOST_NIGHTS:]):
        limit = math.log1p(max(rules.drift, rules.latency))
        changes = steps(np.log(values), alpha=rules.alpha, least=limit)
        for place, change in enumerate(changes):
            until = numbers[changes[place + 1].index] if place + 1 < len(changes) else None
            key = (numbers[change.index], until)
            found.setdefault(key, []).append((name, math.expm1(change.after - change.before)))
    return tuple(
        Event(
            night=night,
            until=until,
            series=tuple(name for name, _ in rows),
            change=float(np.median([change for _, change in rows])),
        )
        for (night, until), rows in sorted(found.items(), key=lambda item: item[0][0])
    )


def _series(nights: Sequence[Night]) -> Iterable[tuple[str, list[int], list[float]]]:
    """Figures over nights: the canary of each cell, and what each accepted file took."""
    rows: dict[str, tuple[list[int], list[float]]] = {}
    for night in nights:
        for cell in night.cells:
            named = (
                []
                if cell.canary_ms is None
                else [(f"{cell.cell}: canary", float(np.median([*cell.canary_ms[0], *cell.canary_ms[1]])))]
            )
            named += [
                (f"{cell.cell}: {check.file} {check.metric}", check.after)
                for check in cell.checks
                if check.metric == "latency_ms" and check.after is not None and check.pairs
            ]
            for name, value in named:
                numbers, values = rows.setdefault(name, ([], []))
                numbers.append(night.number)
                values.append(value)
    return ((name, numbers, values) for name, (numbers, values) in rows.items())
