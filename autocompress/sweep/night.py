"""What a night leaves: one JSON file a night, whole or not there, in the sweep's folder below the runs folder.

`SWEEP/night-0001.json`: a finished night. `SWEEP/open/`: the cells of the night that is not finished, one file each, so
a night that was cut goes on with the next cell. `SWEEP/accepted.json`: the number of the night to compare with."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress import pareto
from autocompress.errors import AutocompressError
from autocompress.files import write_whole

Array = np.ndarray[Any, Any]
Canary = tuple[tuple[float, ...], tuple[float, ...]]
SCHEMA = 1
_NIGHT = "night.json"  # of an open one, beside its cells


@dataclass(frozen=True, kw_only=True)
class FileFigures:
    """One file of a front, as a later night compares with it. `log_ratios`: of its latency to the float network's, a
    pair of fresh processes each; `memory_bytes` of the same processes; `scores`: its metric of each validation sample,
    packed (None where the metric has none)."""

    trial: int
    configuration: Mapping[str, Any]
    sha256: str
    artifact: str
    file_bytes: int
    download_bytes: int
    accuracy: float
    latency_ms: float
    extrapolated: bool = False  # modelled, outside what the model was fitted to
    log_ratios: tuple[float, ...] = ()
    memory_bytes: tuple[int, ...] = ()
    scores: str | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison with the accepted night. `effect` > 0 is worse: relative, for the metric in its unit; `interval`
    its 95 % interval; `p` two-sided, of no difference, over all looks; None where nothing can be said, and `note` says
    why. `certain`: without noise, `p` is 0 or 1. `confirmed`: whether it was seen again at the end of the night; None
    where that was not needed."""

    file: str
    metric: str
    before: float | None
    after: float | None
    effect: float | None = None
    p: float | None = None
    certain: bool = False
    interval: tuple[float, float] | None = None
    pairs: int = 0
    confirmed: bool | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class CellNight:
    """One cell of a night. `state`: done | away (its device) | failed | late (no time was left). `canary_ms`: the float
    network's latency in each of some processes, first and last. `points`: what spans the hypervolume, as rows
    of accuracy, latency, its interval's ends, download; `scales`: the baseline's accuracy and latency, and the plain
    int8 file's download. Of nights of older versions the hypervolume is computed again from these."""

    cell: str
    state: str
    reason: str | None = None
    study: str | None = None
    metric: str | None = None
    higher_is_better: bool = True
    data_sha256: str | None = None
    latency_source: str | None = None
    canary_ms: Canary | None = None
    trials: int = 0
    front: tuple[FileFigures, ...] = ()
    checks: tuple[Check, ...] = ()
    hypervolume: float | None = None
    points: tuple[tuple[float, ...], ...] = ()
    scales: tuple[float, float, float] | None = None
    elapsed_s: float = 0.0
    versions: Mapping[str, str] | None = None
    network_sha256: str | None = None
    device: Mapping[str, str] | None = None  # what of the host may change its latencies
    metric_scale: float = 1.0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CellNight:
        """The inverse of `asdict`, as JSON gives it back."""
        values = dict(data)
        values["front"] = tuple(FileFigures(**_tuples(FileFigures, each)) for each in values["front"])
        values["checks"] = tuple(Check(**_tuples(Check, each)) for each in values["checks"])
        values["points"] = tuple(map(tuple, values["points"]))
        values["canary_ms"] = values["canary_ms"] and tuple(map(tuple, values["canary_ms"]))
        night = cls(**_tuples(cls, values))
        return replace(night, hypervolume=night.volume())

    def volume(self, latency_ms: npt.ArrayLike | None = None) -> float | None:
        """The hypervolume of its points in metric, latency and download; with these latencies instead of their own.
        None where there is nothing to compare them with."""
        if self.scales is None:
            return None
        accuracy, own_ms, _, _, download = np.array(self.points, dtype=np.float64).reshape(-1, 5).T
        return pareto.study_hypervolume(
            accuracy,
            own_ms if latency_ms is None else latency_ms,
            download,
            baseline_accuracy=self.scales[0],
            baseline_latency_ms=self.scales[1],
            int8_download_bytes=self.scales[2],
            higher_is_better=self.higher_is_better,
            metric_scale=self.metric_scale,
        )


@dataclass(frozen=True, kw_only=True)
class Night:
    """A finished night. Times are ISO, of this machine."""

    number: int
    sweep: str
    began: str
    ended: str
    accepted: int | None
    cells: tuple[CellNight, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Night:
        """The inverse of `asdict`, without its schema."""
        values = {key: value for key, value in data.items() if key != "schema"}
        return cls(**{**values, "cells": tuple(map(CellNight.from_dict, values["cells"]))})


def _tuples(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in names}


class Nights:
    """The nights of one sweep in its folder."""

    def __init__(self, runs: Path, sweep: str) -> None:
        self.folder = runs / "sweeps" / sweep
        self.open_folder = self.folder / "open"

    def numbers(self) -> tuple[int, ...]:
        """Of the finished nights, ascending."""
        found = (re.fullmatch(r"night-(\d+)\.json", path.name) for path in self.folder.glob("night-*.json"))
        return tuple(sorted(int(match[1]) for match in found if match))

    def path(self, number: int) -> Path:
        """Where a finished night lies."""
        return self.folder / f"night-{number:04d}.json"

    def night(self, number: int) -> Night:
        """A finished night; AutocompressError where there is none."""
        if number not in self.numbers():
            known = ", ".join(map(str, self.numbers())) or "none yet"
            raise AutocompressError(f"there is no night {number} in {self.folder}; nights: {known}")
        return Night.from_dict(read(self.path(number)))

    def save(self, night: Night) -> Path:
        """Store a finished night."""
        write_json(self.path(night.number), {"schema": SCHEMA, **asdict(night)})
        return self.path(night.number)

    def accepted(self) -> Night | None:
        """The night to compare with; None while none is accepted."""
        path = self.folder / "accepted.json"
        return self.night(int(read(path)["night"])) if path.exists() else None

    def accept(self, number: int | None) -> Night:
        """Take a night, the last one without a number, as what later ones are compared with.

        AutocompressError where there is none, or where none of its cells is done."""
        numbers = self.numbers()
        if not numbers:
            raise AutocompressError(
                f"no night is finished in {self.folder}; run one with: autocompress sweep FILE.yaml"
            )
        night = self.night(numbers[-1] if number is None else number)
        if not any(cell.state == "done" for cell in night.cells):
            raise AutocompressError(f"night {night.number} has no cell that is done; accept another: --night N")
        write_json(self.folder / "accepted.json", {"schema": SCHEMA, "night": night.number})
        return night

    # The night that is not finished

    def cell_path(self, cell: str) -> Path:
        """Where a cell of the open night is stored when it has ended."""
        return self.open_folder / f"{cell}.json"

    def save_cell(self, cell: CellNight) -> None:
        """Store a cell of the open night."""
        write_json(self.cell_path(cell.cell), {"schema": SCHEMA, **asdict(cell)})

    def cell(self, name: str) -> CellNight | None:
        """A cell of the open night; None where it has not ended."""
        path = self.cell_path(name)
        return CellNight.from_dict(read(path)) if path.exists() else None

    def open_number(self) -> int | None:
        """The number of the open night; None where none is open."""
        path = self.open_folder / _NIGHT
        return int(read(path)["number"]) if path.exists() else None

    def open_cells(self) -> list[CellNight]:
        """The cells of the open night that have ended."""
        paths = (path for path in sorted(self.open_folder.glob("*.json")) if path.name != _NIGHT)
        return [CellNight.from_dict(read(path)) for path in paths]

    def begin(self, now: str, *, resume: bool = True) -> tuple[int, str]:
        """The number of the open night and when it began: the one that was cut, else (and where `resume` is False) a
        new one."""
        path, number = self.open_folder / _NIGHT, (self.numbers() or (0,))[-1] + 1
        if resume and path.exists() and (known := read(path))["number"] == number:
            return number, str(known["began"])
        for left in self.open_folder.glob("*"):
            if left.suffix != ".lock":  # which a cell of a night that was killed may hold for another moment
                left.unlink()
        self.open_folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"schema": SCHEMA, "number": number, "began": now})
        return number, now

    def close(self) -> None:
        """Clear up the open night."""
        for path in self.open_folder.glob("*"):
            path.unlink()


def artifacts_of_nights(runs: Path, *, accepted: bool = False) -> dict[str, str]:
    """The files of candidates that nights of the sweeps below `runs` name, those of accepted nights only where that is
    said: path relative to `runs` -> name of a sweep. AutocompressError for a night that cannot be read."""
    found: dict[str, str] = {}
    for folder in sorted(path for path in (runs / "sweeps").glob("*") if path.is_dir()):
        nights = Nights(runs, folder.name)
        kept = nights.accepted()
        told = [kept] if kept else []
        if not accepted:
            told = [nights.night(number) for number in nights.numbers()]
        cells = [cell for night in told for cell in night.cells]
        cells += [] if accepted else nights.open_cells()
        found |= {file.artifact: folder.name for cell in cells for file in cell.front}
    return found


def read(path: Path) -> dict[str, Any]:
    """A stored document; AutocompressError where it is none, or of another schema."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as fault:
        raise AutocompressError(f"{path} cannot be read ({fault}); restore it, or move it away") from fault
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        got = found.get("schema") if isinstance(found, dict) else None
        raise AutocompressError(f"{path} has schema {got}, this version reads {SCHEMA}; use the version that wrote it")
    return found


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Store a document, whole or not at all."""
    write_whole(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def packed(scores: Array | None) -> str | None:
    """Scores of samples as text: bits where all are 0 or 1, else 32-bit floats."""
    if scores is None:
        return None
    bits = bool(np.isin(scores, (0.0, 1.0)).all())
    content = np.packbits(scores.astype(bool)) if bits else scores.astype("<f4")
    return f"{'bits' if bits else 'f4'}:{len(scores)}:{base64.b64encode(content.tobytes()).decode()}"


def unpacked(text: str) -> Array:
    """The inverse of `packed`: float64, shape (n,)."""
    kind, count, content = text.split(":")
    raw = base64.b64decode(content)
    if kind == "bits":
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=int(count)).astype(np.float64)
    return np.frombuffer(raw, "<f4").astype(np.float64)


def spread(count: int, most: int) -> Sequence[int]:
    """At most `most` of `count` positions, evenly, both ends among them."""
    if count <= most:
        return range(count)
    return [round(k * (count - 1) / max(1, most - 1)) for k in range(most)]
