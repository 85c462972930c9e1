"""Scales of outputs that static int8 kernels take.

XNNPACK refuses a whole network where a layer's input scale times its weight scale is 256 output scales or more: the
output of a dead layer, whose calibrated range is next to nothing. Such a range is widened, and so are the dead ones
behind it; its zeros stay zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autocompress.compression.reconstruct import SolvedLayer
from autocompress.compression.template import Ranges, Slot
from autocompress.network.graph import trace
from autocompress.network.graph.layers import Layer
from autocompress.network.tflite.graph import read_graph

_MOST = 256.0  # input scale x weight scale / output scale; xnn_create_convolution2d_nhwc_qs8 and its kin
_STEPS = 255


def least_widths(layers: Sequence[Layer], slots: Sequence[Slot], solved: Sequence[SolvedLayer]) -> dict[str, float]:
    """By layer name: how wide the range of its output must be at least, where its int8 scale is too fine."""
    found = {}
    for layer, slot, values in zip(layers, slots, solved, strict=True):
        if values.scale is None or slot.input_scale is None or slot.output_scale is None:
            continue
        product = slot.input_scale * float(values.scale.max())
        if product >= _MOST * slot.output_scale:
            # Powers of two, so that candidates share their templates.
            found[layer.name] = _STEPS * 2.0 ** math.ceil(math.log2(product / (_MOST / 2)))
    return found


def widened(model: bytes, layers: Sequence[Layer], ranges: Ranges, widths: Mapping[str, float]) -> Ranges:
    """The ranges with the outputs of these layers (by name) at least so wide, and what other operators make of them
    as wide as what they read."""
    graph = read_graph(model)
    names = [tensor.name for tensor in graph.tensors]
    own = {layer.operator: widths.get(layer.name, 0.0) for layer in layers}
    found, least = dict(ranges), dict[str, float]()
    for operator in graph.operators:
        read = max((least.get(names[i], 0.0) for i in operator.inputs if i >= 0), default=0.0)
        width = own.get(operator.position, read)
        for name in (names[i] for i in operator.outputs):
            if width > 0 and trace.is_bounded(ranges, name) and _width(*ranges[name]) < width:
                low = min(ranges[name][0], 0.0)
                found[name], least[name] = (low, low + width), width
    return found


def _width(low: float, high: float) -> float:
    return max(high, 0.0) - min(low, 0.0)
