"""Progress of a search that a program or a notebook runs: a bar where a person looks on, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from autocompress.records.study import StudyRecord
from autocompress.report.terminal import SearchProgress


@contextmanager
def progress_of(
    record: StudyRecord, *, trials: int | None, time_budget_s: float | None, shown: bool | None
) -> Iterator[Callable[[StudyRecord], None]]:
    """What is called with the study as it goes on. `shown` None: a bar in a terminal or a notebook alone."""
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter if shown is None else shown):
        yield lambda _: None
        return
    with SearchProgress(console, record, trials=trials, time_budget_s=time_budget_s) as progress:
        yield progress.update
