"""Calibrating a device's latency model: the designed set in every precision, measured there, then fitted."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autocompress.compression.template import make_template, quantize_plainly
from autocompress.devices.designs import Design, designed_set
from autocompress.errors import AutocompressError, CandidateError
from autocompress.latency.host.retry import WAIT_S, PatientHost, Say, silent
from autocompress.latency.model.fit import Sample, calibrated_model, cross_validate, summary
from autocompress.latency.model.operators import operators
from autocompress.latency.model.terms import terms_of
from autocompress.latency.source import patient_host
from autocompress.network.graph import trace
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite.graph import read_graph
from autocompress.specs import CalibratedModel, CalibratedRuntime, CrossValidation, DeviceProfile

_MOST_SPREAD = 0.05  # of two passes over a file
_MIXED = 3  # every so many whole networks come with every other layer quantized, too


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """One file of the designed set: a design in one dtype, or with float and quantized layers mixed."""

    design: str
    kind: str
    dtype: str
    model: bytes


def specimens(designs: Sequence[Design]) -> Iterator[Specimen]:
    """Every design in float32, and quantized by the builder of candidates: dynamic range where it has a layer,
    static int8."""
    for design in designs:
        for dtype, model in _variants(design):
            yield Specimen(design=design.name, kind=design.kind, dtype=dtype, model=model)


def _variants(design: Design) -> Iterator[tuple[str, bytes]]:
    model = design.model
    yield "float32", model
    graph = read_graph(model)
    shape = graph.tensors[0].shape
    sample = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    ranges = trace.activation_ranges(model, {0: sample}, chunk=1, threads=1)
    try:
        layers = layers_of(graph)
    except AutocompressError:  # a chain of operators without weights
        yield "int8", quantize_plainly(model, (), ranges)
        return
    eights = [8] * len(layers)
    yield "dynamic", make_template(model, layers, eights, "float32", None).patch.snapshot()
    yield "int8", make_template(model, layers, eights, "int8", ranges).patch.snapshot()
    if design.kind == "network" and int(design.name.rsplit("-", 1)[1]) % _MIXED == 0:
        mixed = [8 if position % 2 else 32 for position in range(len(layers))]
        yield "mixed-dynamic", make_template(model, layers, mixed, "float32", None).patch.snapshot()
        yield "mixed-int8", make_template(model, layers, mixed, "int8", ranges).patch.snapshot()


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a calibration found. `errors` (one a sample): predicted / measured - 1, its design left out of the fit."""

    model: CalibratedModel
    samples: tuple[Sample, ...]
    errors: tuple[float, ...]
    refused: tuple[str, ...]  # files that the runtime there does not run, and why
    wall_s: float

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the measured designs were designed for."""
        return tuple(dict.fromkeys(sorted(sample.kind for sample in self.samples)))

    def error_of(self, dtype: str, kind: str) -> CrossValidation | None:
        """The cross-validated errors of one kind of design in one dtype; None where none was measured."""
        return summary(self.samples, np.array(self.errors), dtype, kind)


def calibrate(
    profile: DeviceProfile,
    *,
    share: float = 1.0,
    on_progress: Callable[[int, int], None] | None = None,
    wait_s: float = WAIT_S,
    say: Say = silent,
) -> Calibration:
    """Measure the designed set on the profile's host, with its runtime and threads, and fit its latency model.

    `share`: measure only that much of each kind of design, for a rough model sooner. `on_progress` gets the files
    done and their number. A host that is away is waited for, at most `wait_s` seconds at a time; `say` gets a line each
    time. AutocompressError without a host; DeviceError where the host fails."""
    if profile.host is None:
        raise AutocompressError(f"device '{profile.name}' has no host to measure on; give --host local or another")
    if not 0 < share <= 1:
        raise AutocompressError(f"share {share:g} of the designed set is not in (0, 1]; 1 measures all of it")
    start = time.monotonic()
    files = list(specimens(designed_set(share)))
    with patient_host(profile, wait_s=wait_s, say=say) as patient:
        samples, refused = _Passes(patient, files, on_progress).run()
        host = patient.host
        runtime = CalibratedRuntime(
            name=host.runtime, version=host.runtime_version, threads=host.threads, os_bits=host.facts["os_bits"]
        )
    errors = cross_validate(samples)
    return Calibration(
        model=calibrated_model(samples, errors, runtime, datetime.date.today().isoformat()),
        samples=tuple(samples),
        errors=tuple(errors.tolist()),
        refused=tuple(refused),
        wall_s=time.monotonic() - start,
    )


class _Passes:
    """The measuring: every file in two passes, minutes apart, and those that disagree in three more."""

    def __init__(
        self, host: PatientHost, files: Sequence[Specimen], on_progress: Callable[[int, int], None] | None
    ) -> None:
        self._host, self._files, self._on_progress = host, files, on_progress
        self._medians: list[list[float]] = [[] for _ in files]
        self._refused: dict[int, str] = {}
        self._done, self._total = 0, 2 * len(files)

    def run(self) -> tuple[list[Sample], list[str]]:
        """A sample of each file, and what the device refuses."""
        for seed in range(2):
            self._measure(_shuffled(range(len(self._files)), seed))
        doubtful = [n for n, each in enumerate(self._medians) if each and max(each) > (1 + _MOST_SPREAD) * min(each)]
        self._total += 3 * len(doubtful)
        for seed in range(3):
            self._measure(_shuffled(doubtful, seed))
        samples = [_sample(self._files[n], float(np.median(each))) for n, each in enumerate(self._medians) if each]
        return samples, list(self._refused.values())

    def _measure(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            file = self._files[number]
            try:
                if number not in self._refused:
                    self._medians[number].append(self._host.measure(file.model, processes=1).known_latency_ms)
            except CandidateError as fault:
                self._refused[number] = f"{file.design} {file.dtype}: {fault}"
            self._done += 1
            if self._on_progress is not None:
                self._on_progress(self._done, self._total)


def _shuffled(numbers: Sequence[int], seed: int) -> list[int]:
    """In a fixed random order: what changes on the device meanwhile must not fall on one kind of operator."""
    return [int(number) for number in np.random.default_rng(seed).permutation(numbers)]


def _sample(file: Specimen, latency_ms: float) -> Sample:
    terms = terms_of(operators(file.model))
    return Sample(
        design=file.design,
        kind=file.kind,
        dtype=file.dtype,
        terms=terms.total,
        largest=terms.largest,
        latency_ms=latency_ms,
    )
