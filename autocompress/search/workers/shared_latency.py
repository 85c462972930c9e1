"""The latencies of a search: each kernel pattern measured once by all its workers together, while nobody builds where
it is measured; or modelled, which costs nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from optuna.study import Study

from autocompress.evaluate.evaluator import SEARCH_PROCESSES, Known, Latency
from autocompress.measure.latency_cache import OtherWorkers, PatternLatency
from autocompress.records.measurement import Measurement
from autocompress.records.study import Evaluation
from autocompress.search.request import Request
from autocompress.search.storage import study_records
from autocompress.search.workers.locks import ProcessorLock, TrialLock


class SharedLatency:
    """`latency`: the search's `Latency`. `known`: a file's, where telling it costs nothing; `expected`: what a model
    says of it; `screens`: whether a measured search lets that decide what is measured at all."""

    def __init__(
        self,
        request: Request,
        latency: Latency,
        expected: Known | None,
        floor: ProcessorLock,
        folder: Path,
        study: Callable[[], Study],
    ) -> None:
        self._host, self._measure = request.profile.host, latency
        self._processors, self._folder, self._study = floor, folder, study
        measures = request.latency_source == "measured"
        self._patterns = PatternLatency(self._undisturbed, self._others()) if measures else None
        self.latency = self._patterns or latency
        self.screens = measures and expected is not None
        self.expected = expected if measures else self.known

    def known(self, file: bytes) -> Measurement | None:
        """A latency that costs nothing: modelled, or measured before for the same kernels."""
        if self._patterns is not None:
            return self._patterns.known(file, SEARCH_PROCESSES)
        return self._measure(file, SEARCH_PROCESSES)

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
            return self._measure(file, processes)

    def _others(self) -> OtherWorkers:
        @contextlib.contextmanager
        def turn() -> Iterator[None]:
            with self._processors.idle(), TrialLock(self._folder / "measuring"):
                yield

        return OtherWorkers(
            turn=turn,
            measured=lambda: study_records.measurements_of(self._study(), ()),
            tell=lambda measurement: study_records.store_pattern(self._study(), measurement),
        )
