"""One candidate from configuration to evaluation: solve, build, verify, judge, measure."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from autocompress.compress.download import download_bytes
from autocompress.compress.reconstruct import Reconstruction, SolvedLayer
from autocompress.compress.sparse_storage import SparseStorage
from autocompress.compress.tables import Tables, build_tables, kept_tables, table_key
from autocompress.compress.template import Ranges, quantize_plainly
from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate.early_stopping import Screened, StoppingThreshold
from autocompress.evaluate.networks import BaseNetwork, BaseNetworks, WidthEffects
from autocompress.evaluate.quality import Quality, Split
from autocompress.evaluate.validation import Validator
from autocompress.files import unchanged, write_whole
from autocompress.measure.model.predict import energy_mj
from autocompress.network.graph.finite import first_refused, not_finite, unfit
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.graph.xnnpack_sparse import SparsePath, sparse_path
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.batching import WANTED, Batch, proven_batch
from autocompress.network.tflite.interpreter import Runner
from autocompress.network.tflite.isolated import Isolated, in_child
from autocompress.records.configuration import STATIC_ACTIVATIONS, Configuration, LayerChoice
from autocompress.records.measurement import Measurement
from autocompress.records.study import Evaluation
from autocompress.specs import DeviceProfile, container_bits, is_unpacked, offered_kernels, sparse_containers
from autocompress.tasks import LoadedTask

Array = np.ndarray[Any, Any]
T = TypeVar("T")
Latency = Callable[[bytes, int], Measurement]  # (file, processes) -> what it takes on the device
Known = Callable[[bytes], Measurement | None]
Screen = Callable[[Mapping[str, float | None]], str | None]  # values, the latency at its best -> why they are hopeless
ThresholdOf = Callable[
    [Mapping[str, float | None]], StoppingThreshold | None
]  # values known before the metric -> what it must reach
_CALIBRATION_SAMPLES = 512
_CALIBRATION_BYTES = 256 * 2**20  # of the widest layer inputs held at once
_PROBE_MACS = 2e9  # of all samples that a probe of the layer tables runs
_PROOF_MACS = 1e9  # of all samples that the slow kernels run to prove a batch
SEARCH_PROCESSES, FRONT_PROCESSES = 3, 5


@dataclass(frozen=True, kw_only=True)
class Material:
    """A candidate as training takes it: the float `network` it is made of, perhaps with fewer channels than the whole
    one, the `teacher`; its layers as the solver left them, and the `ranges` of static activations (None: float
    ones)."""

    network: bytes
    teacher: bytes
    layers: tuple[Layer, ...]
    solved: tuple[SolvedLayer, ...]
    ranges: Ranges | None

    @property
    def float_weights(self) -> dict[str, Array]:
        """The weights of `network`, by layer."""
        tree = flatbuffer.read(self.network)
        found = {layer.name: flatbuffer.constant(tree, layer.weight) for layer in self.layers}
        return {name: weight for name, weight in found.items() if weight is not None}


class Evaluator:
    """Everything a study needs to turn configurations of one task into evaluations on one device.

    `tier`: "sequential" (reported candidates) or "independent" (screening). `artifacts` is where the files go, named by
    their sha256; evaluations name them relative to `runs`."""

    def __init__(
        self,
        task: LoadedTask,
        profile: DeviceProfile,
        latency: Latency,
        *,
        runs: Path,
        artifacts: Path,
        seed: int,
        threads: int,
        tier: str = "sequential",
        size: str = "download",
        pause: Callable[[], None] = lambda: None,
        known: Known = lambda _: None,
        expected: Known | None = None,
    ) -> None:
        """`pause` is called between the pieces of an evaluation, so that others may measure. `known`: a latency that
        costs nothing, modelled or measured before; `expected`: what a model of the device says, None: there is none.
        `size`: which size of a file shall be small, "download" or "file"."""
        self._pause, self._known, self._expected = pause, known, expected
        self._task, self._profile, self._latency = task, profile, latency
        self._runs, self._artifacts, self._seed, self._threads, self._tier = runs, artifacts, seed, threads, tier
        self.layers, self._left_out = layers_of(flatbuffer.read(task.network)), 0
        self._kernels = offered_kernels(profile, modelled=profile.host is None)
        self.storage = SparseStorage(sparse=partial(sparse_containers, profile.kernels), size=size)
        common = (lambda: self._calibration, self._container, threads)
        unpacks = partial(is_unpacked, self._kernels)
        whole = BaseNetwork(task.network, self.layers, *common, storage=self.storage, unpacks=unpacks)
        self.base_networks = BaseNetworks(whole, *common, storage=self.storage, unpacks=unpacks)

    def _container(self, op: str, bits: int, activations: str) -> int | None:
        return container_bits(self._kernels, op, bits, activations)

    @cached_property
    def batch(self) -> Batch:
        """How many samples the network and its candidates run at once. AutocompressError where it cannot be run."""
        slow = int(_PROOF_MACS / max(1, sum(layer.macs for layer in self.layers)))
        return _of_float(lambda: in_child(lambda: proven_batch(self._task.network, self._differing, WANTED, slow)))

    @property
    def _differing(self) -> dict[str, Array]:
        """Inputs on which samples that get mixed are seen."""
        both = (self._task.x_calibration, self._task.x_validation)
        return {name: np.concatenate([x[name][:WANTED] for x in both]) for name in both[0]}

    @cached_property
    def _calibration(self) -> tuple[dict[int, Array], int]:
        """Calibration inputs by tensor index, and how many samples run at once."""
        runner = Runner(self._task.network, self._threads, self._task.signature)
        widest = max(int(np.prod(layer.input_shape)) for layer in self.layers) * 4
        available = len(next(iter(self._task.x_calibration.values())))
        samples = min(available, _CALIBRATION_SAMPLES, max(32, _CALIBRATION_BYTES // (2 * widest)))
        chunk = self.batch.of(samples)
        order = self._usable(runner, np.random.default_rng(self._seed).permutation(available), samples, chunk)
        samples = min(samples, len(order))
        # Fewer samples than a network's fixed batch are repeated.
        chosen = np.sort(np.resize(order, max(1, samples // chunk) * chunk))
        return {i: self._task.x_calibration[name][chosen] for name, i in runner.input_indices.items()}, chunk

    def _usable(self, runner: Runner, order: Array, wanted: int, chunk: int) -> Array:
        """The calibration samples in this order without those that the float network cannot work with, as far as its
        first `wanted` hold. AutocompressError where it works with none."""
        inner, looked = {layer.input for layer in self.layers}, 0
        while looked < min(wanted, len(order)):
            new = order[looked:wanted]
            x = {i: self._task.x_calibration[name][new] for name, i in runner.input_indices.items()}
            bad = unfit(self._task.network, inner, x, chunk, self._threads)
            self._left_out += int(bad.sum())
            order = np.concatenate([order[:looked], new[~bad], order[wanted:]])
            looked += int((~bad).sum())
        if not len(order):
            raise AutocompressError(
                "the float network gives NaN, infinities or nothing for every calibration sample; prepare the inputs "
                "as for training"
            )
        return order

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found about the calibration data."""
        _ = self._calibration
        said = f"{self._left_out} of the calibration samples looked at are left out: the float network makes NaN, "
        return (f"{said}infinities or nothing of them",) if self._left_out else ()

    def check_splits(self) -> None:
        """AutocompressError where the float network cannot work with a split; its outputs are kept for later."""
        _ = self._calibration, self._validation, self._test

    @property
    def measures(self) -> bool:
        """Whether latencies are measured on the device."""
        return self._profile.host is not None

    @cached_property
    def sparse_path(self) -> SparsePath:
        """What XNNPACK's sparse kernels could run of the network."""
        return sparse_path(flatbuffer.read(self._task.network))

    @property
    def reconstruction(self) -> Reconstruction:
        """The solver on the whole network's calibration inputs."""
        return self.base_networks.whole.reconstruction

    @cached_property
    def _validation(self) -> Split:
        return self._split("x_validation", self._task.x_validation, self._task.y_validation)

    @cached_property
    def _test(self) -> Split:
        return self._split("x_test", self._task.x_test, self._task.y_test)

    def _split(self, name: str, x: Mapping[str, Array], y: Array | None) -> Split:
        """A split; AutocompressError, naming the first bad sample, where the float network cannot work with it."""
        task, threads, seed = self._task, self._threads, self._seed
        try:
            split = Split(
                x, y, task.metric, task.network, threads=threads, seed=seed, batch=self.batch, signature=task.signature
            )
        except CandidateError as fault:
            if (at := first_refused(task.network, x)) is None:
                raise
            raise AutocompressError(
                f"{name}: the float network cannot run sample {at}: {fault}; mend or remove it"
            ) from fault
        bad = np.flatnonzero(not_finite(split.baseline_outputs))
        if len(bad):
            raise AutocompressError(
                f"{name}: the float network's outputs hold NaN or infinities for {len(bad)} of "
                f"{len(split.baseline_outputs)} samples, the first of them sample {bad[0]}; mend or remove them"
            )
        return split

    @cached_property
    def _validator(self) -> Validator:
        return Validator(self._validation, self._seed)

    def float_configuration(self) -> Configuration:
        """All layers as they came."""
        return Configuration(layers={layer.name: LayerChoice() for layer in self.layers})

    @cached_property
    def baseline(self) -> Evaluation:
        """The float network, its file as given."""
        try:
            quality, model = self._validation.baseline(), self._task.original
            measurement, download = self._latency(model, FRONT_PROCESSES), download_bytes(model)
            return self._evaluation(self.float_configuration(), model, download, quality, measurement, 0.0)
        except CandidateError as fault:
            raise AutocompressError(
                f"the float network cannot be evaluated on '{self._profile.name}': {fault}"
            ) from fault

    def evaluate(
        self, configuration: Configuration, threshold_of: ThresholdOf | None = None, screen: Screen | None = None
    ) -> tuple[Evaluation, float]:
        """The evaluation of a (normalised) configuration, and the mean divergence of its outputs from the float
        network's on validation data; CandidateError where it cannot be built or run.

        `bar_of` is told the values that are known before the metric is, the latency at its best by the device's model;
        where it gives a bar and the candidate is surely below it: StoppedEarly. `screen` is told all values before a
        latency is measured: Screened where it gives a reason."""
        if configuration.is_baseline:
            return self.baseline, 0.0
        start = time.perf_counter()
        base_network = self.base_networks.of(configuration.channels)
        solved = base_network.solve(configuration, self._tier)
        self._pause()
        model = base_network.builder.build(configuration, solved)
        build_s = time.perf_counter() - start
        measurement, download = self._known(model), download_bytes(model)
        expected = None if measurement is not None or self._expected is None else self._expected(model)
        before = self._before(model, download, measurement, expected)
        threshold = None if threshold_of is None else threshold_of(before)
        self._pause()
        outputs = self._validator.outputs(model, threshold)
        self._pause()
        apart = self._validator.divergence(outputs)
        quality = self._validation.judged(outputs)
        if measurement is None:
            if screen is not None and expected is not None:
                self._screen(model, {**before, "accuracy": quality.value}, apart, len(outputs), screen, expected)
            measurement = self._latency(model, SEARCH_PROCESSES)
        evaluation = self._evaluation(configuration, model, download, quality, measurement, build_s)
        self._validator.remember(evaluation.sha256, outputs)
        return evaluation, apart

    def _screen(
        self,
        model: bytes,
        values: Mapping[str, float | None],
        apart: float,
        samples: int,
        screen: Screen,
        expected: Measurement,
    ) -> None:
        reason = None if values["latency_ms"] is None else screen(values)
        if reason is not None:
            raise Screened(
                reason,
                samples=samples,
                accuracy=float(values["accuracy"] or 0.0),
                divergence=apart,
                latency_ms=expected.latency_ms,
                file_bytes=len(model),
                download_bytes=int(values["download_bytes"] or 0),
            )

    def material(self, configuration: Configuration) -> Material:
        """What training a configuration on starts from: the solver's layers, not trained ones. CandidateError where the
        solver cannot."""
        base_network, static = (
            self.base_networks.of(configuration.channels),
            configuration.activations in STATIC_ACTIVATIONS,
        )
        return Material(
            network=base_network.network,
            teacher=self.base_networks.whole.network,
            layers=base_network.layers,
            solved=tuple(base_network.solve(configuration, self._tier)),
            ranges=base_network.ranges if static else None,
        )

    def evaluate_trained(self, configuration: Configuration, solved: Sequence[SolvedLayer]) -> Evaluation:
        """The evaluation of a configuration whose layers were trained: built, verified and measured as any other."""
        start = time.perf_counter()
        model = self.base_networks.of(configuration.channels).builder.build(configuration, solved)
        build_s = time.perf_counter() - start
        quality, measurement = self._validation.quality(model), self._latency(model, SEARCH_PROCESSES)
        found = self._evaluation(configuration, model, download_bytes(model), quality, measurement, build_s)
        return replace(found, finetuned=True)

    def _before(
        self, model: bytes, download: int, measurement: Measurement | None, expected: Measurement | None
    ) -> Mapping[str, float | None]:
        """What is known of a candidate before its metric, by the names of an evaluation's values; of a latency that
        is not known the best that the device's model leaves open."""
        latency = _at_best(expected) if measurement is None else measurement.latency_ms
        energy = None if latency is None else energy_mj(latency, self._profile)
        return {
            "latency_ms": latency,
            "energy_mj": energy,
            "file_bytes": float(len(model)),
            "download_bytes": float(download),
            "peak_memory_bytes": None if measurement is None else measurement.peak_memory_bytes,
        }

    def validation_scores(self, evaluation: Evaluation) -> Array | None:
        """The metric of each validation sample of a stored candidate; None where the metric has none. Runs its file
        where this process has not evaluated it."""
        return self._validator.scores(evaluation.sha256, lambda: self._file(evaluation))

    def _evaluation(
        self,
        configuration: Configuration,
        model: bytes,
        download: int,
        quality: Quality,
        measurement: Measurement,
        build_s: float,
    ) -> Evaluation:
        sha256, artifact = store(model, self._artifacts)
        return Evaluation(
            configuration=configuration,
            accuracy=quality.value,
            accuracy_ci=quality.interval,
            accuracy_delta_ci=quality.delta_interval,
            measurement=measurement.thinned(),
            file_bytes=len(model),
            download_bytes=download,
            sha256=sha256,
            artifact=os.path.relpath(artifact, self._runs),
            energy_mj=energy_mj(measurement.latency_ms, self._profile),
            build_s=build_s,
        )

    def remeasured(self, evaluation: Evaluation) -> Measurement:
        """The latency of a stored candidate again, as carefully as the reported front asks for."""
        return self._latency(self._file(evaluation), FRONT_PROCESSES).thinned()

    def test_quality(self, evaluation: Evaluation) -> Quality:
        """The metric of a stored candidate on the test split."""
        return self._test.quality(self._file(evaluation))

    def _file(self, evaluation: Evaluation) -> bytes:
        path = self._runs / evaluation.artifact
        content = unchanged(path, evaluation.sha256)
        if content is None:
            raise AutocompressError(f"the file of a candidate is missing or changed: {path}; start a new study")
        return content

    def tables(self, choices: Mapping[str, Sequence[LayerChoice]]) -> tuple[Tables, str | None]:
        """The layer tables of these choices, shared by all studies below `runs`; and a note where a kept file of them
        could not be used."""
        inputs, _ = self._calibration
        sparse = self.storage.sparse("float32")
        signature = self._task.signature
        key = table_key(self._task.network_sha256, {str(i): v for i, v in inputs.items()}, choices, sparse, signature)
        return kept_tables(
            self._runs / "tables",
            key,
            lambda: build_tables(self.reconstruction, choices, self._probe_samples(), sparse, signature),
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What static activations needed to run, as far as is known by now, for people to read."""
        why = "next to nothing comes out of it on calibration data: its int8 scale was widened to what runtimes take"
        dead = tuple(f"{name}: {why}" for name in sorted(self.base_networks.widened))
        endless = self.base_networks.whole.unbounded
        if not endless:
            return dead
        names = ", ".join(endless[:3]) + (", ..." if len(endless) > 3 else "")
        return (*dead, f"not finite on calibration data: {names}; what makes or reads them runs on float activations")

    def width_effects(self) -> WidthEffects | None:
        """What the widths that the space offers do to the network; None where all channels stay."""
        return self.base_networks.width_effects(self._probe_runner(), self._task.signature)

    def modelled_latency(self, model: bytes) -> float | None:
        """The latency of a file by the device's model; None where it has none or that says nothing of this file."""
        expected = None if self._expected is None else self._expected(model)
        return None if expected is None else expected.latency_ms

    @property
    def float_network(self) -> bytes:
        """The float `.tflite` as given."""
        return self._task.original

    def container(self, layer: Layer, bits: int, activations: str) -> int | None:
        """The container that weights of these bits are stored in; None: there is no kernel for it."""
        return self._container(layer.op, bits, activations)

    def _probe_samples(self) -> int:
        """How many calibration samples the network's probes run on: fewer where a sample costs much."""
        inputs, chunk = self._calibration
        affordable = int(_PROBE_MACS / max(1, sum(layer.macs for layer in self.layers)))
        return min(len(next(iter(inputs.values()))), max(2 * chunk, min(256, affordable)))

    def _probe_runner(self) -> Callable[[bytes], Array]:
        """Runs a network on the calibration inputs of probes."""
        (inputs, _), samples = self._calibration, self._probe_samples()
        names = {index: name for name, index in Runner(self._task.network, 1).input_indices.items()}
        x = {names[index]: values[:samples] for index, values in inputs.items()}
        chunk, threads, signature = self._calibration[1], self._threads, self._task.signature
        return Isolated(lambda model: Runner(model, threads, signature).run(x, chunk))

    def plain_int8_download_bytes(self) -> int | None:
        """The download size of ai-edge-quantizer's own static int8 file; None where it cannot make one."""
        ranges = _of_float(lambda: self.base_networks.whole.ranges)
        try:
            return download_bytes(quantize_plainly(self._task.network, self.layers, ranges))
        except CandidateError:
            return None


def _of_float(work: Callable[[], T]) -> T:
    """What `work` finds of the float network: its fault is the user's."""
    try:
        return work()
    except CandidateError as fault:
        raise AutocompressError(f"the float network cannot be run: {fault}") from fault


def _at_best(expected: Measurement | None) -> float | None:
    """The least latency that a prediction and its error leave open; None where nothing can be said."""
    if expected is None or expected.extrapolated or expected.latency_error is None:
        return None
    return expected.latency_ms / (1.0 + expected.latency_error)


def store(model: bytes, folder: Path) -> tuple[str, Path]:
    """Write a file under its sha256, if it is not there yet."""
    sha256 = hashlib.sha256(model).hexdigest()
    path = folder / f"{sha256}.tflite"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, model)
    return sha256, path
