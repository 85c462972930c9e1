"""A night: a thread a device, a process a cell, until every cell has ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autocompress.errors import AutocompressError
from autocompress.search.workers.locks import locked
from autocompress.specs import Sweep
from autocompress.sweep.night import CellNight, Night, Nights
from autocompress.sweep.plan import Cell, cells, check, lanes

Say = Callable[[str, str], None]  # cell, line


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A night that has ended: as stored, where, and the one that it was compared with."""

    night: Night
    path: Path
    nights: Nights


def run_night(sweep: Sweep, runs: Path, say: Say, *, resume: bool = True) -> Outcome:
    """Run a night; with `resume` go on with the one that was cut, else begin it again. One at a time: AutocompressError
    where another runs."""
    check(sweep)
    nights = Nights(runs, sweep.name)
    with _only_one(nights.folder, sweep.name):
        number, began = nights.begin(datetime.now().astimezone().isoformat(timespec="seconds"), resume=resume)
        accepted = nights.accepted()
        running = _Running(sweep, runs, nights, 0 if accepted is None else planned(accepted), say)
        with ThreadPoolExecutor(max_workers=len(sweep.devices)) as pool, running.ended_by_interrupts():
            for each in [pool.submit(running.lane, lane) for lane in lanes(sweep).values()]:
                each.result()
        night = Night(
            number=number,
            sweep=sweep.name,
            began=began,
            ended=datetime.now().astimezone().isoformat(timespec="seconds"),
            accepted=None if accepted is None else accepted.number,
            cells=tuple(found for cell in cells(sweep) if (found := nights.cell(cell.name)) is not None),
        )
        path = nights.save(night)
        nights.close()
    return Outcome(night=night, path=path, nights=nights)


@contextlib.contextmanager
def _only_one(folder: Path, name: str) -> Iterator[None]:
    """Hold the sweep's lock; AutocompressError where another night of it runs."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except AutocompressError as fault:
            if not isinstance(fault.__cause__, BlockingIOError):
                raise
            said = f"sweep '{name}' is running already in {folder}; wait until that night ends"
            raise AutocompressError(said) from fault
        yield


def planned(accepted: Night) -> int:
    """How many comparisons by samples a night makes at most: latency, memory and metric a file, the hypervolumes."""
    return sum(3 * len(cell.front) + 1 for cell in accepted.cells if cell.state == "done")


class _Running:
    """A night while it runs."""

    def __init__(self, sweep: Sweep, runs: Path, nights: Nights, comparisons: int, say: Say) -> None:
        self._sweep, self._runs, self._nights, self._comparisons, self._say = sweep, runs, nights, comparisons, say
        self._processes: list[subprocess.Popen[str]] = []
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def ended_by_interrupts(self) -> Iterator[None]:
        """What ends the night ends its processes too; their cells are not stored, the next run begins them again."""
        try:
            yield
        except BaseException:
            self._stopped.set()
            for process in self._processes:
                process.kill()
            raise

    def lane(self, lane: Sequence[Cell]) -> None:
        """The cells of one device in turn. When it is away for one, it is for all that follow."""
        away: str | None = None
        for place, cell in enumerate(lane):
            found = self._nights.cell(cell.name)
            if found is None:
                if (missed := self._missed(cell, lane, away)) is not None:
                    self._nights.save_cell(missed)
                else:
                    self._run(cell, self._share_s(lane, place))
                found = self._nights.cell(cell.name)
            if self._stopped.is_set() or found is None:
                return
            away = found.reason if found.state == "away" else away
            self._say(cell.name, found.state if found.reason is None else f"{found.state}: {found.reason}")

    def _missed(self, cell: Cell, lane: Sequence[Cell], away: str | None) -> CellNight | None:
        """What a cell that cannot be begun comes to."""
        if away is not None:
            return CellNight(cell=cell.name, state="away", reason=away)
        left_s = self._left_s(lane)
        if left_s is not None and left_s <= 0:
            return CellNight(cell=cell.name, state="late", reason="the time budget of the night is used up")
        return None

    def _left_s(self, lane: Sequence[Cell]) -> float | None:
        """What is left of the night for a device: what its ended cells took is used, by whichever run of the night."""
        if self._sweep.time_budget_s is None:
            return None
        ended = (self._nights.cell(cell.name) for cell in lane)
        return self._sweep.time_budget_s - sum(found.elapsed_s for found in ended if found is not None)

    def _share_s(self, lane: Sequence[Cell], place: int) -> float | None:
        left_s = self._left_s(lane)
        return None if left_s is None else left_s / (len(lane) - place)

    def _run(self, cell: Cell, share_s: float | None) -> None:
        """One cell in its process. A process that stores nothing has failed: its last line says why."""
        command = [
            sys.executable,
            "-m",
            "autocompress.sweep",
            str(self._sweep.file),
            cell.name,
            str(self._runs),
            "-" if share_s is None else f"{share_s:.3f}",
            str(self._comparisons),
        ]
        log, began_s = self._nights.open_folder / f"{cell.name}.log", time.monotonic()
        self._say(cell.name, "begins")
        code = self._followed(command, log, cell)
        if self._nights.cell(cell.name) is None and not self._stopped.is_set():
            reason = _reason(code, log.read_text(errors="replace"))
            elapsed_s = time.monotonic() - began_s
            self._nights.save_cell(CellNight(cell=cell.name, state="failed", reason=reason, elapsed_s=elapsed_s))

    def _followed(self, command: Sequence[str], log: Path, cell: Cell) -> int:
        """Run a process and show its lines; its exit code. Its standard input stays open as long as this one lives."""
        pipe = subprocess.PIPE
        with (
            log.open("w") as errors,
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, encoding="utf-8") as process,
        ):
            self._processes.append(process)
            assert process.stdout is not None
            for line in process.stdout:
                self._say(cell.name, line.rstrip())
            return process.wait()


def _reason(code: int, log: str) -> str:
    """Why a cell's process ended without a result."""
    known = -code in list(signal.Signals)
    how = f"was killed by {signal.Signals(-code).name}" if known else f"ended with exit code {code}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"its process {how}" + (f": {lines[-1][:300]}" if lines else "")
