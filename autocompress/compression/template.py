"""Quantized templates: the network with the right containers and quantization operators, but anybody's integers.

`ai-edge-quantizer` makes one for each pattern of (weight container bits per layer, activations); the builder then
writes a candidate's own integers, scales and biases into it. The quantizer derives scales and levels of its own, so
nothing it put into a weight survives."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from autocompress.errors import CandidateError
from autocompress.network.graph import trace
from autocompress.network.graph.layers import Layer
from autocompress.network.graph.segments import Patchable
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.appended import appended
from autocompress.network.tflite.graph import INPUTS, Graph, graph_of, graphs_of
from autocompress.network.tflite.short_floats import short
from autocompress.network.tflite.tree import Tree
from autocompress.records.configuration import STATIC_ACTIVATIONS

Array = np.ndarray[Any, Any]
Ranges = Mapping[str, tuple[float, float]]  # tensor name -> smallest and largest value seen in calibration
_ACTIVATION_BITS = {"int8": 8, "int16": 16}
_OPERATION = {
    "CONV_2D": "CONV_2D",
    "DEPTHWISE_CONV_2D": "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED": "FULLY_CONNECTED",
    "TRANSPOSE_CONV": "CONV_2D_TRANSPOSE",
}


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where a layer's values go: tensor indices in the template, the weight's NumPy dtype and packed bits, and for
    static layers the scales of the input (the bias is stored in units of it times the weight's scale) and output."""

    weight: int
    bias: int | None
    weight_type: str
    input_scale: float | None
    output_scale: float | None


@dataclass(frozen=True, kw_only=True)
class QuantizedTemplate:
    """A serialised template, writable in place, and the slot of each layer."""

    patch: Patchable
    slots: tuple[Slot, ...]


def make_template(
    model: bytes,
    layers: Sequence[Layer],
    containers: Sequence[int],
    activations: str,
    ranges: Ranges | None,
    unpacked: Collection[str] = (),
) -> QuantizedTemplate:
    """The template of `model` (float) for these weight containers (32, 16, 8, 4 bits a layer, in layer order).

    `ranges` is needed for static activations; `unpacked` names layers whose integers are unpacked when the file is
    loaded, whatever the activations. CandidateError where ai-edge-quantizer cannot make it."""
    tree = flatbuffer.read(pattern_file(model, layers, containers, activations, ranges, unpacked))
    tree.appended = appended(model)  # the quantizer keeps metadata, but not the files that they name
    graph = graph_of(tree)
    _shorten_scales(tree, {_slot(graph, layer).bias for layer in layers})
    graph = graph_of(tree)
    slots = tuple(_slot(graph, layer) for layer in layers)
    flatbuffer.strip(tree)
    return QuantizedTemplate(patch=Patchable(flatbuffer.write(tree)), slots=slots)


def pattern_file(
    model: bytes,
    layers: Sequence[Layer],
    containers: Sequence[int],
    activations: str,
    ranges: Ranges | None,
    unpacked: Collection[str] = (),
) -> bytes:
    """`model` as ai-edge-quantizer makes it for these containers: the operators of a template, its own weights, scales
    and metadata. CandidateError where it cannot make it."""
    from ai_edge_quantizer import quantizer

    if all(bits == 32 for bits in containers):
        return model
    seen = _statistics(model, ranges or {}) if activations in STATIC_ACTIVATIONS else None
    try:
        # It prints a report of its own, draws progress bars for networks of 100 tensors and warns of memory it takes.
        nowhere = io.StringIO()
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recipe = _recipe(model, layers, containers, activations, unpacked, _unbounded(model, ranges or {}))
            made = quantizer.Quantizer(bytearray(model), recipe)
            result = made.quantize(seen, enable_progress_report=False).quantized_model
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as fault:
        raise CandidateError(f"ai-edge-quantizer cannot build this: {' '.join(str(fault).split())}") from fault
    return bytes(result)


def _statistics(model: bytes, ranges: Ranges) -> dict[str, dict[str, Array]]:
    """The ranges as ai-edge-quantizer wants them: arrays of the tensor's rank, of computed tensors only."""
    seen = {}
    for name, rank in _names(model).computed:
        if trace.is_bounded(ranges, name):
            low, high = (np.full((1,) * rank, value, np.float32) for value in ranges[name])
            seen[name] = {"min": low, "max": high}
    return seen


def _unbounded(model: bytes, ranges: Ranges) -> tuple[tuple[str, ...], ...]:
    """The output tensors of each operator of the main graph that reads or makes a tensor without a finite range."""
    without = {name for name, _ in _names(model).computed if name in ranges and not trace.is_bounded(ranges, name)}
    return tuple(made for read, made in _names(model).operators if without.intersection((*read, *made)))


def _recipe(
    model: bytes,
    layers: Sequence[Layer],
    containers: Sequence[int],
    activations: str,
    unpacked: Collection[str],
    unbounded: Collection[tuple[str, ...]],
) -> Any:
    """One rule a layer; with static activations everything between the layers too. Inputs and outputs stay float, and
    so do the bodies of loops and branches, whose ranges are not seen, and `unbounded` operators: layers among them run
    as dynamic range, which needs none."""
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager

    operation, algorithm = qtyping.TFLOperationName, algorithm_manager.AlgorithmName
    recipe = recipe_manager.RecipeManager()
    static = activations in STATIC_ACTIVATIONS
    if static:
        bits = _ACTIVATION_BITS[activations]
        recipe.add_static_config(".*", operation.ALL_SUPPORTED, activation_num_bits=bits, weight_num_bits=8)
        for border in (operation.INPUT, operation.OUTPUT):
            recipe.add_quantization_config(".*", border, algorithm_key=algorithm.NO_QUANTIZE)
        for names in (*_names(model).made_in_bodies, *unbounded):
            scope = f"^{re.escape(';'.join(names))};?$"
            recipe.add_quantization_config(scope, operation.ALL_SUPPORTED, algorithm_key=algorithm.NO_QUANTIZE)
    for layer, container in zip(layers, containers, strict=True):
        scope, op = f"^{re.escape(layer.tensor_name)};?$", operation(_OPERATION[layer.op])
        if container == 32:
            if static:
                recipe.add_quantization_config(scope, op, algorithm_key=algorithm.NO_QUANTIZE)
        elif container == 16:
            recipe.add_weight_only_config(scope, op, num_bits=16, algorithm_key=algorithm.FLOAT_CASTING)
        elif activations == "weight_only" or layer.name in unpacked:
            recipe.add_weight_only_config(scope, op, num_bits=container)
        elif static and not any(layer.tensor_name in names for names in unbounded):
            recipe.add_static_config(scope, op, activation_num_bits=bits, weight_num_bits=container)
        else:
            recipe.add_dynamic_config(scope, op, num_bits=container)
    return recipe.get_quantization_recipe()


@dataclass(frozen=True, kw_only=True)
class _Names:
    """Of a float network: the computed tensors of the main graph with their rank, the tensors that each of its
    operators reads and makes, and the output tensors of each operator outside of it."""

    computed: tuple[tuple[str, int], ...]
    operators: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    made_in_bodies: tuple[tuple[str, ...], ...]


@lru_cache(maxsize=4)
def _names(model: bytes) -> _Names:
    # Remembered: reading a network of 60 operators takes as long as a fifth of quantizing it.
    main, *others = graphs_of(flatbuffer.read(model))
    return _Names(
        computed=tuple((tensor.name, len(tensor.shape)) for tensor in main.tensors if tensor.data is None),
        operators=tuple((_tensor_names(main, op.inputs), _tensor_names(main, op.outputs)) for op in main.operators),
        made_in_bodies=tuple(_tensor_names(graph, op.outputs) for graph in others for op in graph.operators),
    )


def _tensor_names(graph: Graph, indices: Sequence[int]) -> tuple[str, ...]:
    return tuple(graph.tensors[i].name for i in indices if i >= 0)


def _slot(graph: Graph, layer: Layer) -> Slot:
    """Find a layer again in the quantized network."""
    operator, (at_input, _, at_bias) = graph.named[layer.name], INPUTS[layer.op]
    weight = stored_weight(graph, layer)
    return Slot(
        weight=weight,
        bias=operator.inputs[at_bias] if layer.bias is not None else None,
        weight_type=graph.tensors[weight].type,
        input_scale=_scale(graph.tensors[operator.inputs[at_input]].scales),
        output_scale=_scale(graph.tensors[operator.outputs[0]].scales),
    )


def _shorten_scales(tree: Tree, biases: Collection[int | None]) -> None:
    """Give activations the next larger short scale, as `trace.static_quantizer` does. Not where integers that nobody
    writes anew count in units of them: `biases` are written anew."""
    graph, computed = graph_of(tree), []
    for tensor in graph.tensors:
        if tensor.scales is None:
            continue
        if tensor.data is None and len(tensor.scales) == 1:
            computed.append(tree.subgraphs[0].tensors[tensor.index].quantization)
        elif tensor.data is not None and tensor.index not in biases and tensor.type in ("INT32", "INT64"):
            return
    for parameters in computed:
        assert parameters is not None
        parameters.scale = short(parameters.scale, up=True).astype(np.float32)


def stored_weight(graph: Graph, layer: Layer) -> int:
    """The constant that the weight of a float network's layer is stored as in a network made from it."""
    stored = graph.stored(graph.named[layer.name].inputs[INPUTS[layer.op][1]])
    if stored is None:
        raise CandidateError(f"no constant weight of {layer.name} in the quantized network")
    return stored


def _scale(scales: Array | None) -> float | None:
    return None if scales is None else float(scales[0])


def quantize_plainly(model: bytes, layers: Sequence[Layer], ranges: Ranges) -> bytes:
    """What a user of ai-edge-quantizer gets: every layer 8 bits, static int8 activations, its own weights and
    scales."""
    return pattern_file(model, layers, [8] * len(layers), "int8", ranges)
