"""Layer tables: for each (layer, choice) what it costs the network and what it weighs, known before any candidate is.

Of each choice: the output error of the layer (the solver's, relative), its bytes after deflate, and the sensitivity:
how far the network's outputs move when this layer alone is compressed so and the layers behind it are fitted again.
Errors and bytes come from a survey of all choices; sensitivity from two probes of the whole network a layer, no labels,
and between them from a monotone curve over the error (as OBC's and FastNAS's databases interpolate).

The tables are kept on disk, named by what they were made from, and are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.compression.compensated_probe import NEXT, CompensatedProbe
from autocompress.compression.divergence import divergence
from autocompress.compression.reconstruct import FloatLayer, Reconstruction, SolvedLayer, corrected_bias
from autocompress.compression.side_by_side import side_by_side
from autocompress.compression.solve import Problem, output_error, solve
from autocompress.compression.survey import survey
from autocompress.files import exclusive, write_whole
from autocompress.network.graph import trace
from autocompress.network.tflite.outputs import FIRST, Signature
from autocompress.records.configuration import LayerChoice

Array = np.ndarray[Any, Any]
Run = Callable[[bytes], Array]  # a network (float `.tflite`) -> its outputs on the probe samples, packed (n, ...)
VERSION = 7  # of the solver and of what follows from it here: older tables are made again
PROBES = 2  # a layer; one in deep networks, as each goes through all layers behind it
_DEEP, _VERY_DEEP = 16, 64  # layers
_FLOOR = 1e-12  # of errors and sensitivities: their logarithms are taken
_SWEEPS = 2
_MOST_WORK = 2.5e7  # multiplications of a product of weights and moment: above that some output channels are looked at
_FEWEST_ROWS = 64
_COLUMNS = ("error", "bytes", "sensitivity")


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """One layer: `error` (share of its output energy), `bytes` (deflated weights), `sensitivity` (divergence of the
    network's outputs with this layer alone compressed), each (C,) float64 in the order of `choices`."""

    name: str
    choices: tuple[LayerChoice, ...]
    error: Array
    bytes: Array
    sensitivity: Array


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The tables of all layers in layer order. `built_s`: what building them took; 0 where they were at hand."""

    layers: tuple[LayerTable, ...]
    built_s: float


def build_tables(
    reconstruction: Reconstruction,
    choices: Mapping[str, Sequence[LayerChoice]],
    samples: int,
    sparse: Collection[int] = (),
    signature: Signature = FIRST,
    large: bool = False,
    after_layer: Callable[[], None] = lambda: None,
    processes: int = 1,
) -> Tables:
    """The tables of these choices (by layer name). Probes of the whole network run on so many calibration samples and
    look at the outputs of `signature`; `sparse`: bits of the containers whose weights may be stored sparse; `large`:
    the network's inner tensors are, so that probes fit only the layers that come next, and so many `processes` work."""
    start = time.perf_counter()
    fits = NEXT if large or len(reconstruction.floats) > _VERY_DEEP else None
    compensated_probe = CompensatedProbe(reconstruction, samples, signature, fits)
    probes = PROBES if len(reconstruction.floats) <= _DEEP else 1

    def sensitivity_of(changed: SolvedLayer) -> float:
        return float(divergence(compensated_probe.reference, compensated_probe.outputs(changed), signature).mean())

    walk = enumerate(compensated_probe.walk())

    def row_of(position: int) -> LayerTable:
        next(at for at, _ in walk if at == position)  # the walk goes on to this layer
        float_layer = reconstruction.floats[position]
        row = tuple(choices[float_layer.layer.name])
        made = _layer_table(float_layer, row, sensitivity_of, probes, sparse)
        float_layer.forget()
        return made

    def row_in_one_thread(position: int) -> LayerTable:
        compensated_probe.threads(1)
        return row_of(position)

    count, rows = len(reconstruction.floats), []
    if fits is not None and processes > 1:
        _ = compensated_probe.reference  # before the processes part
        rows = side_by_side(row_in_one_thread, count, min(processes, count), after_layer)
    else:
        for position in range(count):
            rows.append(row_of(position))
            after_layer()
    return Tables(layers=tuple(rows), built_s=time.perf_counter() - start)


def _layer_table(
    float_layer: FloatLayer,
    choices: tuple[LayerChoice, ...],
    sensitivity_of: Callable[[SolvedLayer], float],
    probes: int,
    sparse: Collection[int],
) -> LayerTable:
    problem = representative(float_layer.centred_problem, choices)
    seen = survey(problem, choices, lambda choice: (8 if choice.is_integer else choice.bits) in sparse)
    error = anchored(problem, choices, seen.error)
    sensitivities = [
        (float(error[at]), sensitivity_of(_solved_alone(float_layer, choices[at])))
        for at in probe_choices(choices, error, probes)
    ]
    return LayerTable(
        name=float_layer.layer.name,
        choices=choices,
        error=error,
        bytes=seen.bytes * (float_layer.weight.shape[1] / problem.weight.shape[1]),
        sensitivity=sensitivity_curve(sensitivities, error),
    )


def representative(problem: Problem, choices: Sequence[LayerChoice]) -> Problem:
    """The problem of evenly spaced output channels, enough to compare choices on, where all of them are much work."""
    groups, rows, columns = problem.weight.shape
    together = max(problem.block(choice) for choice in choices)
    most = max(_FEWEST_ROWS, int(_MOST_WORK / (groups * columns**2)) // together * together)
    if (groups > 1 and not problem.shared_scale) or rows <= most:
        return problem
    starts = np.unique(np.linspace(0, rows // together - 1, most // together).astype(int)) * together
    return problem.of_rows((starts[:, None] + np.arange(together)).ravel())


def anchored(problem: Problem, choices: Sequence[LayerChoice], error: Array) -> Array:
    """The surveyed errors brought to what the whole solver reaches: at each sparsity one choice, the finest, is solved
    and all others of that sparsity move by the same factor. A choice that is no compression has error 0."""
    moved = error.copy()
    for pruned in {(choice.sparsity, choice.granularity) for choice in choices if choice.sparsity > 0}:
        those = [c for c, choice in enumerate(choices) if (choice.sparsity, choice.granularity) == pruned]
        finest = min(those, key=lambda c: (error[c], c))
        solved = output_error(problem, solve(problem, choices[finest], _SWEEPS).values) / problem.energy
        moved[those] = error[those] * min(1.0, max(solved, 0.0) / max(float(error[finest]), _FLOOR))
    moved[[choice.is_baseline for choice in choices]] = 0.0
    return moved


def probe_choices(choices: Sequence[LayerChoice], error: Array, probes: int = PROBES) -> list[int]:
    """Which choices are probed: those nearest, in the logarithm, to equal steps between the smallest error that is one
    and the largest, which is always one of them; at most `probes`, by rising error."""
    lossy = np.flatnonzero((error > _FLOOR) & [not choice.is_baseline for choice in choices])
    if not len(lossy):
        return []
    logs = np.log(error[lossy])
    # The finest choices hardly move the outputs: what they cost is read off the curve's lower end.
    targets = logs.max() - np.ptp(logs) * np.linspace(0.0, 0.6, probes)
    return sorted({int(lossy[np.abs(logs - target).argmin()]) for target in targets}, key=lambda c: (error[c], c))


def _solved_alone(float_layer: FloatLayer, choice: LayerChoice) -> SolvedLayer:
    """This layer under `choice` on the float network's inputs, its bias corrected."""
    values = solve(float_layer.centred_problem, choice, _SWEEPS).values
    weight = trace.from_matrix(float_layer.layer, values).astype(np.float32)
    return SolvedLayer(weight=weight, bias=None if float_layer.bias is None else corrected_bias(float_layer, values))


def sensitivity_curve(probes: Sequence[tuple[float, float]], error: Array) -> Array:
    """Sensitivity at each error from (error, sensitivity) probes: linear between them in the logarithms, made monotone
    by pooling adjacent violators (Ayer et al. 1955), proportional to the error beyond them; 0 at error 0."""
    points = sorted((max(e, _FLOOR), max(d, _FLOOR)) for e, d in probes)
    if not points:
        return np.zeros(len(error))
    x, y = np.log(np.array(points).T)
    y = isotonic(y)
    at = np.log(np.maximum(error, _FLOOR))
    inside = np.interp(at, x, y)
    beyond = np.where(at < x[0], at - x[0], np.where(at > x[-1], at - x[-1], 0.0))
    curve: Array = np.where(error > _FLOOR, np.exp(inside + beyond), 0.0)
    return curve


def isotonic(values: Array, weights: Array | None = None) -> Array:
    """The non-decreasing sequence nearest to `values` in (weighted) least squares, by pooling adjacent violators."""
    means: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    for value, mass in zip(values, np.ones(len(values)) if weights is None else weights, strict=True):
        means.append(float(value))
        masses.append(float(mass))
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            total = masses[-2] + masses[-1]
            means[-2:] = [(means[-2] * masses[-2] + means[-1] * masses[-1]) / total]
            masses[-2:], counts[-2:] = [total], [counts[-2] + counts[-1]]
    return np.repeat(means, counts)


def table_key(
    network_sha256: str,
    calibration: Mapping[str, Array],
    choices: Mapping[str, Sequence[LayerChoice]],
    sparse: Collection[int] = (),
    signature: Signature = FIRST,
) -> str:
    """The name of the tables made from this network, these calibration inputs, these choices and ways of storage
    (`sparse` and `signature` as in `build_tables`) by this version."""
    digest = hashlib.sha256(f"{VERSION} {network_sha256} {sorted(sparse)}".encode())
    for name, values in sorted(calibration.items()):
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    digest.update(json.dumps({name: [c.to_json() for c in row] for name, row in choices.items()}).encode())
    if len(signature.outputs) > 1:  # tables of single outputs keep their names
        digest.update(json.dumps(signature.positions).encode())
    return digest.hexdigest()


def kept_tables(folder: Path, key: str, build: Callable[[], Tables]) -> tuple[Tables, str | None]:
    """The tables called `key` from `folder`, else built and put there; and a note where a file could not be used.

    Of processes that want the same tables one builds them, the others wait."""
    path = folder / f"{key}.npz"
    with contextlib.suppress(FileNotFoundError):
        return _usable(path, key, build)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # where nothing can be written nothing is shared either
            stack.enter_context(exclusive(folder / f"{key}.lock"))
        with contextlib.suppress(FileNotFoundError):
            return _usable(path, key, build)
        return _built(path, key, build, None)


def _usable(path: Path, key: str, build: Callable[[], Tables]) -> tuple[Tables, str | None]:
    """The tables in a file, made again where they cannot be used; FileNotFoundError where there are none."""
    try:
        return _read(path, key), None
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as fault:
        why = f"({type(fault).__name__}: {fault})"
    return _built(path, key, build, f"the layer tables in {path.name} could not be used {why}; they are made again")


def _built(path: Path, key: str, build: Callable[[], Tables], note: str | None) -> tuple[Tables, str | None]:
    tables = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _encoded(tables, key))
    except OSError as fault:
        note = f"the layer tables could not be kept in {path.parent}: {fault.strerror}"
    return tables, note


def _encoded(tables: Tables, key: str) -> bytes:
    about = {
        "version": VERSION,
        "key": key,
        "layers": [{"name": row.name, "choices": [c.to_dict() for c in row.choices]} for row in tables.layers],
    }
    arrays = {f"{n}_{column}": getattr(row, column) for n, row in enumerate(tables.layers) for column in _COLUMNS}
    content = io.BytesIO()
    np.savez_compressed(content, about=np.array(json.dumps(about)), **arrays)
    return content.getvalue()


def _read(path: Path, key: str) -> Tables:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
        about = json.loads(str(kept["about"]))
        if about["version"] != VERSION or about["key"] != key:
            raise ValueError(f"made by another version ({about['version']}, this is {VERSION}) or from something else")
        layers = tuple(_layer(row, {c: kept[f"{n}_{c}"] for c in _COLUMNS}) for n, row in enumerate(about["layers"]))
    return Tables(layers=layers, built_s=0.0)


def _layer(about: Mapping[str, Any], columns: Mapping[str, Array]) -> LayerTable:
    choices = tuple(LayerChoice.from_dict(choice) for choice in about["choices"])
    if any(len(column) != len(choices) or not np.isfinite(column).all() for column in columns.values()):
        raise ValueError(f"the table of {about['name']} is incomplete")
    return LayerTable(name=about["name"], choices=choices, **columns)
