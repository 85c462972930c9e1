"""What each criterion for channels is worth: accuracy on validation data, 25 % and 50 % of every group gone.

    python -m benchmarks.compress.channels [--task NAME] [--samples N]

Float networks, without training and with the reconstruction of the layers behind; `as they were`: channels cut out by
the squared norm of their weights, nothing fitted."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from autocompress.compression.channel_pruning import CRITERIA, order, prune_channels
from autocompress.compression.reconstruct import Reconstruction
from autocompress.network.graph.channels import Channels, prune
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import Runner
from autocompress.tasks import LoadedTask, load_task

Array = np.ndarray[Any, Any]


def accuracy(task: LoadedTask, network: bytes) -> float:
    """The metric on validation data."""
    (x,), y = task.x_validation.values(), task.y_validation
    assert y is not None
    return float(task.metric.value(Runner(network, 2).run(task.x_validation), y, x))


def kept_of(orders: Mapping[str, Array], share: float) -> dict[str, list[int]]:
    """The channels that stay when `share` of each group goes."""
    return {name: sorted(found[round(share * len(found)) :].tolist()) for name, found in orders.items()}


def main() -> None:
    """Print one line a criterion and share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="fashion-mnist")
    parser.add_argument("--samples", type=int, default=512)
    arguments = parser.parse_args()
    task = load_task(arguments.task)
    (index,) = Runner(task.network).input_indices.values()
    (inputs,) = task.x_calibration.values()
    tree = flatbuffer.read(task.network)
    channels, layers = Channels(graph_of(tree)), layers_of(graph_of(tree))
    solver = Reconstruction(tree, layers, {index: inputs[: arguments.samples]}, chunk=64, threads=2)
    macs = sum(layer.macs for layer in layers)
    print(f"{arguments.task}: float {accuracy(task, task.network):.4f}, {macs / 1e6:.2f} MMAC")
    for criterion in CRITERIA:
        start = time.perf_counter()
        orders = {group.name: order(channels, group, solver.floats, criterion) for group in channels.groups}
        ordered_s = time.perf_counter() - start
        for share in (0.25, 0.5):
            kept = kept_of(orders, share)
            start = time.perf_counter()
            made = prune_channels(solver, task.network, channels, kept)
            took_s = time.perf_counter() - start
            left = sum(layer.macs for layer in made.layers)
            plain = accuracy(task, prune(task.network, kept))
            print(
                f"{share:4.0%} gone by {criterion:12s}: {accuracy(task, made.network):.4f} (as they were {plain:.4f}), "
                f"{left / macs:.0%} of the MACs; ordered in {ordered_s:.2f} s, reconstructed in {took_s:.2f} s"
            )


if __name__ == "__main__":
    main()
