"""Channels of a float network that can be taken out, and the network without them: dense, smaller, exact.

A *group* holds channels that the same layers make. Taking channel k out of a group takes row k out of each of these
layers, column k out of each layer that reads them, and k out of every constant in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError, unknown_name
from autocompress.network.graph.channel_dependencies import ChannelDependencies, Place
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import Graph, graph_of
from autocompress.network.tflite.tree import Tree

Array = np.ndarray[Any, Any]
Kept = Mapping[str, Sequence[int]]  # the channels of a group that stay, by its name; other groups stay whole


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels that `layers` (names) make together, `channels` of them. Its name is that of the first of these layers,
    with a number behind where one layer makes the channels of several groups."""

    name: str
    layers: tuple[str, ...]
    channels: int
    _classes: tuple[int, ...]


class Channels:
    """The groups of a network (normalised and float) in layer order; `frozen`: why the channels
    that a layer makes must stay, by its name, where none of them can go."""

    def __init__(self, graph: Graph) -> None:
        self.layers = layers_of(graph)
        self._dependencies = ChannelDependencies(graph=graph)
        self._dependencies.walk(self.layers)
        self._classes = {place: self._roots(ids) for place, ids in self._dependencies.ids.items()}
        reasons: dict[int, str] = {}
        for number, reason in self._dependencies.frozen.items():
            reasons.setdefault(self._dependencies.root(number), reason)
        self.groups = self._groups(reasons)
        grouped = {name for group in self.groups for name in group.layers}
        self.frozen = {
            layer.name: reasons[int(self.made_by(layer)[0])] for layer in self.layers if layer.name not in grouped
        }

    def _roots(self, ids: Array) -> Array:
        return np.array([self._dependencies.root(n) for n in ids.tolist()], dtype=np.int64)

    def made_by(self, layer: Layer) -> Array:
        """The class of each output channel of a layer."""
        return self._classes[layer.weight, layer.output_axis]

    def _groups(self, reasons: Mapping[int, str]) -> tuple[ChannelGroup, ...]:
        makers: dict[int, list[str]] = {}
        for layer in self.layers:
            for number in dict.fromkeys(self.made_by(layer).tolist()):
                makers.setdefault(number, []).append(layer.name)
        together: dict[tuple[str, ...], list[int]] = {}
        for number, names in makers.items():
            if number not in reasons:
                together.setdefault(tuple(names), []).append(number)
        groups: list[ChannelGroup] = []
        for made_by, classes in together.items():
            alike = sum(group.layers[0] == made_by[0] for group in groups)
            name = f"{made_by[0]}.{alike + 1}" if alike else made_by[0]
            groups.append(ChannelGroup(name=name, layers=made_by, channels=len(classes), _classes=tuple(classes)))
        return tuple(groups)

    def group(self, name: str) -> ChannelGroup:
        """The group called `name`; AutocompressError where there is none."""
        by_name = {group.name: group for group in self.groups}
        if name not in by_name:
            if name in self.frozen:
                raise AutocompressError(f"the channels of '{name}' must stay: {self.frozen[name]}; leave it out")
            raise unknown_name("channel group", name, tuple(by_name))
        return by_name[name]

    def index(self, group: ChannelGroup, place: Place) -> Array:
        """For each index along a place the channel of `group` that it belongs to, -1 where to none."""
        position = {number: n for n, number in enumerate(group._classes)}
        classes = self._classes.get(place, np.zeros(0, np.int64))
        return np.array([position.get(n, -1) for n in classes.tolist()], dtype=np.int64)

    def parameters(self, group: ChannelGroup) -> tuple[tuple[Place, Array], ...]:
        """The constants that make the group's channels what they are (rows of weights, biases, added constants): place
        and, along it, the channel of the group or -1. A channel for which all are 0 goes without any change."""
        found = ((place, self.index(group, place)) for place in self._dependencies.parameters)
        return tuple((place, index) for place, index in found if (index >= 0).any())

    def gone(self, kept: Kept) -> frozenset[int]:
        """The classes that go. AutocompressError for a group that is unknown or would lose all its channels."""
        lost: set[int] = set()
        for name, chosen in kept.items():
            group = self.group(name)
            stays = {int(n) for n in chosen}
            if not stays:
                raise AutocompressError(f"channel group '{name}' would lose all its channels; keep at least one")
            if min(stays) < 0 or max(stays) >= group.channels:
                raise AutocompressError(f"channel group '{name}' has channels 0 to {group.channels - 1}")
            lost |= {number for n, number in enumerate(group._classes) if n not in stays}
        return frozenset(lost)

    def stays(self, place: Place, kept: Kept) -> Array | None:
        """Which indices along a place stay (a mask); None where nothing goes there."""
        if place not in self._classes:
            return None
        mask = ~np.isin(self._classes[place], list(self.gone(kept)))
        return None if mask.all() else mask

    def cut(self, tree: Tree, kept: Kept) -> None:
        """Take the other channels out of `tree`, the tree of an equal network to the one that was looked at."""
        lost = self.gone(kept)
        for place, classes in self._classes.items():
            mask = ~np.isin(classes, list(lost))
            if not mask.all():
                _cut_place(tree, place, mask)
        tensors = tree.subgraphs[0].tensors
        for count in self._dependencies.counts:
            value = flatbuffer.constant(tree, count.tensor)
            assert value is not None
            changed = value.copy()
            changed.reshape(-1)[count.at] = tensors[count.of].shape[-1]
            _own(tree, count.tensor, changed)
        for operator in tree.subgraphs[0].operators:
            options = operator.builtinOptions
            target = getattr(options, "newShape", None)
            if target is not None and len(target) and target[-1] >= 0:
                options.newShape = [*target[:-1], int(tensors[int(operator.outputs[0])].shape[-1])]


def _cut_place(tree: Tree, place: Place, mask: Array) -> None:
    index, axis = place
    tensor, value = tree.subgraphs[0].tensors[index], flatbuffer.constant(tree, index)
    shape = [int(n) for n in tensor.shape]
    shape[axis] = int(mask.sum())
    if value is not None:
        _own(tree, index, np.compress(mask, value, axis=axis))
    tensor.shape = shape
    if tensor.shapeSignature is not None and len(tensor.shapeSignature):
        tensor.shapeSignature = [*tensor.shapeSignature[:axis], shape[axis], *tensor.shapeSignature[axis + 1 :]]


def _own(tree: Tree, index: int, value: Array) -> None:
    """Give tensor `index` this constant in a buffer of its own."""
    from ai_edge_litert.schema_py_generated import BufferT

    buffer = BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
    tree.buffers.append(buffer)
    tree.subgraphs[0].tensors[index].buffer = len(tree.buffers) - 1


def prune(model: bytes, kept: Kept) -> bytes:
    """The float network (normalised) with only these channels of the named groups, weights as they were.

    AutocompressError for a group that is unknown, frozen, or would lose all its channels."""
    tree = flatbuffer.read(model)
    Channels(graph_of(tree)).cut(tree, kept)
    flatbuffer.compact_buffers(tree)
    return flatbuffer.write(tree)
