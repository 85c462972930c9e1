"""What each operator of a file takes on the device, as far as the runtime's profiler tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autocompress.network.graph.layers import EXPANDING_OPS, INPUTS, LAYER_OPS
from autocompress.network.tflite import flatbuffer
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


@dataclass(frozen=True, kw_only=True)
class WeightedOp:
    """A layer of any `.tflite`, quantized too: its name as in a configuration, its op and its operator's index."""

    name: str
    op: str
    operator: int


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
    tree = flatbuffer.read(model)
    names = [flatbuffer.op_name(tree, operator) for operator in tree.subgraphs[0].operators]
    layers = {layer.operator: layer for layer in weighted_ops(tree)}
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


def weighted_ops(tree: Any) -> list[WeightedOp]:
    """The operators of the main graph with a constant weight, of any type, also behind a DEQUANTIZE."""
    counts, found = Counter[str](), []
    expanded: set[int] = set()
    for position, operator in enumerate(tree.subgraphs[0].operators):
        op = flatbuffer.op_name(tree, operator)
        if op in EXPANDING_OPS and _has_data(tree, int(operator.inputs[0])):
            expanded.add(int(operator.outputs[0]))
        if op in LAYER_OPS and len(operator.inputs) > max(INPUTS[op][:2]):
            weight = int(operator.inputs[INPUTS[op][1]])
            if weight in expanded or _has_data(tree, weight):
                found.append(WeightedOp(name=f"{op.lower()}_{counts[op]}", op=op, operator=position))
        counts[op] += 1
    return found


def _has_data(tree: Any, index: int) -> bool:
    """Whether a tensor is a constant, whatever its type: packed 4-bit ones have no NumPy type."""
    data = tree.buffers[tree.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def _builtin(op: OpTime, names: Sequence[str], layers: Mapping[int, WeightedOp]) -> OpTime:
    if op.kind != "builtin" or op.index >= len(names) or names[op.index] != op.kernel:
        return op
    layer = layers.get(op.index)
    return replace(op, op=op.kernel, layer=None if layer is None else layer.name)


def _fit(kernels: Sequence[str], layers: Sequence[WeightedOp]) -> bool:
    return len(kernels) == len(layers) and all(
        kernel.startswith(_KERNELS[layer.op]) for kernel, layer in zip(kernels, layers, strict=True)
    )
