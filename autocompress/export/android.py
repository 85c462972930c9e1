"""TFLite metadata, as Android's tools read it: what the network is, its inputs and outputs.

The schema is `metadata_schema.fbs` of TFLite Support (file identifier M001), written field by field. Contained: name,
description, licence, and of each input and output the name, a description and, where the user gives it, the
normalisation of the inputs. Not contained, because no study knows it: the meaning of classes (label files), whether an
input is an image, and value ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import Graph, Tensor, graph_of
from autocompress.network.tflite.signature import output_names

METADATA_NAME = b"TFLITE_METADATA"
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"
_NORMALIZATION = 1  # of the union ProcessUnitOptions


@dataclass(frozen=True, kw_only=True)
class About:
    """What the metadata say of a network. `normalisation`: (mean, standard deviation) that the app shall apply to raw
    inputs; None: not known."""

    name: str
    description: str
    version: str
    licence: str | None
    normalisation: tuple[float, float] | None


def has_metadata(model: bytes) -> bool:
    """Whether the file carries TFLite metadata already."""
    return any(entry.name == METADATA_NAME for entry in flatbuffer.read(model).metadata or [])


def with_metadata(model: bytes, about: About) -> bytes:
    """The network with metadata in it: weights, operators and tensors are the same, the file is another one."""
    import numpy as np
    from ai_edge_litert.schema_py_generated import BufferT, MetadataT

    tree = flatbuffer.read(model)
    buffer, entry = BufferT(), MetadataT()
    buffer.data = np.frombuffer(_metadata(graph_of(tree), about, output_names(tree)), np.uint8)
    tree.buffers.append(buffer)
    entry.name, entry.buffer = METADATA_NAME, len(tree.buffers) - 1
    tree.metadata = [*(tree.metadata or []), entry]
    return flatbuffer.write(tree)


def _metadata(graph: Graph, about: About, names: Mapping[int, str]) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    inputs = [_tensor(builder, graph.tensors[i], "input", n, about.normalisation) for n, i in enumerate(graph.inputs)]
    outputs = [_tensor(builder, graph.tensors[i], "output", n, None, names.get(i)) for n, i in enumerate(graph.outputs)]
    graph_at = _table(builder, 10, {2: _vector(builder, inputs), 3: _vector(builder, outputs)})
    strings = {0: about.name, 1: about.description, 2: about.version, 5: about.licence, 7: _PARSER_VERSION}
    fields = {slot: builder.CreateString(text) for slot, text in strings.items() if text is not None}
    root = _table(builder, 8, fields | {3: _vector(builder, [graph_at])})
    builder.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _tensor(
    builder: Any,
    tensor: Tensor,
    kind: str,
    number: int,
    normalisation: tuple[float, float] | None,
    given: str | None = None,
) -> int:
    """A TensorMetadata table: 0 name (`given`, else the tensor's), 1 description, 4 process units."""
    shape = " x ".join(map(str, tensor.shape))
    dtype = tensor.type.lower()
    name = given or tensor.name or f"{kind} {number}"
    fields = {0: builder.CreateString(name), 1: builder.CreateString(f"{kind} {number}: {dtype}, shape {shape}")}
    if normalisation is not None:
        fields[4] = _vector(builder, [_normalization(builder, *normalisation)])
    return _table(builder, 7, fields)


def _normalization(builder: Any, mean: float, deviation: float) -> int:
    """A ProcessUnit table of NormalizationOptions (0 mean, 1 std): the network sees (value - mean) / std."""
    options = _table(builder, 2, {0: _floats(builder, mean), 1: _floats(builder, deviation)})
    builder.StartObject(2)
    builder.PrependUint8Slot(0, _NORMALIZATION, 0)
    builder.PrependUOffsetTRelativeSlot(1, options, 0)
    return int(builder.EndObject())


def _floats(builder: Any, value: float) -> int:
    builder.StartVector(4, 1, 4)
    builder.PrependFloat32(value)
    return int(builder.EndVector())


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _table(builder: Any, slots: int, fields: dict[int, int]) -> int:
    builder.StartObject(slots)
    for slot, offset in fields.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return int(builder.EndObject())
