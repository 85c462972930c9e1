"""What the network gives when one layer alone is compressed and the layers behind it make up for it.

A layer's error harms a network far less than its outputs say when nothing behind it reacts (a ResNet-8's first layer at
80 % zeros: a twenty-fifth of the divergence). So the probes of the layer tables are taken with the layers behind fitted
to the float network's outputs, as they are in every candidate, on a few calibration samples. In large networks only the
next layers are: what they leave goes through the rest of the float network, which runs without being looked at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from autocompress.compression.reconstruct import FloatLayer, Reconstruction, SolvedLayer, fitted, untouched
from autocompress.network.graph.segments import STAGE
from autocompress.network.tflite.outputs import FIRST, Signature

Array = np.ndarray[Any, Any]
_PATCHES = 2048  # looked at in each layer
_FEWEST_PATCHES = 512  # in layers of few columns, where only the next layers are fitted
NEXT = 4  # layers that are fitted in large networks, and those up to the next stage


class CompensatedProbe:
    """A walk through the float network; at each layer it can be left for the same network with that layer changed."""

    def __init__(
        self, reconstruction: Reconstruction, samples: int, signature: Signature = FIRST, fits: int | None = None
    ) -> None:
        """`fits`: how many layers behind a changed one are fitted at least; None: all."""
        self._signature, self._fits = signature, fits
        few = _PATCHES if fits is None else _FEWEST_PATCHES
        self._segments, self._floats = reconstruction.head(samples, _PATCHES, few)
        self._state, self._position = self._segments.start, 0

    def threads(self, count: int) -> None:
        """Run on so many threads from now on."""
        self._segments.threads = count

    def walk(self) -> Iterator[FloatLayer]:
        """The layers in order, as traced on the few samples; `outputs` speaks of the last one given."""
        for position, float_layer in enumerate(self._floats):
            self._position = position
            yield float_layer
            if position + 1 < len(self._floats):
                whole = untouched(float_layer)
                self._state = self._segments.after(position, self._state, whole.weight, whole.bias)

    def outputs(self, changed: SolvedLayer) -> Array:
        """The signature's outputs, packed (samples, ...), when the walk's own layer is as `changed` and each layer
        behind it, as far as `fits` says, is fitted on the inputs that it then gets."""
        state, layer = self._state, changed
        for position in range(self._position + 1, len(self._floats)):
            state = self._segments.after(position - 1, state, layer.weight, layer.bias)
            if self._is_left_alone(position):
                return self._segments.finish(position, state, self._signature)
            float_layer = self._floats[position]
            layer = fitted(float_layer, state[float_layer.layer.input], scarce=self._fits is not None)
        return self._segments.outputs(state, layer.weight, layer.bias, self._signature)

    def _is_left_alone(self, position: int) -> bool:
        """Whether this layer and all behind it stay as in the float network."""
        return self._fits is not None and position % STAGE == 0 and position > self._position + self._fits

    @cached_property
    def reference(self) -> Array:
        """The float network's outputs, packed, on the same samples."""
        state, layer = self._segments.start, untouched(self._floats[0])
        for position, float_layer in enumerate(self._floats[1:]):
            state = self._segments.after(position, state, layer.weight, layer.bias)
            layer = untouched(float_layer)
        return self._segments.outputs(state, layer.weight, layer.bias, self._signature)
