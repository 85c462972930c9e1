"""The latencies of a search: each kernel pattern measured once by all its workers together, while nobody builds where
it is measured; or modelled, which costs nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from optuna.study import Study

from autocompress.latency.cache import OtherWorkers, PatternLatency
from autocompress.latency.source import SEARCH_PROCESSES, Known, Latency
from autocompress.records.measurement import Measurement
from autocompress.records.study import Evaluation
from autocompress.search.specification import Specification
from autocompress.search.storage import study_records
from autocompress.search.workers.locks import FileLock, ProcessorLock


class SharedLatency:
    """A `CandidateLatency`; `screens`: whether the device's model decides what is measured at all."""

    def __init__(
        self,
        specification: Specification,
        latency: Latency,
        expected: Known | None,
        processors: ProcessorLock,
        folder: Path,
        study: Callable[[], Study],
    ) -> None:
        self._host, self._latency, self._expected = specification.profile.host, latency, expected
        self._processors, self._folder, self._study = processors, folder, study
        self._measures = specification.latency_source == "measured"
        self._patterns = PatternLatency(self._undisturbed, self._others()) if self._measures else None
        self.screens = self._measures and expected is not None

    def measure(self, file: bytes, processes: int) -> Measurement:
        """The latency, of a kernel pattern that was measured before the same again."""
        return self._latency(file, processes) if self._patterns is None else self._patterns(file, processes)

    def known(self, file: bytes) -> Measurement | None:
        """A latency that costs nothing: modelled, or measured before for the same kernels."""
        if self._patterns is not None:
            return self._patterns.known(file, SEARCH_PROCESSES)
        return self._latency(file, SEARCH_PROCESSES)

    def expected(self, file: bytes) -> Measurement | None:
        """What a model says of a file; None where there is none."""
        if not self._measures:
            return self.known(file)
        return None if self._expected is None else self._expected(file)

    def undisturbed(self) -> contextlib.AbstractContextManager[None]:
        """While a measurement runs: nobody builds where it runs."""
        here = self._host == "local" or (isinstance(self._host, Mapping) and "command" in self._host)
        return self._processors.alone() if here else self._processors.idle()

    def recall(self, evaluations: Iterable[Evaluation]) -> None:
        """Remember what the study has measured, by these evaluations and beside them."""
        if self._patterns is not None:
            for measurement in study_records.measurements_of(self._study(), evaluations):
                self._patterns.keep(measurement)

    def _undisturbed(self, file: bytes, processes: int) -> Measurement:
        with self.undisturbed():
            return self._latency(file, processes)

    def _others(self) -> OtherWorkers:
        @contextlib.contextmanager
        def lock() -> Iterator[None]:
            with self._processors.idle(), FileLock(self._folder / "measurement.lock"):
                yield

        return OtherWorkers(
            lock=lock,
            measured=lambda: study_records.measurements_of(self._study(), ()),
            tell=lambda measurement: study_records.store_pattern(self._study(), measurement),
        )
