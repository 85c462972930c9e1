"""What each operator of a file takes on the device, as far as the runtime's profiler tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autocompress.network.tflite.graph import Operator, read_graph
from autocompress.records.measurement import OpProfile, OpTime

PROFILED_RUNTIME = "ai-edge-litert"
# How the kernels of XNNPACK that do a layer's work are called: a 1x1 convolution runs as a fully connected layer.
_KERNELS = {
    "CONV_2D": ("Convolution", "Fully Connected"),
    "DEPTHWISE_CONV_2D": ("Convolution",),
    "FULLY_CONNECTED": ("Fully Connected",),
    "TRANSPOSE_CONV": ("Deconvolution",),
}
_LAYER_KERNELS = ("Convolution", "Fully Connected", "Deconvolution")


def profile_of(answer: Mapping[str, Any], model: bytes) -> OpProfile:
    """What the agent found, with the layers of `model` that the operators belong to."""
    ops = tuple(
        OpTime(
            kernel=op["kernel"],
            kind=op["kind"],
            index=op["index"],
            partition=None if op["partition"] < 0 else op["partition"],
            median_us=op["median_us"],
            mean_us=op["mean_us"],
        )
        for op in answer["ops"]
    )
    mapped, reason = with_layers(ops, model)
    return OpProfile(ops=mapped, reason=reason, runs=answer["runs"], inference_us=answer["inference_us"])


def with_layers(ops: Sequence[OpTime], model: bytes) -> tuple[tuple[OpTime, ...], str | None]:
    """`ops` with op and layer where they are known, and what is not.

    A builtin operator has its index in the file. A delegate's kernels have none: its layers run in the order of the
    file, so where as many kernels of fitting kinds ran as it took layers, the n-th is the n-th layer's."""
    graph = read_graph(model)
    names = [operator.op for operator in graph.operators]
    layers = {operator.position: operator for operator, _ in graph.weighted}
    found = [_builtin(op, names, layers) for op in ops]
    builtin = {op.index for op in found if op.kind == "builtin"}
    taken = [layer for operator, layer in layers.items() if operator not in builtin]
    kernels = [n for n, op in enumerate(found) if op.kind == "delegate" and op.kernel.startswith(_LAYER_KERNELS)]
    if not _fit([found[n].kernel for n in kernels], taken):
        said = f"{len(kernels)} kernels ran for the {len(taken)} layers that the delegate took"
        return tuple(found), f"{said}: which is whose is not known"
    for n, layer in zip(kernels, taken, strict=True):
        found[n] = replace(found[n], op=layer.op, layer=layer.name)
    return tuple(found), None


def _builtin(op: OpTime, names: Sequence[str], layers: Mapping[int, Operator]) -> OpTime:
    if op.kind != "builtin" or op.index >= len(names) or names[op.index] != op.kernel:
        return op
    layer = layers.get(op.index)
    return replace(op, op=op.kernel, layer=None if layer is None else layer.name)


def _fit(kernels: Sequence[str], layers: Sequence[Operator]) -> bool:
    return len(kernels) == len(layers) and all(
        kernel.startswith(_KERNELS[layer.op]) for kernel, layer in zip(kernels, layers, strict=True)
    )
