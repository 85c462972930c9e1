"""What a program calls: tasks, devices and spaces by name, studies opened or read, files measured."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from autocompress.api.results import StudyView, bounds_of
from autocompress.api.study import Study
from autocompress.devices.measure_file import measure_file
from autocompress.errors import AutocompressError
from autocompress.export.bundle import ExportOptions
from autocompress.latency.host.client import at_host
from autocompress.latency.host.retry import Say, silent
from autocompress.latency.source import latency_on
from autocompress.records.measurement import MeasuredFile
from autocompress.search.specification import (
    USUAL_OBJECTIVES,
    Provenance,
    Resources,
    Specification,
    default_size,
    objectives_for,
)
from autocompress.search.storage.stored_specification import with_study
from autocompress.search.storage.study_records import load_study, read_record
from autocompress.session import cores, open_search, reopen
from autocompress.specs import DeviceProfile, SearchSpace, load_device, load_space
from autocompress.specs.duration import seconds
from autocompress.tasks import LoadedTask, SignatureChoice, Task, load_task, loaded_task, store_task


def task(
    name: str, *, metric: str | None = None, output: str | None = None, signature: str | None = None
) -> LoadedTask:
    """A built-in task (digits, fashion-mnist) or that of `FILE.py[:ATTR]`, checked; `metric`, `output` and `signature`
    replace its own. AutocompressError for one that cannot be used."""
    return load_task(name, metric=metric, asked=SignatureChoice(output=output, signature=signature))


def device(name: str | Path, *, host: str | None = None, kind: str | None = None) -> DeviceProfile:
    """The device profile of that name or `.yaml` file, measured on `host` (local, user@name[:PYTHON]) where one is
    given.
    `kind`: a registered one. AutocompressError for an unknown name."""
    profile = at_host(load_device(name), host)
    return profile if kind is None else replace(profile, kind=kind)


def space(name: str | Path) -> SearchSpace:
    """The search space of that name or `.yaml` file. AutocompressError for an unknown name."""
    return load_space(name)


def open_study(
    path: str | Path,
    task: Task | LoadedTask | None = None,
    device: DeviceProfile | str | None = None,
    *,
    space: SearchSpace | str = "default",
    objectives: Sequence[str] = USUAL_OBJECTIVES,
    constraints: Sequence[str] = (),
    size: str | None = None,
    sampler: str = "guided",
    seed: int = 0,
    storage: str | None = None,
    threads: int | None = None,
    host_wait: str = "15m",
    say: Say = silent,
) -> Study:
    """The study RUNS/NAME, made where there is none; without a task and a device as it was made, by whatever made it.

    `storage`: Optuna's (default: SQLite beside the artifacts); `say` gets a line for what is waited for. The arrays of
    a task that has no files are kept beside the study. AutocompressError for what cannot be searched, or where the
    study was made with something else; DeviceError where the device does not answer."""
    where, stack = Path(path), ExitStack()
    wait_s = seconds(host_wait, "host_wait")
    with stack:
        if task is None or device is None:
            if task is not None or device is not None:
                raise AutocompressError("a task and a device belong together; give both, or none to go on with a study")
            again = reopen(where.name, where.parent, storage, host_wait_s=wait_s, say=say, threads=threads)
            search = stack.enter_context(again)
        else:
            profile = load_device(device) if isinstance(device, str) else device
            latency = stack.enter_context(latency_on(profile, wait_s=wait_s, say=say, needed=False))
            specification = Specification(
                task=_checked(task, where),
                profile=profile,
                space=load_space(space) if isinstance(space, str) else space,
                latency_source=latency.source,
                sampler=sampler,
                seed=seed,
                objectives=objectives_for(latency.source, None if objectives == USUAL_OBJECTIVES else objectives),
                size=size or default_size(profile),
                constraints=bounds_of(constraints, compiled=profile.tells_flash),
            )
            resources = Resources(runs=where.parent, name=where.name, storage=storage, threads=threads or cores())
            named: dict[str, str | None] = {"device": profile.name, "space": specification.space.name}
            provenance = Provenance(named=named)
            search = stack.enter_context(open_search(specification, resources, latency, provenance=provenance))
        return Study(search, stack.pop_all(), with_study(ExportOptions(), search.study))


def _checked(task: Task | LoadedTask, study: Path) -> LoadedTask:
    loaded = task if isinstance(task, LoadedTask) else loaded_task(task)
    return store_task(loaded, study / "task")


def read_study(path: str | Path, *, storage: str | None = None) -> StudyView:
    """The study RUNS/NAME as it stands, without a lock: also while it is searched. AutocompressError where there is
    none."""
    where = Path(path)
    study = load_study(where.parent, where.name, storage)
    return StudyView(read_record(study), where.parent, with_study(ExportOptions(), study))


def measure(
    model: str | Path,
    device: DeviceProfile | str,
    *,
    baseline: str | Path | None = None,
    data: str | Path | None = None,
    metric: str | None = None,
    processes: int = 5,
) -> MeasuredFile:
    """What a `.tflite` is worth on a device: latency, memory, operators; with `baseline` in turn with that file; with
    `data` and `metric` also the metric on test data under the device's kernels. AutocompressError for files that cannot
    be used, DeviceError where the device does not answer."""
    profile = load_device(device) if isinstance(device, str) else device
    return measure_file(
        Path(model),
        profile,
        baseline=None if baseline is None else Path(baseline),
        processes=processes,
        accuracy=data is not None,
        data=None if data is None else Path(data),
        metric=metric,
    )
