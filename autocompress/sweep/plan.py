"""The cells of a sweep, and whether all of them can be begun at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autocompress.errors import AutocompressError, faulty_file, unknown_name
from autocompress.latency.host.client import at_host
from autocompress.metrics import get_metric
from autocompress.records.constraint import parse_constraint
from autocompress.search.storage.study_records import digest_of
from autocompress.specs import Sweep, SweepBudget, SweepDevice, SweepSpace, SweepTask, load_device, load_space
from autocompress.tasks import BUILT_IN
from autocompress.tasks.user_file import split_name


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One task on one device in one space under one budget. `name`: the names of the four, joined by +."""

    task: SweepTask
    device: SweepDevice
    space: SweepSpace
    budget: SweepBudget

    @property
    def name(self) -> str:
        """Unique in the sweep: no part can hold a +."""
        return "+".join((self.task.name, self.device.name, self.space.name, self.budget.name))


def cells(sweep: Sweep) -> tuple[Cell, ...]:
    """All combinations, in the order of the file, the last list varying fastest."""
    return tuple(
        Cell(task=task, device=device, space=space, budget=budget)
        for task in sweep.tasks
        for device in sweep.devices
        for space in sweep.spaces
        for budget in sweep.budgets
    )


def lanes(sweep: Sweep) -> dict[str, tuple[Cell, ...]]:
    """The cells by device: those of one device run in turn."""
    return {device.name: tuple(c for c in cells(sweep) if c.device == device) for device in sweep.devices}


def cell_named(sweep: Sweep, name: str) -> Cell:
    """The cell called so; KeyError where there is none."""
    return {cell.name: cell for cell in cells(sweep)}[name]


def study_name(sweep: Sweep, cell: Cell, *made_with: str) -> str:
    """The study of a cell. It ends with a digest of what its figures depend on (network, data, runtime): where one of
    them is another, the search begins anew, and the accepted files are still compared."""
    return f"{sweep.name}+{cell.name}+{digest_of(made_with)[:8]}"


def check(sweep: Sweep) -> None:
    """AutocompressError with every entry that names nothing, before a night begins."""
    looks: list[tuple[str, Callable[[], object]]] = []
    for index, task in enumerate(sweep.tasks):
        looks.append((f"$.tasks[{index}]", partial(_check_task, task)))
    for index, device in enumerate(sweep.devices):
        looks.append((f"$.devices[{index}]", partial(_check_device, device)))
    for index, space in enumerate(sweep.spaces):
        looks.append((f"$.spaces[{index}]", partial(load_space, space.space)))
    for index, budget in enumerate(sweep.budgets):
        for number, text in enumerate(budget.constraints):
            looks.append((f"$.budgets[{index}].constraints[{number}]", partial(parse_constraint, text)))
    faults = [f"{path}: {fault}" for path, look in looks if (fault := _fault(look)) is not None]
    if faults:
        raise faulty_file(sweep.file, faults)


def _fault(look: Callable[[], object]) -> str | None:
    try:
        look()
    except AutocompressError as fault:
        return str(fault)
    return None


def _check_task(task: SweepTask) -> None:
    paths = [Path(path) for path in (task.model, task.data) if path is not None]
    if task.task is not None:
        file, _ = split_name(task.task)
        if file is None and task.task not in BUILT_IN:
            raise unknown_name("task", task.task, [*BUILT_IN, "FILE.py[:ATTR]"])
        paths += [] if file is None else [file]
    if task.metric is not None:
        get_metric(task.metric)
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise AutocompressError(f"{' and '.join(missing)} not found; paths count from the sweep file's folder")


def _check_device(device: SweepDevice) -> None:
    at_host(load_device(device.profile), device.host)
