"""Searching from Python: a study opened, searched trial by trial, and continued by whoever comes next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType

from autocompress.api.results import StudyView, Trial
from autocompress.export.bundle import ExportOptions
from autocompress.records.front import complete
from autocompress.report.live_progress import progress_of
from autocompress.search.specification import Budget
from autocompress.search.study import Search
from autocompress.specs.duration import seconds


class Study(StudyView):
    """A study that this process searches; from `autocompress.open_study`. Close it, or use it as a context manager: it
    holds the study's lock and the connection to the device."""

    def __init__(self, search: Search, stack: ExitStack, options: ExportOptions) -> None:
        super().__init__(search.record(), search.resources.runs, options)
        self._search, self._stack, self._unfinished = search, stack, False

    def search(
        self,
        trials: int | None = None,
        *,
        time_budget: float | str | None = None,
        until_flat: bool = False,
        progress: bool | None = None,
    ) -> Iterator[Trial]:
        """Search, giving each complete trial as it comes. `trials`: that the study shall hold, earlier runs included
        (default 100 without a `time_budget`, in seconds or as "10m"); `until_flat`: until 20 trials brought less than
        .5 % of the hypervolume. Whoever leaves the loop ends the search; the next call goes on. `progress`: show a bar
        (None: in a terminal or a notebook).

        UnmetError after 20 failures in a row, DeviceError where the device goes away for too long."""
        budget_s = seconds(time_budget) if isinstance(time_budget, str) else time_budget
        budget = Budget(trials=trials, time_budget_s=budget_s, until_flat=until_flat).limited()
        told = {trial.number for trial in self.trials}
        self._unfinished = True
        count, budget_s = budget.trials, budget.time_budget_s
        with progress_of(self._record, trials=count, time_budget_s=budget_s, shown=progress) as show:
            for record in self._search.records(budget):
                self._record = record
                show(record)
                yield from self._news(told)
        self._unfinished, self._record = False, self._search.record()

    def _news(self, told: set[int]) -> Iterator[Trial]:
        for trial, _ in complete(self._record):
            if trial.number not in told:
                told.add(trial.number)
                yield self.of(trial)

    def close(self) -> None:
        """Add the careful figures of the front where a search was left before its end, and let go of study and
        device."""
        with self._stack:
            if self._unfinished:
                self._unfinished, self._record = False, self._search.finish()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if fault is not None:  # the study is whole; what is missing is added when it is searched again
            self._unfinished = False
        self.close()
