"""One configuration without a search: solved, built and read back as a candidate of a search is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate.calibration import CalibrationData
from autocompress.evaluate.candidate import Candidate
from autocompress.evaluate.networks import BaseNetwork
from autocompress.files import write_whole
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite.convert import to_float_tflite
from autocompress.network.tflite.graph import read_graph
from autocompress.records.configuration import ACTIVATIONS, TWO_OF_FOUR, Configuration, LayerChoice
from autocompress.session import cores, threads_of
from autocompress.specs import DeviceProfile, container_bits, load_device
from autocompress.tasks import LoadedTask, Task, loaded_task
from autocompress.tasks.task import Inputs

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A compressed network: the `.tflite` as bytes, its configuration, and the layers that stayed float because the
    device has no kernel for what was asked."""

    model: bytes
    configuration: Configuration
    float_layers: tuple[str, ...]
    download_bytes: int
    sha256: str

    @property
    def file_bytes(self) -> int:
        """The size of the file."""
        return len(self.model)

    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all."""
        write_whole(Path(path), self.model)
        return Path(path)


def compress(
    network: bytes | str | Path,
    calibration: Inputs,
    *,
    bits: int = 8,
    sparsity: float = 0.0,
    clusters: int | None = None,
    granularity: str = "element",
    activations: str = "float32",
    device: DeviceProfile | str = "local",
    seed: int = 0,
    threads: int | None = None,
) -> Compressed:
    """Compress all layers of a network alike: `sparsity`, at least this share of zeros in each; `bits` of weights;
    `clusters`, at most so many levels; `activations`: float32, int8, int16 or weight_only. `calibration`: some hundred
    inputs (n, ...), by name where there are several. AutocompressError for what cannot be built."""
    if activations not in ACTIVATIONS:
        raise AutocompressError(f"activations '{activations}' are not one of {', '.join(ACTIVATIONS)}; choose one")
    profile = load_device(device) if isinstance(device, str) else device
    choice = LayerChoice(sparsity=sparsity, granularity=granularity, bits=bits, clusters=clusters)
    task, count = _task(network, calibration), threads or cores()
    layers = layers_of(read_graph(task.network))
    container = partial(container_bits, profile.kernels)
    runs = {layer.name for layer in layers if container(layer.op, bits, activations) is not None}
    plain = replace(choice, granularity="element") if granularity == TWO_OF_FOUR else choice
    fitting = {layer.name: choice if layer.takes_two_of_four else plain for layer in layers}
    chosen = {name: each if name in runs else LayerChoice() for name, each in fitting.items()}
    configuration = Configuration(activations=activations, layers=chosen).normalised()
    data = CalibrationData(task, layers, seed=seed, threads=count)
    base = BaseNetwork(task.network, layers, lambda: data.inputs, container, count)
    try:
        with threads_of(count):
            model = base.builder.build(configuration, base.solve(configuration, "sequential"))
    except CandidateError as fault:
        raise AutocompressError(
            f"this configuration cannot be built: {fault}; choose other bits or activations"
        ) from fault
    made = Candidate(configuration=configuration, model=model, build_s=0.0)
    return Compressed(
        model=model,
        configuration=configuration,
        float_layers=tuple(name for name in chosen if name not in runs),
        download_bytes=made.download_bytes,
        sha256=made.sha256,
    )


def _task(network: bytes | str | Path, calibration: Inputs) -> LoadedTask:
    """The network and its inputs, checked as those of a task are; nothing is judged."""
    model = network if isinstance(network, bytes) else to_float_tflite(Path(network))
    made = Task(
        name="network",
        network=model,
        metric="fidelity",
        x_validation=calibration,
        x_test=calibration,
        x_calibration=calibration,
    )
    return loaded_task(made)
