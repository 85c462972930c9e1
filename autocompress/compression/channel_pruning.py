"""Which channels of a group go, and the float network that makes up for them.

The order in which channels go, by one of three criteria:

*contribution*: the squared norm of the weights that make a channel, C_i = sum_j w_ij^2, as a share of its layer's;
*activation*: what a channel brings into the layers that read it, sum_j w_ji^2 E[x_i^2] (Wanda, arXiv 2306.11695, by
channel), as a share of all;
*error* (the default): the squared error left in the outputs of these layers once their other weights are fitted again.
For columns S of weights W and inputs with the moment H it is  tr(W_S ((H^-1)_SS)^-1 W_S^T)  (OBS: Hassibi and Stork
1992, for blocks: Optimal BERT Surgeon, arXiv 2203.07259, eq. 5). Channels go one after the other, W and H^-1 follow.

The network without them is then reconstructed layer after layer: weights and biases by ridge least squares from the
inputs that the narrow network really gives to what the float network computed (ThiNet, arXiv 1707.06342, sec. 3.3, and
"Channel Pruning for Accelerating Very Deep Neural Networks", arXiv 1707.06168, eq. 3, with the bias and in sequence).
No labels, no training."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autocompress.compression.divergence import divergence
from autocompress.compression.reconstruct import FloatLayer, Reconstruction, corrected_bias
from autocompress.compression.tables import Run
from autocompress.network.graph import trace
from autocompress.network.graph.channels import ChannelGroup, Channels, Kept
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.graph.segments import Patchable
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.outputs import FIRST, Signature
from autocompress.records.configuration import Configuration, LayerChoice

Array = np.ndarray[Any, Any]
CRITERIA = ("error", "activation", "contribution")
INPUT_AXIS = {"CONV_2D": 3, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 3}  # of the weight


@dataclass(frozen=True, kw_only=True)
class ChannelPruned:
    """A network without some channels: the float `.tflite`, its layers, and the solver towards what the whole network
    computes."""

    network: bytes
    layers: tuple[Layer, ...]
    reconstruction: Reconstruction


@dataclass(frozen=True, kw_only=True)
class Elimination:
    """The channels of a group in the order in which they go, the least needed first; and for some counts of channels
    left the weights (G, R, n) of the layers that read them, fitted again, by the layer's name."""

    order: Array
    fitted: Mapping[int, Mapping[str, Array]]


def order(channels: Channels, group: ChannelGroup, floats: Sequence[FloatLayer], criterion: str = "error") -> Array:
    """The channels of a group in the order in which they go, the least needed first, (channels,)."""
    if criterion == "error":
        return eliminate(channels, group, floats).order
    score = _contribution if criterion == "contribution" else _activation
    return np.argsort(score(channels, group, floats), kind="stable")


def _contribution(channels: Channels, group: ChannelGroup, floats: Sequence[FloatLayer]) -> Array:
    scores = np.zeros(group.channels)
    for float_layer in floats:
        layer = float_layer.layer
        if layer.name in group.layers:
            index = channels.index(group, (layer.weight, layer.output_axis))
            blocks, _ = trace.blocks_of(layer)
            squares = np.square(float_layer.weight).sum(axis=2)
            norms = squares.sum(axis=0) if blocks > 1 else squares.reshape(-1)
            np.add.at(scores, index[index >= 0], norms[index >= 0] / max(float(norms.sum()), 1e-30))
    return scores


def _activation(channels: Channels, group: ChannelGroup, floats: Sequence[FloatLayer]) -> Array:
    scores = np.zeros(group.channels)
    for reader in _readers(channels, group, floats, centred=False):
        brought = np.square(reader.weight).sum(axis=0) * np.diag(reader.moment)
        inside = reader.index >= 0
        np.add.at(scores, reader.index[inside], brought[inside] / max(float(brought.sum()), 1e-30))
    return scores


@dataclass(kw_only=True)
class _Reader:
    """A layer (or column block of one) that reads channels: weight (R, n), moment (n, n), channel of each column."""

    name: str
    weight: Array
    moment: Array
    index: Array


def _readers(
    channels: Channels, group: ChannelGroup, floats: Sequence[FloatLayer], *, centred: bool = True
) -> Iterator[_Reader]:
    for float_layer in floats:
        layer = float_layer.layer
        index = _columns(channels, group, layer)
        if index is None:
            continue
        problem = float_layer.centred_problem if centred else float_layer.own_problem
        for block in range(len(problem.weight)):
            moment = problem.damped[block] if centred else problem.semidefinite[block]
            yield _Reader(name=layer.name, weight=problem.weight[block], moment=moment, index=index[block])


def _columns(channels: Channels, group: ChannelGroup, layer: Layer) -> Array | None:
    """The channel of `group` behind each column of a layer that reads it, (blocks, n); None where it reads none."""
    if layer.op not in INPUT_AXIS:
        return None
    index = channels.index(group, (layer.weight, INPUT_AXIS[layer.op]))
    if not (index >= 0).any():
        return None
    columns = np.tile(index, layer.weights // layer.outputs // len(index))  # the channel runs fastest
    blocks, padding = trace.blocks_of(layer)
    return np.append(columns, np.full(padding, -1)).reshape(blocks, -1)


def eliminate(
    channels: Channels, group: ChannelGroup, floats: Sequence[FloatLayer], counts: Collection[int] = ()
) -> Elimination:
    """Channels one after the other by the least error that is left, what remains fitted again each time; of many, a
    hundredth at once. `counts`: how many left give weights to keep."""
    states = [_state(reader, group.channels) for reader in _readers(channels, group, floats)]
    left, gone, fitted = np.ones(group.channels, bool), list[int](), {}
    while left.any():
        errors = np.where(left, sum(state.errors() for state in states), np.inf)
        total = int(left.sum())
        together = np.argsort(errors, kind="stable")[: max(1, total // 100)]
        stops = [total - count for count in counts if 0 < total - count < len(together)]
        for part in np.split(together, sorted(stops)):
            for state in states:
                state.remove(part)
            left[part] = False
            gone.extend(part.tolist())
            if (count := int(left.sum())) in counts:
                fitted[count] = {state.name: state.weight[None].copy() for state in states}
    return Elimination(order=np.array(gone, dtype=np.int64), fitted=fitted)


@dataclass(kw_only=True)
class _State:
    """A reader while channels go: weight (R, n) and inverse moment (n, n) of what is left; `columns` (C, s): those of
    each channel, of the channels `owners` (C,)."""

    name: str
    weight: Array
    inverse: Array
    owners: Array
    columns: Array
    energy: float
    channels: int

    def errors(self) -> Array:
        """The error that is left in the outputs without each channel too, as a share of their energy; 0 for channels
        that this layer does not read or that are gone."""
        blocks = self.inverse[self.columns[:, :, None], self.columns[:, None, :]]  # (C, s, s)
        lost = self.weight.T[self.columns]  # (C, s, R)
        found = np.zeros(self.channels)
        found[self.owners] = np.einsum("csr,csr->c", lost, np.linalg.solve(blocks, lost)) / self.energy
        return found

    def remove(self, gone: Array) -> None:
        """Take channels out and fit the rest again."""
        at = self.columns[np.isin(self.owners, gone)].reshape(-1)
        if not len(at):
            return
        rows = self.inverse[at]
        step = np.linalg.solve(rows[:, at], rows)  # ((H^-1)_SS)^-1 (H^-1)_S:
        self.weight -= self.weight[:, at] @ step
        self.weight[:, at] = 0.0
        self.inverse -= rows.T @ step
        self.inverse[at], self.inverse[:, at] = 0.0, 0.0
        self.inverse[at, at] = 1.0  # what is gone stays out of the way


def _state(reader: _Reader, channels: int) -> _State:
    owners = np.unique(reader.index[reader.index >= 0])
    energy = float(np.vdot(reader.weight @ reader.moment, reader.weight))
    return _State(
        name=reader.name,
        weight=reader.weight.copy(),
        inverse=np.linalg.inv(reader.moment),
        owners=owners,
        columns=np.stack([np.flatnonzero(reader.index == channel) for channel in owners]),
        energy=max(energy, 1e-30),
        channels=channels,
    )


def width_sensitivities(
    elimination: Elimination, floats: Sequence[FloatLayer], network: bytes, run: Run, signature: Signature = FIRST
) -> dict[int, float]:
    """How far the network's outputs move with so many channels of one group left, the layers that read them fitted
    again, by count: the divergence, on the inputs of `run`, of the outputs of `signature`."""
    reference, found = run(network), {}
    by_name = {float_layer.layer.name: float_layer for float_layer in floats}
    for count, weights in elimination.fitted.items():
        probe = Patchable(network)
        for name, weight in weights.items():
            float_layer = by_name[name]
            layer = float_layer.layer
            probe.write(layer.weight, trace.from_matrix(layer, weight).astype(np.float32))
            if layer.bias is not None:
                probe.write(layer.bias, corrected_bias(float_layer, weight))
        found[count] = float(divergence(reference, run(probe.snapshot()), signature).mean())
    return found


def prunable_groups(channels: Channels) -> tuple[tuple[ChannelGroup, ...], Mapping[str, str]]:
    """The groups that can be made narrower, and why the channels of other layers (by name) stay."""
    wide = {layer.name: layer for layer in channels.layers if trace.blocks_of(layer)[0] > 1}
    open_groups, reasons = [], dict(channels.frozen)
    for group in channels.groups:
        readers = [name for name, layer in wide.items() if _columns(channels, group, layer) is not None]
        if readers:
            reason = f"read by {readers[0]}, which has more than {trace.MAX_COLUMNS} columns"
            reasons |= dict.fromkeys(group.layers, reason)
        else:
            open_groups.append(group)
    return tuple(open_groups), reasons


def prune_channels(reconstruction: Reconstruction, model: bytes, channels: Channels, kept: Kept) -> ChannelPruned:
    """The float network `model` (that of `reconstruction` and `channels`) with only these channels, reconstructed."""
    tree = flatbuffer.read(model)
    channels.cut(tree, kept)
    flatbuffer.compact_buffers(tree)
    layers = layers_of(graph_of(tree))
    floats = [_cut(layer, f, channels, kept) for layer, f in zip(layers, reconstruction.floats, strict=True)]
    untouched = Configuration(layers={layer.name: LayerChoice() for layer in layers})
    solved = reconstruction.towards(tree, layers, floats).sequential(untouched)
    for n, (layer, values) in enumerate(zip(layers, solved, strict=True)):
        flatbuffer.set_constant(tree, layer.weight, values.weight)
        bias = values.bias
        if layer.bias is not None and bias is not None:
            flatbuffer.set_constant(tree, layer.bias, bias)
        floats[n] = replace(
            floats[n],
            weight=trace.to_matrix(layer, values.weight).astype(np.float64),
            bias=None if bias is None else bias.astype(np.float64),
        )
    return ChannelPruned(
        network=flatbuffer.write(tree), layers=layers, reconstruction=reconstruction.towards(tree, layers, floats)
    )


def _cut(layer: Layer, whole: FloatLayer, channels: Channels, kept: Kept) -> FloatLayer:
    """What calibration showed of a layer, for the layer with fewer channels."""
    old = whole.layer
    assert whole.moment is not None
    rows = _mask(channels.stays((old.weight, old.output_axis), kept), old.outputs)
    bias = None if whole.bias is None else whole.bias[rows]
    if old.op == "DEPTHWISE_CONV_2D":  # a product a channel
        stay = rows.reshape(len(whole.weight), -1)[:, 0]
        return FloatLayer(
            layer=layer,
            weight=whole.weight[stay],
            bias=bias,
            patches=whole.patches,
            products=whole.products[stay],
            moment=whole.moment[stay],
            mean=whole.mean[stay],
        )
    if trace.groups_of(old) > 1:
        return replace(whole, layer=layer)
    inputs = channels.stays((old.weight, INPUT_AXIS[old.op]), kept)
    width = whole.weight.shape[2]
    columns = np.ones(width, bool) if inputs is None else np.tile(inputs, width // len(inputs))
    return FloatLayer(
        layer=layer,
        weight=whole.weight[:, rows][:, :, columns],
        bias=bias,
        patches=whole.patches,
        products=whole.products[:, :, rows],
        moment=whole.moment[:, columns][:, :, columns],
        mean=whole.mean[:, columns],
    )


def _mask(stays: Array | None, size: int) -> Array:
    return np.ones(size, bool) if stays is None else stays
