"""A file of the accepted night against what it is tonight: one check a metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from autocompress.specs import VerdictRules
from autocompress.sweep import evidence
from autocompress.sweep.night import Canary, CellNight, Check, FileFigures, unpacked

_CANARIES = 3
_Z95 = 1.959963984540054
THRESHOLDS = {
    "latency_ms": "latency",
    "accuracy": "metric",
    "file_bytes": "size",
    "download_bytes": "size",
    "peak_memory_bytes": "memory",
    "hypervolume": "hypervolume",
    "build": "metric",
    "artifact": "metric",
}


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What pairs of fresh processes gave: log ratios of the file's latency to its reference's, and peak memory."""

    log_ratios: tuple[float, ...] = ()
    memory_bytes: tuple[int, ...] = ()

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(log_ratios=self.log_ratios + other.log_ratios, memory_bytes=self.memory_bytes + other.memory_bytes)


def threshold(metric: str, rules: VerdictRules) -> float:
    """The effect on `metric` from which on a difference counts."""
    return float(getattr(rules, THRESHOLDS[metric]))


def certain(file: str, metric: str, before: float, after: float) -> Check:
    """A check of figures that have no noise: sizes, modelled latencies."""
    effect = after / before - 1
    return Check(
        file=file,
        metric=metric,
        before=before,
        after=after,
        effect=effect,
        p=1.0 if effect == 0 else 0.0,
        certain=True,
        interval=(effect, effect),
    )


def broken(file: str, metric: str, why: str) -> Check:
    """What cannot be compared because it cannot be had any more: surely worse."""
    return Check(
        file=file, metric=metric, before=0.0, after=1.0, effect=1.0, p=0.0, certain=True, interval=(1.0, 1.0), note=why
    )


def metric_check(file: str, was: FileFigures, accuracy: float, scores: str | None, *, rises: bool) -> Check:
    """The metric on the same validation samples, paired: McNemar's test where each sample is right or wrong, else the
    mean of the differences. Where the metric is no mean over samples there is no evidence unless it is equal."""
    sign = -1.0 if rises else 1.0
    effect = sign * (accuracy - was.accuracy)
    check = Check(file=file, metric="accuracy", before=was.accuracy, after=accuracy, effect=effect)
    if effect == 0 and scores == was.scores:
        return replace(check, p=1.0, certain=True, interval=(0.0, 0.0))
    if scores is None or was.scores is None:
        return replace(check, note="the metric has no samples to pair")
    before, after = unpacked(was.scores), unpacked(scores)
    if before.shape != after.shape:
        return replace(check, note="validation data changed")
    difference = sign * (after - before)
    if np.isin([*before, *after], (0.0, 1.0)).all():
        p = evidence.mcnemar_p(int((difference > 0).sum()), int((difference < 0).sum()))
    else:
        p = evidence.mean_p(difference)
    half = _Z95 * float(difference.std(ddof=1)) / math.sqrt(difference.size) if difference.size > 1 else math.inf
    return replace(check, p=p, interval=(effect - half, effect + half))


class Race:
    """The comparison of one file's latency and memory, pair by pair, looked at after 5, 10, 20, ... pairs.

    `was` None: the pairs are with the accepted file itself, one after the other (signed ranks). Else they are with the
    float network, as those of `was` were on the accepted night (rank sums of the two nights)."""

    def __init__(self, was: Pairs | None, rules: VerdictRules, comparisons: int) -> None:
        self._was, self._rules = was, rules
        self._counts = evidence.looks(*rules.pairs)
        self._shares = evidence.spending(self._counts)
        self._level = rules.alpha / max(1, comparisons)
        self._ps: list[float] = []
        self.pairs = Pairs()
        self.shift: evidence.Shift | None = None

    def run(self, measure: Callable[[int], Pairs]) -> None:
        """Add pairs until the ratio's interval is clear of 1 or of the threshold; `measure` gives as many as asked."""
        for share, count in zip(self._shares, self._counts, strict=True):
            self.pairs += measure(count - len(self.pairs.log_ratios))
            self.shift = self._shift(level=0.05 * share)
            self._ps.append(self.shift.p)
            if self._is_clear(share):
                return

    def _shift(self, level: float) -> evidence.Shift:
        if self._was is None:
            return evidence.signed_rank(self.pairs.log_ratios, level)
        return evidence.rank_sum(self._was.log_ratios, self.pairs.log_ratios, level)

    def _is_clear(self, share: float) -> bool:
        assert self.shift is not None
        (low, high), limit = self.shift.interval, math.log1p(self._rules.latency)
        differs = self.shift.p <= self._level * share and abs(self.shift.estimate) >= limit
        return differs or (-limit < low and high < limit)

    @property
    def p(self) -> float:
        """Over all looks so far."""
        return evidence.sequential_p(self._ps, self._shares)

    def latency_check(self, file: str, before_ms: float) -> Check:
        """The check of the latency; `before_ms` on the accepted night, what it is now follows from the ratio."""
        assert self.shift is not None
        effect = math.expm1(self.shift.estimate)
        low, high = (math.expm1(end) if math.isfinite(end) else end for end in self.shift.interval)
        interval = (low, high) if math.isfinite(low) and math.isfinite(high) else None
        return Check(
            file=file,
            metric="latency_ms",
            before=before_ms,
            after=before_ms * (1 + effect),
            effect=effect,
            p=self.p,
            interval=interval,
            pairs=len(self.pairs.log_ratios),
        )

    def is_worse_or_better(self) -> bool:
        """Whether the difference would count if nothing else were compared: worth a second look."""
        assert self.shift is not None
        return self.p <= self._rules.alpha and abs(self.shift.estimate) >= math.log1p(self._rules.latency)

    def confirms(self, again: Pairs) -> bool:
        """Whether other pairs, of later in the night, show the same difference: in the same direction, at 5 %, and by
        half of the threshold or more."""
        assert self.shift is not None
        first, self.pairs = self.pairs, again
        second = self._shift(0.05)
        self.pairs = first
        same_way = second.estimate * self.shift.estimate > 0
        return same_way and second.p <= 0.05 and abs(second.estimate) >= math.log1p(self._rules.latency) / 2


def memory_check(file: str, was: Sequence[int], now: Sequence[int]) -> Check | None:
    """The peak memory of fresh processes of two nights, by rank sums; None where a host does not tell it."""
    if not was or not now:
        return None
    shift = evidence.rank_sum(np.log(np.maximum(was, 1)), np.log(np.maximum(now, 1)))
    before, after = float(np.median(was)), float(np.median(now))
    low, high = (math.expm1(end) if math.isfinite(end) else end for end in shift.interval)
    return Check(
        file=file,
        metric="peak_memory_bytes",
        before=before,
        after=after,
        effect=math.expm1(shift.estimate),
        p=shift.p,
        interval=(low, high) if math.isfinite(low + high) else None,
        pairs=len(now),
    )


def hypervolume_check(was: CellNight, now: CellNight) -> Check:
    """The hypervolumes of two fronts. Its noise is that of the latencies, by their intervals; the metric is on the same
    samples and the sizes are exact."""
    check = Check(file="front", metric="hypervolume", before=was.hypervolume, after=now.hypervolume)
    if was.hypervolume is None or now.hypervolume is None:
        return replace(check, note="no hypervolume: no front")
    if was.data_sha256 != now.data_sha256:
        return replace(check, note="validation data changed")
    if was.hypervolume == now.hypervolume:
        return replace(check, effect=0.0, p=1.0, certain=True, interval=(0.0, 0.0))
    if was.hypervolume <= 0:
        return replace(check, note="the accepted front has no hypervolume")
    effect = 1 - now.hypervolume / was.hypervolume
    sd = math.hypot(_volume_sd(was), _volume_sd(now)) / was.hypervolume
    p = 0.0 if sd == 0 else evidence.normal_p(effect / sd)
    return replace(check, effect=effect, p=p, certain=sd == 0, interval=(effect - _Z95 * sd, effect + _Z95 * sd))


def _volume_sd(night: CellNight) -> float:
    """The standard deviation of a front's hypervolume by the delta method: each latency is moved by that of its
    logarithm. Points of one latency are of one kernel pattern, measured once: they move together."""
    _, latency, low, high, _ = np.array(night.points, dtype=np.float64).reshape(-1, 5).T
    sd, moved = np.log(high / low) / (2 * _Z95), []
    for value in np.unique(latency[sd > 0]):
        slower = np.where(latency == value, latency * np.exp(sd), latency)
        moved.append((night.volume(slower) or 0.0) - (night.hypervolume or 0.0))
    return math.hypot(*moved)


def drift(canary_ms: Canary | None) -> float:
    """By how much the canary surely changed from its first to its last processes, of the smaller (rank sums at 5 %); 0
    where that is not sure or there is none."""
    if canary_ms is None:
        return 0.0
    shift = evidence.rank_sum(np.log(canary_ms[0]), np.log(canary_ms[1]))
    return math.expm1(abs(shift.estimate)) if shift.p <= 0.05 else 0.0


def steady(measure: Callable[[], tuple[float, ...]], limit: float) -> tuple[float, ...]:
    """The fastest row of processes of the canary: measured until the two fastest agree within half of the limit, three
    times at most. Something else on the machine slows it for some seconds; that is no drift of the night, and what a
    clock or a throttle does slows every row."""
    found: list[tuple[float, ...]] = []
    while len(found) < _CANARIES:
        found = sorted([*found, measure()], key=median)
        if len(found) > 1 and median(found[1]) / median(found[0]) - 1 <= limit / 2:
            break
    return found[0]
