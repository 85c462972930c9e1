"""Measured latencies by kernel pattern: what runs the same kernels is measured once, more often when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache

from autocompress.latency.source import Latency
from autocompress.network.graph.kernel_pattern import kernel_pattern
from autocompress.records.measurement import Measurement


def _nothing() -> Iterable[Measurement]:
    return ()


def _nobody(_: Measurement) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class OtherWorkers:
    """The other workers of a study: `lock` is held while one measures, so that no pattern is measured twice; `measured`
    by all of them until now; `tell` them of a measurement."""

    lock: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)
    measured: Callable[[], Iterable[Measurement]] = _nothing
    tell: Callable[[Measurement], None] = _nobody


class PatternLatency:
    """A `Latency` that measures each kernel pattern once for a number of processes, and again for more when these
    are asked for. A doubtful measurement is returned, not kept."""

    def __init__(self, measure: Latency, others: OtherWorkers | None = None) -> None:
        self._measure, self._others = measure, others or OtherWorkers()
        self._known: dict[str, Measurement] = {}
        self._pattern = lru_cache(4)(kernel_pattern)  # a candidate is asked for before and when it is measured

    def __call__(self, file: bytes, processes: int) -> Measurement:
        pattern = self._pattern(file)
        found = self._of(pattern, processes)
        if found is not None:
            return found
        with self._others.lock():
            for measurement in self._others.measured():
                self.keep(measurement)
            found = self._of(pattern, processes)
            if found is None:
                found = replace(self._measure(file, processes), kernel_pattern=pattern)
                self.keep(found)
                if not found.doubtful:
                    self._others.tell(found)
        return found

    def known(self, file: bytes, processes: int) -> Measurement | None:
        """What was measured before of the file's pattern; None where that is nothing, or less than asked for."""
        return self._of(self._pattern(file), processes)

    def _of(self, pattern: str, processes: int) -> Measurement | None:
        found = self._known.get(pattern)
        return None if found is None or len(found.samples_ms) < processes else found

    def keep(self, measurement: Measurement) -> None:
        """Remember a measurement, also one of an earlier run; of one pattern the one with the most processes."""
        pattern = measurement.kernel_pattern
        if pattern is None or measurement.doubtful:
            return
        before = self._known.get(pattern)
        if before is None or len(before.samples_ms) < len(measurement.samples_ms):
            self._known[pattern] = measurement
