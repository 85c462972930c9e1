"""One candidate from configuration to evaluation: solve, build, verify, validate, measure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.compression.download import download_bytes
from autocompress.compression.reconstruct import Reconstruction, SolvedLayer
from autocompress.compression.sparse_storage import SparseStorage
from autocompress.compression.tables import Tables, build_tables, kept_tables, table_key
from autocompress.compression.template import Ranges, quantize_plainly
from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate.artifacts import ArtifactStore
from autocompress.evaluate.calibration import CalibrationData, of_float
from autocompress.evaluate.candidate import Candidate
from autocompress.evaluate.early_stopping import EarlyStopping, Never, Screened, Values
from autocompress.evaluate.layer_progress import LayerProgress
from autocompress.evaluate.networks import BaseNetwork, BaseNetworks, WidthEffects
from autocompress.evaluate.quality import Quality
from autocompress.evaluate.splits import DataSplits
from autocompress.evaluate.validation import Validator
from autocompress.latency.model.predict import energy_mj
from autocompress.latency.source import FRONT_PROCESSES, SEARCH_PROCESSES, CandidateLatency
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.graph.xnnpack_sparse import SparsePath, sparse_path
from autocompress.network.tflite.batching import Batch
from autocompress.network.tflite.graph import read_graph
from autocompress.records.configuration import STATIC_ACTIVATIONS, Configuration, LayerChoice
from autocompress.records.measurement import Measurement
from autocompress.records.study import Evaluation
from autocompress.specs import DeviceProfile, container_bits, is_unpacked, offered_kernels, sparse_containers
from autocompress.tasks import LoadedTask

Array = np.ndarray[Any, Any]
_log = logging.getLogger(__name__)


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
        graph = read_graph(self.network)
        found = {layer.name: graph.constant(layer.weight) for layer in self.layers}
        return {name: weight for name, weight in found.items() if weight is not None}


_BY_DEVICE = ("peak_memory_bytes", "flash_bytes", "ram_bytes")


class Evaluator:
    """Everything a study needs to turn configurations of one task into evaluations on one device.

    `tier`: "sequential" (reported candidates) or "independent" (screening). `artifacts` is where the files go, named by
    their sha256; evaluations name them relative to `runs`."""

    def __init__(
        self,
        task: LoadedTask,
        profile: DeviceProfile,
        latency: CandidateLatency,
        *,
        runs: Path,
        artifacts: Path,
        seed: int,
        threads: int,
        tier: str = "sequential",
        size: str = "download",
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """`pause` is called between the pieces of an evaluation, so that others may measure. `size`: which size of a
        file shall be small, "download" or "file"."""
        self._task, self._profile, self._latency, self._pause = task, profile, latency, pause
        self._tables, self._seed, self._tier, self._threads = runs / "tables", seed, tier, threads
        self._artifacts = ArtifactStore(artifacts, runs)
        self.layers = layers_of(read_graph(task.network))
        self._kernels = offered_kernels(profile, modelled=profile.host is None)
        self.storage = SparseStorage(sparse=partial(sparse_containers, profile.kernels), size=size)
        self._calibration = CalibrationData(task, self.layers, seed=seed, threads=threads)
        self._splits = DataSplits(task, self._calibration, seed=seed, threads=threads)
        common = (lambda: self._calibration.inputs, self._container, threads)
        unpacks = partial(is_unpacked, self._kernels)
        whole = BaseNetwork(task.network, self.layers, *common, storage=self.storage, unpacks=unpacks)
        self.base_networks = BaseNetworks(whole, *common, storage=self.storage, unpacks=unpacks)

    def _container(self, op: str, bits: int, activations: str) -> int | None:
        return container_bits(self._kernels, op, bits, activations)

    @property
    def batch(self) -> Batch:
        """How many samples the network and its candidates run at once. AutocompressError where it cannot be run."""
        return self._calibration.batch

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found about the calibration data, for people to read."""
        return self._calibration.notes

    def check_splits(self) -> None:
        """AutocompressError where the float network cannot work with a split."""
        self._splits.check()

    @property
    def measures(self) -> bool:
        """Whether latencies are measured on the device."""
        return self._profile.host is not None

    @cached_property
    def sparse_path(self) -> SparsePath:
        """What XNNPACK's sparse kernels could run of the network."""
        return sparse_path(read_graph(self._task.network))

    @property
    def reconstruction(self) -> Reconstruction:
        """The solver on the whole network's calibration inputs."""
        return self.base_networks.whole.reconstruction

    @cached_property
    def _validator(self) -> Validator:
        return Validator(self._splits.validation, self._seed)

    def float_configuration(self) -> Configuration:
        """All layers as they came."""
        return Configuration(layers={layer.name: LayerChoice() for layer in self.layers})

    @cached_property
    def baseline(self) -> Evaluation:
        """The float network, its file as given."""
        float_file = Candidate(configuration=self.float_configuration(), model=self._task.original, build_s=0.0)
        try:
            quality = self._splits.validation.baseline()
            return self._evaluation(float_file, quality, self._baseline_latency(float_file.model))
        except CandidateError as fault:
            raise AutocompressError(
                f"the float network cannot be evaluated on '{self._profile.name}': {fault}"
            ) from fault

    def _baseline_latency(self, float_file: bytes) -> Measurement:
        """The float network's latency; plain int8's on a device whose compiler takes no float."""
        if self._profile.compiler is None:
            return self._latency.measure(float_file, FRONT_PROCESSES)
        return replace(self._latency.measure(self._plain_int8(), FRONT_PROCESSES), of="plain int8")

    def build(self, configuration: Configuration) -> Candidate:
        """The verified file of a (normalised) configuration. CandidateError where it cannot be built."""
        start = time.perf_counter()
        base_network = self.base_networks.of(configuration.channels)
        solved = base_network.solve(configuration, self._tier)
        self._pause()
        model = base_network.builder.build(configuration, solved)
        return Candidate(configuration=configuration, model=model, build_s=time.perf_counter() - start)

    def evaluate(self, configuration: Configuration, stopping: EarlyStopping | None = None) -> tuple[Evaluation, float]:
        """The evaluation of a (normalised) configuration, and the mean divergence of its outputs from the float
        network's on validation data; CandidateError where it cannot be built or run.

        `stopping` is told the values that are known before the metric is, the latency at its best by the device's
        model; where it gives a threshold and the candidate is surely below it: StoppedEarly. It is told all values
        before a latency is measured: Screened where it gives a reason."""
        if configuration.is_baseline:
            return self.baseline, 0.0
        candidate, stopping = self.build(configuration), stopping or Never()
        measurement = self._latency.known(candidate.model)
        expected = None if measurement is not None else self._latency.expected(candidate.model)
        before = self._before(candidate, measurement, expected)
        threshold = stopping.threshold(before)
        self._pause()
        outputs = self._validator.outputs(candidate.model, threshold)
        self._pause()
        apart, quality = self._validator.divergence(outputs), self._splits.validation.quality_of(outputs)
        if measurement is None:
            reason = None if before["latency_ms"] is None else stopping.screen({**before, "accuracy": quality.value})
            if reason is not None and expected is not None:
                raise _screened(candidate, reason, expected, quality, apart, len(outputs))
            measurement = self._latency.measure(candidate.model, SEARCH_PROCESSES)
        evaluation = self._evaluation(candidate, quality, measurement)
        self._validator.remember(evaluation.sha256, outputs)
        return evaluation, apart

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
        candidate = Candidate(configuration=configuration, model=model, build_s=time.perf_counter() - start)
        quality = self._splits.validation.quality(model)
        measurement = self._latency.measure(model, SEARCH_PROCESSES)
        return replace(self._evaluation(candidate, quality, measurement), finetuned=True)

    def _before(self, candidate: Candidate, measurement: Measurement | None, expected: Measurement | None) -> Values:
        """What is known of a candidate before its metric, by the names of an evaluation's values; of a latency that
        is not known the best that the device's model leaves open."""
        latency = _at_best(expected) if measurement is None else measurement.latency_ms
        return {
            "latency_ms": latency,
            "energy_mj": None if latency is None else energy_mj(latency, self._profile),
            "file_bytes": float(candidate.file_bytes),
            "download_bytes": float(candidate.download_bytes),
            **{name: None if measurement is None else getattr(measurement, name) for name in _BY_DEVICE},
        }

    def validation_scores(self, evaluation: Evaluation) -> Array | None:
        """The metric of each validation sample of a stored candidate; None where the metric has none. Runs its file
        where this process has not evaluated it."""
        return self._validator.scores(evaluation.sha256, lambda: self._artifacts.read(evaluation))

    def _evaluation(self, candidate: Candidate, quality: Quality, measurement: Measurement) -> Evaluation:
        return Evaluation(
            configuration=candidate.configuration,
            accuracy=quality.value,
            accuracy_ci=quality.interval,
            accuracy_delta_ci=quality.delta_interval,
            measurement=measurement.thinned(),
            file_bytes=candidate.file_bytes,
            download_bytes=candidate.download_bytes,
            sha256=candidate.sha256,
            artifact=self._artifacts.store(candidate),
            energy_mj=None if measurement.latency_ms is None else energy_mj(measurement.latency_ms, self._profile),
            build_s=candidate.build_s,
        )

    def remeasured(self, evaluation: Evaluation) -> Measurement:
        """The latency of a stored candidate again, as carefully as the reported front asks for."""
        return self._latency.measure(self._artifacts.read(evaluation), FRONT_PROCESSES).thinned()

    def test_quality(self, evaluation: Evaluation) -> Quality:
        """The metric of a stored candidate on the test split."""
        return self._splits.test.quality(self._artifacts.read(evaluation))

    def tables(self, choices: Mapping[str, Sequence[LayerChoice]]) -> tuple[Tables, str | None]:
        """The layer tables of these choices, shared by all studies below `runs`; and a note where a kept file of them
        could not be used."""
        inputs, _ = self._calibration.inputs
        sparse = self.storage.sparse("float32")
        signature = self._task.signature
        key = table_key(self._task.network_sha256, {str(i): v for i, v in inputs.items()}, choices, sparse, signature)

        def build() -> Tables:
            count = sum(map(len, choices.values()))
            _log.info("solving %d choices of %d layers for the layer tables, once", count, len(choices))
            progress = LayerProgress("layer tables", len(choices), _log.info)
            samples, large = self._calibration.probe_samples, self._calibration.large

            def after_layer() -> None:
                progress.step()
                self._pause()

            return build_tables(
                self.reconstruction,
                choices,
                samples,
                sparse,
                signature,
                large=large,
                after_layer=after_layer,
                processes=self._threads,
            )

        return kept_tables(self._tables, key, build)

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
        return self.base_networks.width_effects(self._calibration.probe_runner(), self._task.signature)

    def modelled_latency(self, model: bytes) -> float | None:
        """The latency of a file by the device's model; None where it has none or that says nothing of this file."""
        try:
            expected = self._latency.expected(model)
        except CandidateError:  # a compiler that refuses it says nothing of its latency
            return None
        return None if expected is None else expected.latency_ms

    @property
    def float_network(self) -> bytes:
        """The float `.tflite` as given."""
        return self._task.original

    def container(self, layer: Layer, bits: int, activations: str) -> int | None:
        """The container that weights of these bits are stored in; None: there is no kernel for it."""
        return self._container(layer.op, bits, activations)

    def plain_int8_download_bytes(self) -> int | None:
        """The download size of ai-edge-quantizer's own static int8 file; None where it cannot make one."""
        try:
            return download_bytes(self._plain_int8())
        except CandidateError:
            return None

    def _plain_int8(self) -> bytes:
        ranges = of_float(lambda: self.base_networks.whole.ranges)
        return quantize_plainly(self._task.network, self.layers, ranges)


def _at_best(expected: Measurement | None) -> float | None:
    """The least latency that a prediction and its error leave open; None where nothing can be said."""
    if expected is None or expected.latency_ms is None or expected.extrapolated or expected.latency_error is None:
        return None
    return expected.latency_ms / (1.0 + expected.latency_error)


def _screened(
    candidate: Candidate, reason: str, expected: Measurement, quality: Quality, apart: float, samples: int
) -> Screened:
    return Screened(
        reason,
        samples=samples,
        accuracy=quality.value,
        divergence=apart,
        latency_ms=expected.known_latency_ms,
        file_bytes=candidate.file_bytes,
        download_bytes=candidate.download_bytes,
    )
