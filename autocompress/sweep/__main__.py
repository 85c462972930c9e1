"""One cell in a process of its own, which the night starts.

`python -m autocompress.sweep SWEEP.yaml CELL RUNS TIME_S COMPARISONS` tells what it does on standard output, a line
each, and ends when standard input does: with the night."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from autocompress.errors import AutocompressError, DeviceError
from autocompress.specs import load_sweep
from autocompress.sweep.cell import CellJob, run_cell
from autocompress.sweep.night import CellNight, Nights, read, write_json
from autocompress.sweep.plan import cell_named


def main(arguments: list[str]) -> int:
    """Run the cell and store it in the open night; the exit code of what ended it."""
    file, name, runs, time_s, comparisons = arguments
    threading.Thread(target=_end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    sweep = load_sweep(file)
    nights = Nights(Path(runs), sweep.name)
    with open(nights.open_folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until a process of a night that was killed has ended too
        accepted = nights.accepted()
        job = CellJob(
            sweep=sweep,
            cell=cell_named(sweep, name),
            runs=Path(runs),
            accepted=None if accepted is None else _done(accepted.cells, name),
            comparisons=int(comparisons),
            time_s=None if time_s == "-" else float(time_s),
        )
        began_s = time.monotonic()
        try:
            found = run_cell(job, _say, lambda held: _remembered(nights.open_folder / f"{name}.start", held))
        except DeviceError as fault:
            found = CellNight(cell=name, state="away", reason=str(fault))
        except AutocompressError as fault:
            found = CellNight(cell=name, state="failed", reason=str(fault))
        nights.save_cell(replace(found, elapsed_s=time.monotonic() - began_s))
    return 0


def _done(cells: tuple[CellNight, ...], name: str) -> CellNight | None:
    return next((cell for cell in cells if cell.cell == name and cell.state == "done"), None)


def _remembered(path: Path, held: int) -> int:
    """How many trials the study held when the night first came to this cell."""
    if not path.exists():
        write_json(path, {"schema": 1, "complete": held})
    return int(read(path)["complete"])


def _say(line: str) -> None:
    print(" ".join(line.split()), flush=True)


def _end_with(descriptor: int) -> None:
    """End at once, as a kill would, when the night that started this process is gone."""
    while os.read(descriptor, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
