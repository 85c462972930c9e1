"""The builder: a configuration and its solved layers to a verified `.tflite`.

What is built is read back with the schema alone and compared with the configuration: container, share of zeros, number
of distinct levels, the very integers. A mismatch is a failed candidate, never a silently different one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from autocompress.compression.bias_range import MOST_BIAS, with_room
from autocompress.compression.output_scales import least_widths, widened
from autocompress.compression.reconstruct import SolvedLayer
from autocompress.compression.sparse_storage import SparseStorage, with_sparse_weights
from autocompress.compression.template import QuantizedTemplate, Ranges, Slot, make_template, pattern_file
from autocompress.compression.zero_pattern import is_two_of_four
from autocompress.errors import CandidateError
from autocompress.network.graph import trace
from autocompress.network.graph.layers import Layer
from autocompress.network.tflite import flatbuffer, sparse
from autocompress.network.tflite.graph import INPUTS
from autocompress.network.tflite.short_floats import short
from autocompress.records.configuration import STATIC_ACTIVATIONS, TWO_OF_FOUR, Configuration, LayerChoice

Array = np.ndarray[Any, Any]
ContainerOf = Callable[[str, int, str], int | None]  # (op, bits, activations) -> container bits, None: not allowed
Unpacks = Callable[[str, int, str], bool]  # (op, bits, activations) -> whether the integers are unpacked at loading
_TYPES = {32: "FLOAT32", 16: "FLOAT16", 8: "INT8", 4: "INT4"}

# What nobody can see in the outputs is not stored: low bits of biases are noise, and noise is what no download shrinks.
_BIAS_BITS = 8  # of the mantissa of a float bias of an integer layer
_BIAS_STEP = 1 / 32


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """A layer as read back from a file: its container, integers or floats, and scales (None where float)."""

    name: str
    container: str
    values: Array
    scales: Array | None

    @property
    def zeros(self) -> int:
        """How many weights are exactly zero."""
        return int(np.count_nonzero(self.values == 0))

    @property
    def distinct(self) -> int:
        """How many distinct stored values the weight has."""
        return len(np.unique(self.values))

    def weights(self, layer: Layer) -> Array:
        """The weights of this layer that the stored values stand for, float64, in the layer's shape."""
        values: Array = self.values.astype(np.float64)
        if self.scales is None:
            return values
        values *= self.scales.reshape([-1 if axis == layer.output_axis else 1 for axis in range(values.ndim)])
        return values


class Builder:
    """Builds candidates of one float network; templates are made once per pattern of containers and kept."""

    def __init__(
        self,
        model: bytes,
        layers: Sequence[Layer],
        container_of: ContainerOf,
        ranges: Callable[[], Ranges],
        storage: SparseStorage | None = None,
        unpacks: Unpacks = lambda *_: False,
    ) -> None:
        """`storage` None: weights are stored dense, whatever their zeros."""
        self._storage, self._unpacks = storage, unpacks
        self._model, self._layers, self._container_of, self._ranges = model, tuple(layers), container_of, ranges
        self._templates: dict[tuple[Any, ...], QuantizedTemplate] = {}
        self.widened = set[str]()  # layers whose output scale was too fine for the runtime

    def build(self, configuration: Configuration, solved: Sequence[SolvedLayer]) -> bytes:
        """The verified file. The baseline configuration is the float network, stripped."""
        activations = configuration.activations
        containers = tuple(self._container(layer, configuration) for layer in self._layers)
        template = self._fitting(containers, activations, solved)
        solved = [
            self._with_room(*each, activations) for each in zip(template.slots, self._layers, solved, strict=True)
        ]
        template = self._fitting(containers, activations, solved)  # their weights' scales may be wider now
        for slot, layer in zip(template.slots, solved, strict=True):
            _fill(template, slot, layer, activations)
        built = template.patch.snapshot()
        verify(built, self._layers, containers, configuration, solved)
        thinner = self._thinner(built, configuration)
        if thinner is not built:
            verify(thinner, self._layers, containers, configuration, solved)
        return thinner

    def _with_room(self, slot: Slot, layer: Layer, solved: SolvedLayer, activations: str) -> SolvedLayer:
        if slot.bias is None or solved.bias is None or solved.levels is None or not _is_static(slot, activations):
            return solved
        assert slot.input_scale is not None
        return with_room(solved, layer.output_axis, slot.input_scale, activations)

    def _thinner(self, built: bytes, configuration: Configuration) -> bytes:
        """The file with weights stored sparse where they may and that is worth it."""
        zeros = any(choice.sparsity for choice in configuration.layers.values())
        if self._storage is None or not zeros:
            return built
        legal = {_TYPES[bits] for bits in self._storage.sparse(configuration.activations)}
        # What is unpacked does not run as the activations say, for which alone it is known what may be stored sparse.
        containers = [self._container(layer, configuration) for layer in self._layers]
        unpacked = self._unpacked(containers, configuration.activations)
        layers = [layer for layer in self._layers if layer.name not in unpacked]
        return with_sparse_weights(built, layers, legal, self._storage.size) if legal else built

    def layout(self, containers: tuple[int, ...], activations: str) -> tuple[bytes, tuple[slice, ...]]:
        """A file with these containers (a layer each) and anybody's weights in it, and where each layer's lie.
        CandidateError where it cannot be made."""
        kept = self._templates.get((activations, containers))  # not kept for this: there are many patterns
        template = kept or self._made(containers, activations)
        return template.patch.snapshot(), tuple(template.patch.span(slot.weight) for slot in template.slots)

    def pattern(self, containers: tuple[int, ...], activations: str) -> bytes:
        """A file with the operators of a candidate with these containers, as a latency model looks at: sooner made than
        a `layout`. CandidateError where it cannot be made."""
        return pattern_file(self._model, self._layers, containers, activations, *self._how(containers, activations))

    def _fitting(
        self, containers: tuple[int, ...], activations: str, solved: Sequence[SolvedLayer]
    ) -> QuantizedTemplate:
        """A template whose output scales the runtime takes with the scales of these weights."""
        widths: dict[str, float] = {}
        while True:
            template = self._template(containers, activations, widths)
            prune_channels = least_widths(self._layers, template.slots, solved) if activations == "int8" else {}
            if not prune_channels:
                return template
            widths |= prune_channels  # a wider output is a wider input of the next layer: looked at again
            self.widened.update(prune_channels)

    def _template(
        self, containers: tuple[int, ...], activations: str, widths: Mapping[str, float] = MappingProxyType({})
    ) -> QuantizedTemplate:
        key = (activations, containers, *sorted(widths.items()))
        if key not in self._templates:
            self._templates[key] = self._made(containers, activations, widths)
        return self._templates[key]

    def _made(
        self, containers: tuple[int, ...], activations: str, widths: Mapping[str, float] = MappingProxyType({})
    ) -> QuantizedTemplate:
        ranges, unpacked = self._how(containers, activations)
        if widths and ranges is not None:
            ranges = widened(self._model, self._layers, ranges, widths)
        return make_template(self._model, self._layers, containers, activations, ranges, unpacked)

    def _how(self, containers: Sequence[int], activations: str) -> tuple[Ranges | None, frozenset[str]]:
        return self._ranges_for(activations), self._unpacked(containers, activations)

    def _unpacked(self, containers: Sequence[int], activations: str) -> frozenset[str]:
        """The integer layers that are unpacked when the file is loaded, against what the activations say."""
        pairs = zip(self._layers, containers, strict=True)
        return frozenset(
            layer.name for layer, bits in pairs if bits <= 8 and self._unpacks(layer.op, bits, activations)
        )

    def _ranges_for(self, activations: str) -> Ranges | None:
        return self._ranges() if activations in STATIC_ACTIVATIONS else None

    def _container(self, layer: Layer, configuration: Configuration) -> int:
        choice = configuration.layers[layer.name]
        container = self._container_of(layer.op, choice.bits, configuration.activations)
        if container is None:
            raise CandidateError(
                f"{layer.name}: no kernel for {choice.bits}-bit {layer.op} with {configuration.activations} activations"
            )
        return container


def _is_static(slot: Slot, activations: str) -> bool:
    return activations in STATIC_ACTIVATIONS and slot.input_scale is not None and slot.output_scale is not None


def _fill(template: QuantizedTemplate, slot: Slot, layer: SolvedLayer, activations: str) -> None:
    """Write one solved layer into its slot."""
    patch = template.patch
    if layer.levels is None or layer.scale is None:
        dtype = np.float16 if slot.weight_type == "FLOAT16" else np.float32
        patch.write(slot.weight, layer.weight.astype(dtype))
        if layer.bias is not None and slot.bias is not None:
            patch.write(slot.bias, layer.bias.astype(np.float32))
        return
    patch.write(slot.weight, _packed(layer.levels) if slot.weight_type == "INT4" else layer.levels)
    patch.scales(slot.weight)[:] = layer.scale
    if layer.bias is None or slot.bias is None:
        return
    if not _is_static(slot, activations):
        patch.write(slot.bias, short(layer.bias, _BIAS_BITS).astype(np.float32))
        return
    assert slot.input_scale is not None
    assert slot.output_scale is not None
    units = np.float32(slot.input_scale) * layer.scale
    most = MOST_BIAS[activations]
    counted = np.clip(_coarse(layer.bias, units.astype(np.float64), slot.output_scale), -most, most)
    patch.write(slot.bias, counted.astype(np.int64 if activations == "int16" else np.int32))
    patch.scales(slot.bias)[:] = units


def _coarse(bias: Array, units: Array, output_scale: float) -> Array:
    """The bias in whole `units`, in steps of a power of two of them that is at most _BIAS_STEP of the output's step."""
    steps = 2.0 ** np.maximum(np.floor(np.log2(_BIAS_STEP * output_scale / units)), 0.0)
    counted: Array = np.rint(bias / (units * steps)) * steps
    return counted


def _packed(levels: Array) -> Array:
    """4-bit integers, two a byte, the first in the low half."""
    flat = levels.reshape(-1).astype(np.uint8) & 0xF
    flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
    return flat[0::2] | (flat[1::2] << 4)


def read_layers(model: bytes, layers: Sequence[Layer]) -> tuple[StoredLayer, ...]:
    """The weights of `layers` (of the float network) as they lie in `model`, read with the schema alone."""
    from ai_edge_litert.schema_py_generated import Model

    graph = (root := Model.GetRootAs(model, 0)).Subgraphs(0)
    codes = [
        max(c.BuiltinCode(), c.DeprecatedBuiltinCode())
        for c in map(root.OperatorCodes, range(root.OperatorCodesLength()))
    ]
    names = flatbuffer.builtin_names()
    operators = [graph.Operators(n) for n in range(graph.OperatorsLength())]
    makers = {int(op.Outputs(0)): op for op in operators if op.OutputsLength()}
    found: dict[str, list[Any]] = {}
    for op in operators:
        found.setdefault(names[codes[op.OpcodeIndex()]], []).append(op)
    return tuple(_stored(root, graph, found, makers, layer) for layer in layers)


def _stored(root: Any, graph: Any, found: dict[str, list[Any]], makers: dict[int, Any], layer: Layer) -> StoredLayer:
    index = int(found[layer.op][layer.number].Inputs(INPUTS[layer.op][1]))
    while root.Buffers(graph.Tensors(index).Buffer()).DataIsNone():
        index = int(makers[index].Inputs(0))
    tensor = graph.Tensors(index)
    container, raw = flatbuffer.type_name(tensor.Type()), root.Buffers(tensor.Buffer()).DataAsNumpy()
    values = decoded(raw, container, layer.weights if tensor.Sparsity() is None else len(raw))
    quantization = tensor.Quantization()
    scaled = quantization is not None and quantization.ScaleLength() > 0
    return StoredLayer(
        name=layer.name,
        container=container,
        values=values.reshape(layer.shape) if tensor.Sparsity() is None else _dense(tensor, values, layer.shape),
        scales=quantization.ScaleAsNumpy() if scaled else None,
    )


def _dense(tensor: Any, stored: Array, shape: tuple[int, ...]) -> Array:
    from ai_edge_litert.schema_py_generated import SparsityParametersT

    try:
        return sparse.decode(SparsityParametersT.InitFromObj(tensor.Sparsity()), stored, shape)
    except (LookupError, ValueError) as fault:
        raise CandidateError(f"a weight stored sparse cannot be read: {fault}") from fault


def decoded(raw: Array, container: str, size: int) -> Array:
    """The `size` stored values of a weight from the bytes of its buffer; CandidateError for an unknown container."""
    if container == "INT4":
        halves = np.stack([raw & 0xF, raw >> 4], axis=1).reshape(-1)[:size].astype(np.int8)
        return np.where(halves > 7, halves - 16, halves).astype(np.int8)
    dtypes = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT8": np.int8}
    if container not in dtypes:
        raise CandidateError(f"unexpected weight container {container}")
    return raw.view(dtypes[container])


def verify(
    model: bytes,
    layers: Sequence[Layer],
    containers: Sequence[int],
    configuration: Configuration,
    solved: Sequence[SolvedLayer],
) -> None:
    """CandidateError unless every layer of the file is what the configuration says and what was solved."""
    for stored, container, layer, want in zip(read_layers(model, layers), containers, layers, solved, strict=True):
        choice = configuration.layers[layer.name]
        for rule, holds in _rules(layer, stored, choice, _TYPES[container], want):
            if not holds:
                raise CandidateError(
                    f"{layer.name}: the built file breaks '{rule}'; this candidate is not what was asked"
                )


def _rules(
    layer: Layer, stored: StoredLayer, choice: LayerChoice, container: str, want: SolvedLayer
) -> list[tuple[str, bool]]:
    limit = 2 ** (choice.bits - 1) - 1
    expected = want.levels if want.levels is not None else want.weight.astype(stored.values.dtype)
    allowed = choice.clusters or 2**choice.bits - 1
    integer = choice.is_integer
    return [
        (f"container {container}", stored.container == container),
        (f"sparsity >= {choice.sparsity:g}", stored.zeros >= math.ceil(choice.sparsity * stored.values.size - 1e-9)),
        ("zeros in whole blocks", _in_blocks(layer, stored.values, choice)),
        ("two zeros in each four inputs", choice.granularity != TWO_OF_FOUR or is_two_of_four(stored.values)),
        (f"at most {allowed} levels", not integer or stored.distinct <= allowed),
        (f"levels within {limit}", not integer or int(np.abs(stored.values.astype(np.int16)).max()) <= limit),
        ("the solved weights", bool(np.array_equal(stored.values, expected))),
        ("the solved scales", want.scale is None or _same(stored.scales, want.scale)),
    ]


def _in_blocks(layer: Layer, values: Array, choice: LayerChoice) -> bool:
    """Whether enough of a layer's zeros fill whole blocks of output channels, where that was asked for."""
    if choice.granularity != "block":
        return True
    together = layer.shape[0] // trace.groups_of(layer) if layer.output_axis == 0 else 1
    block = sparse.block_of(together)
    whole = (values.reshape(-1, block, *values.shape[1:]) == 0).all(axis=1)
    return int(np.count_nonzero(whole)) * block >= math.ceil(choice.sparsity * values.size - 1e-9)


def _same(found: Array | None, expected: Array) -> bool:
    return found is not None and bool(np.array_equal(found, expected))
