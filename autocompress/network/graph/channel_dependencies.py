"""Which channels of which tensors are one and the same: removing it from one removes it from all.

Each operator ties the last axis of its tensors, and the axes of its constants, channel by channel. What is tied forms a
class. An operator that is not known here freezes what it touches: those channels stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autocompress.network.graph.layers import Layer
from autocompress.network.tflite.graph import Graph, Operator

Array = np.ndarray[Any, Any]
Place = tuple[int, int]  # (tensor of the main graph, axis)

_NOTHING_FROM_NOTHING = (
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "RELU_0_TO_1",
    "TANH",
    "ABS",
    "NEG",
    "SQRT",
    "SQUARE",
    "ELU",
    "LEAKY_RELU",
    "HARD_SWISH",
    "GELU",
    "FLOOR",
    "CEIL",
    "ROUND",
    "SIN",
    "SIGN",
    "PRELU",
    "AVERAGE_POOL_2D",
    "MAX_POOL_2D",
    "L2_POOL_2D",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
)
_SOMETHING_FROM_NOTHING = ("LOGISTIC", "EXP", "RSQRT", "LOG", "COS")
_PAIRED = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")
_REDUCED = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")


@dataclass(frozen=True, kw_only=True)
class Count:
    """Element `at` of the integer constant `tensor` holds how many channels the tensor `of` has."""

    tensor: int
    at: int
    of: int


@dataclass(kw_only=True)
class ChannelDependencies:
    """The walk over the main graph. `ids`: a number for each index along the axis of a place, equal classes found by
    `root`; `parameters`: places whose values make a channel what it is (weights and biases); `frozen`: id -> reason."""

    graph: Graph
    ids: dict[Place, Array] = field(default_factory=dict)
    frozen: dict[int, str] = field(default_factory=dict)
    counts: list[Count] = field(default_factory=list)
    parameters: list[Place] = field(default_factory=list)
    _parent: list[int] = field(default_factory=list)
    # Of computed tensors: which channels are 0 where their weights and biases are.
    _zero: dict[int, Array] = field(default_factory=dict)

    def walk(self, layers: Sequence[Layer]) -> None:
        """Tie the channels of every operator."""
        graph, by_operator = self.graph, {layer.operator: layer for layer in layers}
        for tensor in graph.inputs:
            self._freeze(tensor, "an input of the network")
        for operator in graph.operators:
            if operator.position in by_operator:
                self._layer(by_operator[operator.position], operator)
            else:
                self._other(operator.op, operator)
        for tensor in graph.outputs:
            self._freeze(tensor, "an output of the network")

    def root(self, number: int) -> int:
        """The smallest id of the class of an id."""
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor as it stands in the file."""
        return self.graph.tensors[tensor].shape

    def _constant(self, tensor: int) -> Array | None:
        return self.graph.constant(tensor)

    def _integers(self, tensor: int) -> list[int] | None:
        return self.graph.integers(tensor)

    def _of(self, tensor: int) -> Array:
        """The ids along the last axis of a tensor (one for a scalar)."""
        shape = self.shape(tensor)
        return self._at((tensor, len(shape) - 1), shape[-1] if shape else 1)

    def _at(self, place: Place, size: int) -> Array:
        if place not in self.ids:
            start = len(self._parent)
            self._parent.extend(range(start, start + size))
            self.ids[place] = np.arange(start, start + size)
        return self.ids[place]

    def _bind(self, place: Place, ids: Array) -> None:
        """These ids stand along this place."""
        if place in self.ids:
            self._tie(self.ids[place], ids)
        else:
            self.ids[place] = ids

    def _tie(self, one: Array, other: Array) -> None:
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            low, high = sorted((self.root(a), self.root(b)))
            self._parent[high] = low

    def _freeze(self, tensor: int, reason: str) -> None:
        self._freeze_ids(self._of(tensor), reason)

    def _freeze_ids(self, ids: Array, reason: str) -> None:
        for number in ids.tolist():
            self.frozen.setdefault(number, reason)

    def _make(self, output: int, ids: Array, *, zero: Array | bool) -> None:
        """The computed tensor `output` has these channels; `zero`: where nothing comes of nothing."""
        self._bind((output, len(self.shape(output)) - 1), ids)
        self._zero[output] = self._zeros(output) & zero if output in self._zero else np.broadcast_to(zero, ids.shape)

    def _zeros(self, tensor: int) -> Array:
        """Which channels of a computed tensor are 0 where their weights and biases are."""
        return self._zero.get(tensor, np.zeros(len(self._of(tensor)), bool))

    def _other(self, op: str, operator: Operator) -> None:
        """An operator without weights of its own: by its rule, which says whether it knows this form; else frozen."""
        if op in _RULES and _RULES[op](self, op, operator):
            return
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor >= 0:
                self._freeze(tensor, f"{op} mixes or moves channels")

    def _contracted(self, tensor: int) -> Array:
        """The ids of a layer's input, whose channels end here: they may go only where 0 flows in."""
        ids = self._of(tensor)
        self._freeze_ids(ids[~self._zeros(tensor)], "not 0 where a channel's weights are")
        return ids

    # --- layers ---------------------------------------------------------------------------------------

    def _layer(self, layer: Layer, operator: Operator) -> None:
        rows = self._at((layer.weight, layer.output_axis), layer.outputs)
        self.parameters.append((layer.weight, layer.output_axis))
        if layer.bias is not None:
            self._bind((layer.bias, 0), rows)
            self.parameters.append((layer.bias, 0))
        self._make(layer.output, rows, zero=True)
        if layer.bias is None and len(operator.inputs) > 2 and operator.inputs[-1] not in (-1, layer.input):
            self._freeze(layer.output, "its bias is computed")
        {
            "CONV_2D": self._convolution,
            "TRANSPOSE_CONV": self._convolution,
            "DEPTHWISE_CONV_2D": self._depthwise,
            "FULLY_CONNECTED": self._dense,
        }[layer.op](layer, operator)

    def _convolution(self, layer: Layer, operator: Operator) -> None:
        columns = self._contracted(layer.input)
        if len(columns) != layer.shape[3]:
            self._freeze(layer.input, "read by a grouped convolution")
            self._freeze(layer.output, "made by a grouped convolution")
        else:
            self._bind((layer.weight, 3), columns)
        if layer.op == "TRANSPOSE_CONV" and not self._counted(operator.inputs[0], layer.output):
            self._freeze(layer.output, "the output's shape is computed")

    def _depthwise(self, layer: Layer, operator: Operator) -> None:
        channels = self._contracted(layer.input)
        self._tie(np.repeat(channels, layer.outputs // len(channels)), self.ids[layer.weight, 3])

    def _dense(self, layer: Layer, operator: Operator) -> None:
        columns = self._contracted(layer.input)
        repeats, rest = divmod(layer.shape[1], len(columns))
        if rest or operator.options.weightsFormat:
            self._freeze(layer.input, "read by a FULLY_CONNECTED of another width")
        else:  # row-major: the channel runs fastest
            self._bind((layer.weight, 1), np.tile(columns, repeats))

    # --- operators without weights --------------------------------------------------------------------

    def _same(self, op: str, operator: Operator) -> bool:
        x, output = operator.inputs[0], operator.outputs[0]
        ids = self._of(x)
        if op == "PRELU" and self.shape(operator.inputs[1])[-1:] == (len(ids),):
            alpha = operator.inputs[1]
            self._bind((alpha, len(self.shape(alpha)) - 1), ids)
        self._make(output, ids, zero=self._zeros(x) & (op in _NOTHING_FROM_NOTHING))
        return True

    def _paired(self, op: str, operator: Operator) -> bool:
        operands, output = list(operator.inputs), operator.outputs[0]
        width = (self.shape(output) or (1,))[-1]
        full = [i for i in operands if (self.shape(i) or (1,))[-1] == width]
        if not full or not self.shape(output):
            return False
        ids = self._of(next((i for i in full if self._constant(i) is None), full[0]))
        for operand in operands:
            if operand in full and self.shape(operand):
                self._bind((operand, len(self.shape(operand)) - 1), ids)
            elif operand not in full:
                self._freeze(operand, f"{op} spreads it over all channels")
        self._make(output, ids, zero=self._paired_zero(op, operands, width))
        return True

    def _paired_zero(self, op: str, operands: list[int], width: int) -> Array:
        """Which channels are 0 where both operands' are. Constants that are added by channel count as biases."""
        zero = [np.broadcast_to(self._zeros(i), (width,)) for i in operands]
        if op == "MUL":
            return np.logical_or(zero[0], zero[1])
        if op == "DIV":
            return np.logical_and(zero[0], self._constant(operands[1]) is not None)
        for n, operand in enumerate(operands):
            value = self._constant(operand)
            if value is None:
                continue
            if op in ("ADD", "SUB") and (value.shape or (1,))[-1] == width:
                self.parameters.append((operand, value.ndim - 1))
                zero[n] = np.ones(width, bool)
            else:
                neutral = {"MAXIMUM": value <= 0, "MINIMUM": value >= 0}.get(op, value == 0).all()
                zero[n] = np.full(width, bool(neutral))
        return np.logical_and(zero[0], zero[1])

    def _concatenation(self, op: str, operator: Operator) -> bool:
        operands, output = list(operator.inputs), operator.outputs[0]
        if operator.options.axis % len(self.shape(output)) == len(self.shape(output)) - 1:
            for operand in operands:
                if self._constant(operand) is not None:
                    self._freeze(operand, "a constant")
            zero = np.concatenate([self._zeros(i) for i in operands])
            self._make(output, np.concatenate([self._of(i) for i in operands]), zero=zero)
        else:
            for operand in operands:
                self._make(output, self._of(operand), zero=self._zeros(operand))
        return True

    def _split(self, op: str, operator: Operator) -> bool:
        at_axis, x = (0, operator.inputs[1]) if op == "SPLIT" else (2, operator.inputs[0])
        axis, outputs = self._integers(operator.inputs[at_axis]), list(operator.outputs)
        if axis is None:
            return False
        ids, zero = self._of(x), self._zeros(x)
        if axis[0] % len(self.shape(x)) != len(self.shape(x)) - 1:
            parts, zeros = [ids] * len(outputs), [zero] * len(outputs)
        else:
            borders = np.cumsum([self.shape(i)[-1] for i in outputs])[:-1]
            parts, zeros = np.split(ids, borders), np.split(zero, borders)
        for n, (output, part) in enumerate(zip(outputs, parts, strict=True)):
            if op == "SPLIT":  # in equal parts, now and later
                self._tie(parts[0], part)
            elif part is not ids:
                self.counts.append(Count(tensor=operator.inputs[1], at=n, of=output))
            self._make(output, part, zero=zeros[n])
        return True

    def _reduced(self, op: str, operator: Operator) -> bool:
        x, output = operator.inputs[0], operator.outputs[0]
        axes, rank = self._integers(operator.inputs[1]), len(self.shape(x))
        if axes is None or rank - 1 in [axis % rank for axis in axes]:
            return False
        self._make(output, self._of(x), zero=self._zeros(x))
        return True

    def _padded(self, op: str, operator: Operator) -> bool:
        x, output = operator.inputs[0], operator.outputs[0]
        paddings = self._integers(operator.inputs[1])
        if paddings is None or any(paddings[-2:]):
            return False
        value = self._constant(operator.inputs[2]) if op == "PADV2" else np.zeros(1)
        self._make(output, self._of(x), zero=self._zeros(x) & (value is not None and not value.any()))
        return True

    def _sliced(self, op: str, operator: Operator) -> bool:
        x, output = operator.inputs[0], operator.outputs[0]
        begin, size = (self._integers(operator.inputs[n]) for n in (1, 2))
        width = self.shape(x)[-1]
        if begin is None or size is None or begin[-1] or size[-1] not in (-1, width):
            return False
        self._make(output, self._of(x), zero=self._zeros(x))
        if size[-1] == width:
            self.counts.append(Count(tensor=operator.inputs[2], at=len(size) - 1, of=output))
        return True

    def _strided(self, op: str, operator: Operator) -> bool:
        x, output, options = operator.inputs[0], operator.outputs[0], operator.options
        begin, end, strides = (self._integers(operator.inputs[n]) for n in (1, 2, 3))
        last, width = len(self.shape(x)) - 1, (self.shape(x) or (1,))[-1]
        if begin is None or end is None or strides is None or options.ellipsisMask or options.newAxisMask:
            return False
        if len(begin) > last:  # shorter ones leave the last axis alone
            from_start = begin[last] == 0 or options.beginMask >> last & 1
            to_end = end[last] >= width or options.endMask >> last & 1
            if not (from_start and to_end) or strides[last] != 1 or options.shrinkAxisMask >> last & 1:
                return False
            if not options.endMask >> last & 1:
                self.counts.append(Count(tensor=operator.inputs[2], at=last, of=x))
        self._make(output, self._of(x), zero=self._zeros(x))
        return True

    def _reshaped(self, op: str, operator: Operator) -> bool:
        x, output = operator.inputs[0], operator.outputs[0]
        ids, zero, width = self._of(x), self._zeros(x), (self.shape(output) or (1,))[-1]
        target = operator.inputs[1] if len(operator.inputs) > 1 else -1
        fits = width % len(ids) == 0 or len(ids) % width == 0
        if not fits or not self.shape(output) or (target >= 0 and not self._counted(target, output)):
            return False
        if width >= len(ids):
            made, zero = (np.tile(values, width // len(ids)) for values in (ids, zero))
        else:
            rows, zero = ids.reshape(-1, width), zero.reshape(-1, width).all(axis=0)
            made = rows[0]
            for row in rows[1:]:
                self._tie(made, row)
        self._make(output, made, zero=zero)
        return True

    def _counted(self, target: int, output: int) -> bool:
        """Whether the channel count in a target shape can be rewritten: a constant, or PACKed with a constant last."""
        if (value := self._integers(target)) is not None:
            if value[-1] >= 0:
                self.counts.append(Count(tensor=target, at=len(value) - 1, of=output))
            return True
        for maker in self.graph.operators:
            if target in maker.outputs and maker.op == "PACK":
                last = maker.inputs[-1]
                if (value := self._integers(last)) is not None and value[0] >= 0:
                    self.counts.append(Count(tensor=last, at=0, of=output))
                return value is not None
        return False

    def _kept_axis(self, op: str, operator: Operator) -> bool:
        x, output = operator.inputs[0], operator.outputs[0]
        if (self.shape(output) or (0,))[-1] != len(self._of(x)) or math.prod(self.shape(x)) == len(self._of(x)) == 1:
            return False
        self._make(output, self._of(x), zero=self._zeros(x))
        return True

    def _shape_of(self, op: str, operator: Operator) -> bool:
        """Reading a shape ties nothing where only sizes other than the channels are taken from it."""
        x, output = operator.inputs[0], operator.outputs[0]
        for reader in self.graph.operators:
            if output not in reader.inputs:
                continue
            begin = self._integers(reader.inputs[1]) if len(reader.inputs) > 1 else None
            one = reader.op == "STRIDED_SLICE" and reader.options.shrinkAxisMask & 1
            if begin is None or not one or begin[0] % len(self.shape(x)) == len(self.shape(x)) - 1:
                self._freeze(x, "SHAPE reads how many there are")
        return True

    def _packed(self, op: str, operator: Operator) -> bool:
        """Numbers of a shape are not tied; of activations stacked in front of the channels all are one."""
        operands, output = list(operator.inputs), operator.outputs[0]
        if not self.shape(operands[0]):
            return True
        if operator.options.axis % len(self.shape(output)) == len(self.shape(output)) - 1:
            return False
        for operand in operands:
            self._make(output, self._of(operand), zero=self._zeros(operand))
        return True


_RULES: dict[str, Callable[[ChannelDependencies, str, Operator], bool]] = {
    **dict.fromkeys((*_NOTHING_FROM_NOTHING, *_SOMETHING_FROM_NOTHING), ChannelDependencies._same),
    **dict.fromkeys(_PAIRED, ChannelDependencies._paired),
    **dict.fromkeys(_REDUCED, ChannelDependencies._reduced),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), ChannelDependencies._padded),
    **dict.fromkeys(("SPLIT", "SPLIT_V"), ChannelDependencies._split),
    **dict.fromkeys(("SQUEEZE", "EXPAND_DIMS"), ChannelDependencies._kept_axis),
    "CONCATENATION": ChannelDependencies._concatenation,
    "SLICE": ChannelDependencies._sliced,
    "STRIDED_SLICE": ChannelDependencies._strided,
    "RESHAPE": ChannelDependencies._reshaped,
    "SHAPE": ChannelDependencies._shape_of,
    "PACK": ChannelDependencies._packed,
}
