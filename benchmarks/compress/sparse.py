"""Sparse storage and sparse kernels: a network like MobileNetV1, dense and with 80 to 90 % of its 1x1 convolutions zero
in blocks of four outputs, stored sparse.

Prints sizes, the ratio of the latencies on `local` (measured in turn, with the processes of a reported front), and
whose kernels ran, by the runtime's profiler. Processors with AVX run no sparse kernels (XNNPACK takes its dense ones
for faster there); then the latencies say so, and `--without-avx QEMU` shows the kernels on a processor without AVX,
played by `qemu-x86_64-static` of the package qemu-user-static. Times under qemu are not printed: they mean nothing.
The network is built with tf_keras, not trained: neither size nor time depends on what the weights are.
Some minutes: `python -m benchmarks.compress.sparse`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.compression.download import download_bytes
from autocompress.compression.sparse_storage import with_sparse_weights
from autocompress.latency.host.client import Host, local_host
from autocompress.latency.source import steady
from autocompress.network.graph import xnnpack_sparse
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer, sparse
from autocompress.network.tflite.graph import graph_of, read_graph
from autocompress.network.tflite.interpreter import Runner
from benchmarks.goals import Goal, judge, print_run, print_table

BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
SPARSITIES = (0.8, 0.85, 0.9)
LEGAL = ("FLOAT32", "FLOAT16")
PROCESSES = 5
GIVES_UP_S = 600.0  # of a silent qemu on a busy machine


def network(side: int, width: float) -> bytes:
    """The float `.tflite`: padded by layers of its own, as XNNPACK's sparse path wants it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    import tf_keras as keras

    layers = keras.layers
    keras.utils.set_random_seed(0)

    def padded(h: Any, layer: Any) -> Any:
        return layers.ReLU(6.0)(layer(layers.ZeroPadding2D(((1, 1), (1, 1)))(h)))

    inputs = keras.Input((side, side, 3), batch_size=1)
    h = padded(inputs, layers.Conv2D(int(32 * width), 3, 2, "valid"))
    for channels, stride in BLOCKS:
        h = padded(h, layers.DepthwiseConv2D(3, stride, "valid"))
        h = layers.ReLU(6.0)(layers.Conv2D(int(channels * width), 1)(h))
    h = layers.GlobalAveragePooling2D(keepdims=True)(h)
    outputs = layers.Softmax()(layers.Dense(10)(layers.Flatten()(h)))
    return bytes(tf.lite.TFLiteConverter.from_keras_model(keras.Model(inputs, outputs)).convert())


def pruned(model: bytes, sparsity: float) -> bytes:
    """The network with this share of its 1x1 convolutions zero, the smallest blocks of outputs, and of the dense layer
    behind them: some versions of XNNPACK count that as well."""
    tree = flatbuffer.read(model)
    path = xnnpack_sparse.sparse_path(graph_of(tree))
    if not path.layers:
        raise SystemExit(f"XNNPACK's sparse path does not take this network: {path.reason}")
    for layer in layers_of(graph_of(tree)):
        weight = flatbuffer.constant(tree, layer.weight)
        if layer.name in (*path.layers, *path.dense) and weight is not None:
            block = sparse.block_of(layer.outputs)
            scores = (weight.reshape(-1, block, *weight.shape[1:]) ** 2).sum(axis=1)
            kept = np.repeat(scores > np.quantile(scores, sparsity), block, axis=0)
            flatbuffer.set_constant(tree, layer.weight, weight * kept)
    return flatbuffer.write(tree)


def kernels(host: Host, file: bytes) -> dict[str, str]:
    """The kernel of each layer by the runtime's profiler."""
    found = host.profile(file, deadline_s=GIVES_UP_S, min_run_s=0.0)
    if found.ops is None:
        raise SystemExit(f"no profile: {found.reason}")
    return {op.layer: op.kernel for op in found.ops if op.layer is not None}


def sparse_share(seen: dict[str, str], path: Sequence[str]) -> str:
    """How many of the path's layers ran a sparse kernel."""
    return f"{sum('SPMM' in seen.get(name, '') for name in path)} of {len(path)}"


def main() -> int:
    """Build, measure, print, judge; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--without-avx", metavar="QEMU", help="qemu-x86_64-static, to run the sparse kernels here")
    asked = parser.parse_args()
    print_run("Sparse storage and sparse kernels", ("ai-edge-litert",))
    model = network(asked.side, asked.width)
    found, path = layers_of(read_graph(model)), xnnpack_sparse.sparse_path(read_graph(model)).layers
    x = {Runner(model).inputs[0].name: np.random.default_rng(0).random((2, asked.side, asked.side, 3), np.float32)}
    rows, goals, files = [], [], []
    with local_host("ai-edge-litert", 1) as host:
        for sparsity in SPARSITIES:
            dense = pruned(model, sparsity)
            file = with_sparse_weights(dense, found, LEGAL, "download")
            files.append(file)
            measured = steady(host, file, model, asked.processes)
            same = bool(np.array_equal(Runner(file).run(x), Runner(dense).run(x)))
            download = download_bytes(file)
            rows.append(
                [
                    f"{sparsity:.0%}",
                    f"{len(file) / len(dense):.3f}",
                    f"{download / download_bytes(dense):.3f}",
                    f"{download / download_bytes(model):.3f}",
                    f"{measured.ratio_to_baseline or np.nan:.3f}",
                    sparse_share(kernels(host, file), path),
                    "yes" if same else "no",
                ]
            )
            smaller = download_bytes(file) < download_bytes(dense) and len(file) < len(dense)
            goals += [
                Goal(wanted=f"{sparsity:.0%}: outputs of the dense file", got=rows[-1][-1], met=same),
                Goal(wanted=f"{sparsity:.0%}: smaller file and download", got=", ".join(rows[-1][1:3]), met=smaller),
            ]
    heads = ["zeros", "file", "download", "download / float", "latency / float", "sparse kernels", "same outputs"]
    print_table("Stored sparse, against the same weights stored dense and the float network", heads, rows)
    if asked.without_avx is not None:
        goals += shown_without_avx(asked.without_avx, files, path)
    return judge(goals)


def shown_without_avx(qemu: str, files: Sequence[bytes], path: Sequence[str]) -> list[Goal]:
    """Which kernels run on a processor without AVX: the table of the first file, and a goal a file."""
    command, goals = [qemu, "-cpu", "Nehalem", sys.executable], []
    with Host(command, runtime="ai-edge-litert", threads=1, start_s=GIVES_UP_S, silence_s=GIVES_UP_S) as host:
        for sparsity, file in zip(SPARSITIES, files, strict=True):
            seen = kernels(host, file)
            if file is files[0]:
                print_table("On a processor without AVX", ["layer", "kernel"], [list(item) for item in seen.items()])
            got = sparse_share(seen, path)
            met = all("SPMM" in seen.get(name, "") for name in path)
            goals.append(Goal(wanted=f"{sparsity:.0%}: sparse kernels without AVX", got=got, met=met))
    return goals


if __name__ == "__main__":
    raise SystemExit(main())
