"""Opening searches: the one place that composes task, device, space, storage and sampler into a running search.

The command line, sweeps and the Python interface come through here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autocompress.latency.host.client import at_host
from autocompress.latency.host.retry import WAIT_S, Say, silent
from autocompress.latency.source import LatencySource, latency_on
from autocompress.records.constraint import parse_constraint
from autocompress.search.specification import Budget, Provenance, Resources, Specification
from autocompress.search.storage import stored_specification
from autocompress.search.storage.study_records import identity_of, load_study
from autocompress.search.study import Search
from autocompress.search.workers.goal import SearchGoal
from autocompress.tasks import load_again


@contextmanager
def open_search(
    specification: Specification,
    resources: Resources,
    latency: LatencySource,
    *,
    budget: Budget | None = None,
    provenance: Provenance | None = None,
    joins: bool = False,
    screens: bool = True,
) -> Iterator[Search]:
    """The search of a study, new or going on, whose latencies come from `latency`. `joins`: this process helps one that
    runs. `screens`: what the device's calibrated model shows to be hopeless is not measured.

    AutocompressError for what cannot be searched or was made with something else; DeviceError for another runtime than
    the study was measured with."""
    with (
        threads_of(resources.threads),
        Search(
            specification,
            resources,
            latency.bind(specification.task.original),
            budget=budget,
            provenance=provenance,
            expected=latency.expected() if screens else None,
            joins=joins,
        ) as search,
    ):
        latency.check_same(search.baseline.measurement)
        yield search


@contextmanager
def reopen(
    name: str,
    runs: Path,
    storage: str | None,
    *,
    host: str | None = None,
    host_wait_s: float = WAIT_S,
    say: Say = silent,
    threads: int | None = None,
    joins: SearchGoal | None = None,
) -> Iterator[Search]:
    """The search of a study that exists, by what it stores of itself; measured on `host` instead of where it was, where
    one is given. `joins`: what the running search that this process helps goes on to.

    AutocompressError for a study that does not say enough."""
    study = load_study(runs, name, storage)
    stored, identity = stored_specification.read(study), identity_of(study)
    assert identity is not None  # stored together
    profile = at_host(stored.profile, host)
    with latency_on(profile, wait_s=host_wait_s, say=say, needed=False) as latency:
        specification = Specification(
            task=load_again(stored.task),
            profile=profile,
            space=stored.space,
            latency_source=latency.source,
            sampler=identity.sampler if joins is None else joins.sampler,
            seed=identity.seed if joins is None else joins.seed,
            objectives=identity.objectives,
            size=identity.size,
            constraints=tuple(map(parse_constraint, identity.constraints)),
            tier=stored.tier,
        )
        resources = Resources(runs=runs, name=name, storage=storage, threads=threads or cores())
        # A study of schema 1 gets its specification now; one that has it keeps it, whatever host is used this time.
        provenance = Provenance(named={} if stored_specification.is_stored(study) else stored.named)
        with open_search(specification, resources, latency, provenance=provenance, joins=joins is not None) as search:
            yield search


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Linear algebra on at most `count` threads."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(count):
        yield
