"""Measured latencies by kernel pattern: what runs the same kernels is measured once, more often when asked for."""

from __future__ import annotations

from dataclasses import replace

from autocompress.network.pattern import kernel_pattern
from autocompress.records import Measurement
from autocompress.search.objective import Latency


class PatternLatency:
    """A `Latency` that measures each kernel pattern once for a number of processes, and again for more when these
    are asked for. A doubtful measurement is returned, not kept."""

    def __init__(self, measure: Latency) -> None:
        self._measure = measure
        self._known: dict[str, Measurement] = {}

    def __call__(self, file: bytes, processes: int) -> Measurement:
        pattern = kernel_pattern(file)
        found = self._known.get(pattern)
        if found is None or len(found.samples_ms) < processes:
            found = replace(self._measure(file, processes), kernel_pattern=pattern)
            self.keep(found)
        return found

    def keep(self, measurement: Measurement) -> None:
        """Remember a measurement, also one of an earlier run; of one pattern the one with the most processes."""
        pattern = measurement.kernel_pattern
        if pattern is None or measurement.doubtful:
            return
        before = self._known.get(pattern)
        if before is None or len(before.samples_ms) < len(measurement.samples_ms):
            self._known[pattern] = measurement
