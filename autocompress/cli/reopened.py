"""A study that exists, opened as its search opened it: by the words that the search's command used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autocompress.cli.options import HOST_WAIT, Waits, seconds
from autocompress.errors import AutocompressError

if TYPE_CHECKING:
    from rich.console import Console

    from autocompress.search.study import Search
    from autocompress.search.workers.goal import SearchGoal

_FILES = ("model", "data")  # what is never a name
_NAMES = ("metric", "output", "signature")  # what is always one


@contextmanager
def reopened(
    study: str,
    runs: Path,
    storage: str | None,
    console: Console,
    *,
    host: str | None = None,
    host_wait: str = HOST_WAIT,
    threads: int | None = None,
    joins: SearchGoal | None = None,
) -> Iterator[Search]:
    """The search of a study, on `host` instead of where it measured where one is given. `joins`: the running search
    that this process helps.

    AutocompressError for a study that no command made."""
    from autocompress.measure.host.client import at_host
    from autocompress.measure.latency import latency_on
    from autocompress.records.constraint import parse_constraint
    from autocompress.search.request import Request
    from autocompress.search.storage.study_records import identity_of, load_study
    from autocompress.search.study import Search
    from autocompress.specs import load_device, load_space
    from autocompress.tasks import load_task
    from autocompress.tasks.task import asked_by

    kept = load_study(runs, study, storage)
    words, identity = kept.user_attrs.get("words"), identity_of(kept)
    if not words or identity is None:
        raise AutocompressError(
            f"study '{study}' does not say with which command it was made, so it cannot be opened; start it with: "
            "autocompress search"
        )
    profile = at_host(load_device(words["device"]), host or words["host"])
    loaded = load_task(words["task"], words["model"], words["data"], words["metric"], asked_by(words))
    chosen = threads or cores()
    with latency_on(profile, wait_s=seconds(host_wait, "--host-wait"), say=Waits(console)) as latency:
        request = Request(
            task=loaded,
            profile=profile,
            space=load_space(words["space"]),
            latency_source=latency.source,
            runs=runs,
            sampler=identity.sampler if joins is None else joins.sampler,
            seed=identity.seed if joins is None else joins.seed,
            name=study,
            storage=storage,
            objectives=identity.objectives,
            size=identity.size,
            constraints=tuple(map(parse_constraint, identity.constraints)),
            threads=chosen,
            words=words,
        )
        expected, joining = latency.expected(), joins is not None
        with (
            threads_of(chosen),
            Search(request, latency.bind(loaded.original), expected=expected, joins=joining) as opened,
        ):
            latency.check_same(opened.baseline.measurement)
            yield opened


def words_of(**words: str | Path | None) -> dict[str, str | None]:
    """How a command named things, with the paths of files made absolute: the study may be opened from elsewhere."""
    return {name: None if word is None else _absolute(name, str(word)) for name, word in words.items()}


def _absolute(name: str, word: str) -> str:
    path, colon, attribute = word.partition(":")
    is_file = name in _FILES or (name not in _NAMES and bool(Path(path).suffix))  # a folder may be called as a task is
    return str(Path(path).resolve()) + colon + attribute if is_file and Path(path).exists() else word


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Linear algebra on at most `count` threads."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(count):
        yield
