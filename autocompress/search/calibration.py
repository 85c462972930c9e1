"""Calibrating a device's latency model: the designed set in every precision, measured there, then fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autocompress.compress.skeleton import make_skeleton, quantize_plainly
from autocompress.errors import AutocompressError
from autocompress.measure.host import Host
from autocompress.network import flatbuffer, trace
from autocompress.network.designs import Design, designed_set
from autocompress.network.layers import layers_of

DTYPES = ("float32", "dynamic", "int8")
_MIXED = 3  # every so many whole networks come with every other layer quantized, too


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """One file of the designed set: a design in one dtype, or with float and quantized layers mixed."""

    design: str
    kind: str
    dtype: str
    model: bytes


def specimens(designs: Sequence[Design]) -> Iterator[Specimen]:
    """Every design in float32, and quantized by the builder of candidates: dynamic range where it has a layer,
    static int8."""
    for design in designs:
        for dtype, model in _variants(design):
            yield Specimen(design=design.name, kind=design.kind, dtype=dtype, model=model)


def _variants(design: Design) -> Iterator[tuple[str, bytes]]:
    model = design.model
    yield "float32", model
    tree = flatbuffer.read(model)
    shape = tuple(int(n) for n in tree.subgraphs[0].tensors[0].shape)
    sample = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    ranges = trace.activation_ranges(model, {0: sample}, chunk=1, threads=1)
    try:
        layers = layers_of(tree)
    except AutocompressError:  # a chain of operators without weights
        yield "int8", quantize_plainly(model, (), ranges)
        return
    eights = [8] * len(layers)
    yield "dynamic", make_skeleton(model, layers, eights, "float32", None).patch.snapshot()
    yield "int8", make_skeleton(model, layers, eights, "int8", ranges).patch.snapshot()
    if design.kind == "network" and int(design.name.rsplit("-", 1)[1]) % _MIXED == 0:
        mixed = [8 if position % 2 else 32 for position in range(len(layers))]
        yield "mixed-dynamic", make_skeleton(model, layers, mixed, "float32", None).patch.snapshot()
        yield "mixed-int8", make_skeleton(model, layers, mixed, "int8", ranges).patch.snapshot()
