"""A study's search problem for the guided sampler: its space encoded as arrays, with what the layer tables and the
device's model say of every choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autocompress.compression.download import coded_bytes, download_bytes
from autocompress.compression.tables import Tables
from autocompress.errors import CandidateError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.network.graph.layers import Layer
from autocompress.network.tflite.sparse import block_of, index_bytes
from autocompress.records.configuration import LayerChoice
from autocompress.search.sampler.container_costs import less, pattern_cost, usual_pattern, with_doubt
from autocompress.search.sampler.encoding import Choices, EncodedSpace

Array = np.ndarray[Any, Any]


_FIXED = 0.2  # of the latency, where nothing is known


def encode_space(
    evaluator: Evaluator, activations: Sequence[str], choices: Mapping[str, tuple[LayerChoice, ...]], tables: Tables
) -> EncodedSpace:
    """The encoded space of a study: tables, and what its files weigh and take where models say so."""
    layers, baseline, width_effects = evaluator.layers, evaluator.baseline, evaluator.width_effects()
    widths = width_effects.widths if width_effects is not None else {}
    longest = max(map(len, (*choices.values(), *widths.values())))
    container = np.zeros((len(activations), len(layers), longest), dtype=np.int64)
    for a, kind in enumerate(activations):
        for at, layer in enumerate(layers):
            row = [evaluator.container(layer, choice.bits, kind) or 0 for choice in choices[layer.name]]
            container[a, at] = row + row[-1:] * (longest - len(row))
    macs, weights, moved = (
        np.array([of(layer) for layer in layers], np.float64)
        for of in (lambda each: max(1, each.macs), lambda each: each.weights, _moved)
    )
    traits = np.column_stack([*(each / each.sum() for each in (macs, weights, moved)), np.ones(len(layers))])

    def latency(kind: str, containers: Array) -> float:
        taken = evaluator.modelled_latency(
            evaluator.base_networks.of({}).builder.pattern(tuple(containers.tolist()), kind)
        )
        return 1.0 if taken is None or modelled is None else taken / modelled

    def file(kind: str, containers: Array) -> float:
        return float(weights @ containers) / 8 / baseline.file_bytes

    thinner = np.stack([_thinner(evaluator, choices, kind, longest) for kind in activations])
    saved, fast = thinner / baseline.file_bytes, _faster(evaluator, choices, longest)
    modelled = evaluator.modelled_latency(evaluator.float_network)
    of, doubt = (latency, 0.1) if modelled else (None, 1.0)
    fixed = [_fixed(evaluator, kind, usual_pattern(container[a]), widths) for a, kind in enumerate(activations)]
    return EncodedSpace(
        activations=tuple(activations),
        choices=dict(choices),
        tables=tables,
        container=container,
        latency=with_doubt(pattern_cost(activations, container, macs / macs.sum(), of, doubt, fixed, traits), fast),
        file=less(pattern_cost(activations, container, weights / weights.sum(), file, 0.01), saved),
        around=np.array([_around(evaluator, kind, usual_pattern(container[a])) for a, kind in enumerate(activations)]),
        width_effects=width_effects,
    )


def _moved(layer: Layer) -> int:
    """The activations that a layer reads and writes."""
    return math.prod(layer.input_shape) + math.prod(layer.output_shape)


def _thinner(evaluator: Evaluator, choices: Choices, activations: str, longest: int) -> Array:
    """The bytes of a file that sparse storage saves at each choice, (L, C): of evenly spread zeros."""
    legal, saved = evaluator.storage.sparse(activations), np.zeros((len(evaluator.layers), longest))
    if evaluator.storage.size != "file":
        return saved
    for at, layer in enumerate(evaluator.layers):
        for c, choice in enumerate(choices[layer.name]):
            bits = evaluator.container(layer, choice.bits, activations)
            if choice.sparsity and bits is not None and bits in legal:
                block = block_of(layer.outputs) if choice.granularity == "block" else 1
                stored = (1 - choice.sparsity) * layer.weights * (bits / 8 + index_bytes(layer.shape[-1]) / block)
                saved[at, c] = max(0.0, layer.weights * bits / 8 - stored)
    return saved


def _faster(evaluator: Evaluator, choices: Choices, longest: int) -> Array:
    """What sparse kernels may save of each layer's share of a latency, (L, C): nothing is claimed, trials tell."""
    found = np.zeros((len(evaluator.layers), longest))
    for at, layer in enumerate(evaluator.layers):
        if evaluator.measures and layer.name in evaluator.sparse_path.layers:
            row = [choice.sparsity * (choice.bits > 8) for choice in choices[layer.name]]
            found[at, : len(row)] = row
    return found


def _fixed(evaluator: Evaluator, kind: str, containers: Array, widths: Mapping[str, Sequence[int]]) -> float:
    """What share of the latency would be left without any layer: by the model, from the whole and the narrowest
    network; else a guess, which trials correct."""
    if not widths:
        return _FIXED
    narrowest = {name: row[-1] for name, row in widths.items()}
    try:
        whole, small = (
            evaluator.base_networks.of(kept).builder.pattern(tuple(containers.tolist()), kind)
            for kept in ({}, narrowest)
        )
    except CandidateError:
        return _FIXED
    before, after = evaluator.modelled_latency(whole), evaluator.modelled_latency(small)
    if before is None or after is None:
        return _FIXED
    macs = [sum(layer.macs for layer in evaluator.base_networks.of(kept).layers) for kept in ({}, narrowest)]
    work = macs[1] / macs[0]
    return float(np.clip((after / before - work) / (1.0 - work), 0.0, 0.95)) if work < 1 else _FIXED


def _around(evaluator: Evaluator, kind: str, containers: Array) -> float:
    """The bytes of a download around the layers' weights; 0 where no such file can be built."""
    try:
        file, spans = evaluator.base_networks.of({}).builder.layout(tuple(containers.tolist()), kind)
    except CandidateError:
        return 0.0
    return float(download_bytes(file) - sum(coded_bytes(file[span]) for span in spans))
