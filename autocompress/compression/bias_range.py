"""Scales of weights under which the integers of a static bias hold it.

A bias of a static layer counts in input scale times weight scale (TFLite's quantization specification). The scale of a
channel whose weights are all zero, or next to it, is tiny: its bias would be clipped to next to nothing, and a dead
channel that is not zero but its bias is what batch normalisation leaves of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from autocompress.compression.reconstruct import SolvedLayer
from autocompress.network.tflite.short_floats import short

Array = np.ndarray[Any, Any]
MOST_BIAS = {"int8": 2**31 - 1, "int16": 2**40}  # what the integers hold, by activations
_ROOM = 0.98  # of that, so that biases in coarse steps still fit


def with_room(layer: SolvedLayer, axis: int, input_scale: float, activations: str) -> SolvedLayer:
    """An integer layer with larger scales in those output channels (along `axis` of its weight) whose bias does not
    fit, and its weights rounded to them: each loses at most a billionth of the bias over the input's scale. The layer
    itself where all fit."""
    assert layer.levels is not None
    assert layer.scale is not None
    assert layer.bias is not None
    most, scale = MOST_BIAS[activations], layer.scale.astype(np.float64)
    counted = np.abs(layer.bias.astype(np.float64)) / (input_scale * scale)
    beyond = counted > _ROOM * most
    if not beyond.any():
        return layer
    larger = np.where(beyond, short(2.0 * counted / most * scale, up=True), scale).astype(np.float32)
    by_channel = [-1 if n == axis else 1 for n in range(layer.levels.ndim)]
    ratio = (scale / larger).reshape(by_channel)
    levels = np.where(beyond.reshape(by_channel), np.rint(layer.levels * ratio), layer.levels).astype(np.int8)
    weight = levels * larger.reshape(by_channel)
    return replace(layer, weight=weight.astype(np.float32), levels=levels, scale=larger)
