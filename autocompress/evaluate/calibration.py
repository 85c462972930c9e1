"""Calibration data of a task: how many samples run at once, which of them can be used, and those that probes run on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from autocompress.errors import AutocompressError, CandidateError
from autocompress.network.graph.finite import unfit
from autocompress.network.graph.layers import Layer
from autocompress.network.tflite.batching import WANTED, Batch, affordable_batch, proven_batch
from autocompress.network.tflite.interpreter import Runner
from autocompress.network.tflite.isolated import Isolated, in_child
from autocompress.tasks import LoadedTask

Array = np.ndarray[Any, Any]
T = TypeVar("T")
_SAMPLES = 512
_BYTES = 256 * 2**20  # of the widest layer inputs held at once
_FEWEST_PROBED = 32
_PROBE_MACS = 2e9  # of all samples that a probe of the layer tables runs
_PROOF_MACS = 1e9  # of all samples that the slow kernels run to prove a batch


class CalibrationData:
    """The calibration inputs of a task, drawn by `seed`, on which its float network has run."""

    def __init__(self, task: LoadedTask, layers: Sequence[Layer], *, seed: int, threads: int) -> None:
        self._task, self._layers, self._seed, self._threads = task, tuple(layers), seed, threads
        self._left_out = 0

    @property
    def batch(self) -> Batch:
        """How many samples the network and its candidates run at once. AutocompressError where it cannot be run."""
        return self._batch_and_size[0]

    @property
    def large(self) -> bool:
        """Whether inner tensors are so large that fewer samples run at once than otherwise."""
        return self._batch_and_size[1]

    @cached_property
    def _batch_and_size(self) -> tuple[Batch, bool]:
        return of_float(lambda: in_child(self._proven_batch))

    def _proven_batch(self) -> tuple[Batch, bool]:
        wanted, slow = affordable_batch(self._task.network), max(1, int(_PROOF_MACS / max(1, self._macs)))
        # Only where a full batch is affordable are tensors read from the built-in kernels.
        proven = proven_batch(self._task.network, self._differing, wanted, slow if wanted == WANTED else 0)
        return proven, wanted < WANTED

    @property
    def _macs(self) -> int:
        return sum(layer.macs for layer in self._layers)

    @property
    def _differing(self) -> dict[str, Array]:
        """Inputs on which samples that get mixed are seen."""
        both = (self._task.x_calibration, self._task.x_validation)
        return {name: np.concatenate([x[name][:WANTED] for x in both]) for name in both[0]}

    @cached_property
    def inputs(self) -> tuple[dict[int, Array], int]:
        """Calibration inputs by tensor index, and how many samples run at once."""
        runner = Runner(self._task.network, self._threads, self._task.signature)
        widest = max(int(np.prod(layer.input_shape)) for layer in self._layers) * 4
        available = len(next(iter(self._task.x_calibration.values())))
        samples = min(available, _SAMPLES, max(32, _BYTES // (2 * widest)))
        chunk = self.batch.of(samples)
        order = self._usable(runner, np.random.default_rng(self._seed).permutation(available), samples, chunk)
        samples = min(samples, len(order))
        # Fewer samples than a network's fixed batch are repeated.
        chosen = np.sort(np.resize(order, max(1, samples // chunk) * chunk))
        return {i: self._task.x_calibration[name][chosen] for name, i in runner.input_indices.items()}, chunk

    def _usable(self, runner: Runner, order: Array, wanted: int, chunk: int) -> Array:
        """The calibration samples in this order without those that the float network cannot work with, as far as its
        first `wanted` hold. AutocompressError where it works with none."""
        inner, looked = {layer.input for layer in self._layers}, 0
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
        """What was found about the data, for people to read."""
        _ = self.inputs
        said = f"{self._left_out} of the calibration samples looked at are left out: the float network makes NaN, "
        return (f"{said}infinities or nothing of them",) if self._left_out else ()

    @property
    def probe_samples(self) -> int:
        """How many samples the network's probes run on: fewer where a sample costs much."""
        inputs, chunk = self.inputs
        affordable = int(_PROBE_MACS / max(1, self._macs))
        return min(len(next(iter(inputs.values()))), max(2 * chunk, _FEWEST_PROBED, min(256, affordable)))

    def probe_runner(self) -> Callable[[bytes], Array]:
        """Runs a network on the inputs of probes."""
        (inputs, chunk), samples = self.inputs, self.probe_samples
        names = {index: name for name, index in Runner(self._task.network, 1).input_indices.items()}
        x = {names[index]: values[:samples] for index, values in inputs.items()}
        threads, signature = self._threads, self._task.signature
        return Isolated(lambda model: Runner(model, threads, signature).run(x, chunk))


def of_float(work: Callable[[], T]) -> T:
    """What `work` finds of the float network: its fault is the user's."""
    try:
        return work()
    except CandidateError as fault:
        raise AutocompressError(f"the float network cannot be run: {fault}") from fault
