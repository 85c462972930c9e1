"""Reading, normalising, stripping and writing TFLite flatbuffers.

Object trees are `ModelT` of the TFLite schema, as `ai_edge_litert` generates it."""

from __future__ import annotations

import copy
import functools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.network.tflite import sparse, validate
from autocompress.network.tflite.appended import appended
from autocompress.network.tflite.shared_quantization import SharedQuantization, SharedVectors
from autocompress.network.tflite.tree import OperatorTree, Tree

_CONVERSION = b"CONVERSION_METADATA"  # how the float file was made, which is not true of what is made of it
_IDENTIFIER = b"TFL3"
OWN_SIGNATURE = b"autocompress"  # of files that come without one
_DAMAGE = (struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError)  # of reading random bytes


def read(model: bytes) -> Tree:
    """The object tree of a `.tflite`, and as `appended` the archive behind it; AutocompressError where the bytes are no
    whole TFLite file."""
    from ai_edge_litert.tools import flatbuffer_utils

    if not model:
        raise AutocompressError("the model file is empty (0 bytes); give a whole .tflite file")
    if model[4:8] != _IDENTIFIER:
        raise AutocompressError(
            f"the model is not a TFLite file (identifier {bytes(model[4:8])!r}, expected b'TFL3'); "
            "convert it first or give a .keras, .h5 or SavedModel"
        )
    try:
        tree: Tree = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
        validate.fill_missing(tree)
        validate.check_whole(tree)
        tree.appended = appended(model)
    except _DAMAGE as fault:
        raise AutocompressError(
            f"the model file is truncated or damaged ({type(fault).__name__}); copy it again and check its size"
        ) from fault
    if not tree.subgraphs[0].operators:
        raise AutocompressError("the model has no operators; give a trained network")
    return tree


def type_name(tensor_type: int) -> str:
    """The schema's name of a tensor type (INT8, FLOAT32, ...)."""
    return _type_names().get(tensor_type, f"TYPE_{tensor_type}")


@functools.cache
def _type_names() -> dict[int, str]:
    from ai_edge_litert.schema_py_generated import TensorType

    return {value: name for name, value in vars(TensorType).items() if isinstance(value, int) and name.isupper()}


def op_name(tree: Tree, operator: OperatorTree) -> str:
    """The operator's name as in the schema (CONV_2D); custom operators by their own name."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    code = tree.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == BuiltinOperator.CUSTOM:
        return f"CUSTOM:{(code.customCode or b'').decode(errors='replace')}"
    return builtin_names().get(number, f"BUILTIN_{number}")  # a newer file's: the runtime has the last word


@functools.cache
def builtin_names() -> dict[int, str]:
    """The schema's name of each builtin operator number."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {v: k for k, v in vars(BuiltinOperator).items() if isinstance(v, int)}


def constant(tree: Tree, index: int) -> np.ndarray[Any, Any] | None:
    """The value of tensor `index` of the main graph, shaped, read-only; None where it is no constant. What is stored
    sparse is given dense."""
    tensor = tree.subgraphs[0].tensors[index]
    shape = tuple(int(n) for n in tensor.shape)
    return decoded(tree.buffers[tensor.buffer].data, tensor.type, shape, tensor.sparsity)


def decoded(
    data: np.ndarray[Any, Any] | None, tensor_type: int, shape: tuple[int, ...], sparsity: Any
) -> np.ndarray[Any, Any] | None:
    """The stored bytes of a tensor as its value: read-only, dense, a view where it is stored so; None without bytes, or
    for a type that NumPy lacks."""
    dtype = validate.numpy_dtype(tensor_type)
    if data is None or dtype is None:
        return None
    stored = np.frombuffer(data, dtype)
    stored.flags.writeable = False
    return stored.reshape(shape) if sparsity is None else sparse.decode(sparsity, stored, shape)


def constants(model: bytes) -> tuple[slice, ...]:
    """Which bytes of a serialised network are constants, or indices of sparse ones, in the order in which they lie
    there."""
    from ai_edge_litert.schema_py_generated import Model

    root, whole = Model.GetRootAs(model, 0), np.frombuffer(model, np.uint8)
    buffers = map(root.Buffers, range(root.BuffersLength()))
    views = [buffer.DataAsNumpy() for buffer in buffers if not buffer.DataIsNone()]
    graphs = map(root.Subgraphs, range(root.SubgraphsLength()))
    for tensor in (graph.Tensors(n) for graph in graphs for n in range(graph.TensorsLength())):
        views += sparse.index_views(tensor)
    starts = [view.__array_interface__["data"][0] - whole.__array_interface__["data"][0] for view in views]
    return tuple(
        slice(start, start + len(view)) for start, view in sorted(zip(starts, views, strict=True), key=lambda s: s[0])
    )


def set_constant(tree: Tree, index: int, value: np.ndarray[Any, Any]) -> None:
    """Write `value` into the buffer of tensor `index` of the main graph."""
    buffer = tree.buffers[tree.subgraphs[0].tensors[index].buffer]
    buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)


def normalise(model: bytes) -> bytes:
    """The float network every part works on, with the outputs of `model` unchanged.

    Operator codes of old files are completed, sparse weights behind DENSIFY become dense, float16 weights behind
    DEQUANTIZE become float32, layers that share a buffer get their own, tensor names become unique, a file without a
    signature gets one (`strip` takes it away).
    AutocompressError for a quantized or damaged model."""
    tree = read(model)
    _complete_operator_codes(tree)
    densify(tree)
    _widen_float16(tree)
    _refuse_quantized(tree)
    _unshare_buffers(tree)
    _drop_unused_tensors(tree)
    _unique_names(tree)
    _sign(tree)
    return write(tree)


def _complete_operator_codes(tree: Tree) -> None:
    # Files before schema v3a fill only the deprecated field; readers of the new one see every op as ADD (0).
    for code in tree.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)


def densify(tree: Tree) -> None:
    """Store dense what the main graph stores sparse, without its DENSIFY."""
    from ai_edge_litert.schema_py_generated import BufferT

    graph, kept = tree.subgraphs[0], []
    for operator in graph.operators:
        source = int(operator.inputs[0]) if len(operator.inputs) else -1
        if op_name(tree, operator) != "DENSIFY" or (dense := constant(tree, source)) is None:
            kept.append(operator)
            continue
        tree.buffers.append(BufferT())
        graph.tensors[int(operator.outputs[0])].buffer = len(tree.buffers) - 1
        graph.tensors[source].buffer, graph.tensors[source].sparsity = 0, None
        set_constant(tree, int(operator.outputs[0]), dense)
    graph.operators = kept


def _widen_float16(tree: Tree) -> None:
    """Replace constant float16 tensors behind DEQUANTIZE by float32 constants and drop these DEQUANTIZE."""
    from ai_edge_litert.schema_py_generated import BufferT, TensorType

    for graph in tree.subgraphs:
        kept = []
        for operator in graph.operators:
            source = graph.tensors[operator.inputs[0]] if len(operator.inputs) else None
            data = None if source is None else tree.buffers[source.buffer].data
            if (
                op_name(tree, operator) != "DEQUANTIZE"
                or data is None
                or source is None
                or source.type != TensorType.FLOAT16
            ):
                kept.append(operator)
                continue
            wide = np.frombuffer(bytes(data), np.float16).astype(np.float32)
            buffer = BufferT()
            buffer.data = np.frombuffer(wide.tobytes(), np.uint8)
            tree.buffers.append(buffer)
            graph.tensors[operator.outputs[0]].buffer = len(tree.buffers) - 1
        graph.operators = kept


def _drop_unused_tensors(tree: Tree) -> None:
    """Empty the buffers of tensors nobody reads any more (their tables stay: indices must not move)."""
    for graph in tree.subgraphs:
        used = set(graph.inputs) | set(graph.outputs)
        for operator in graph.operators:
            used.update(int(i) for i in (*operator.inputs, *operator.outputs))
        for index, tensor in enumerate(graph.tensors):
            if index not in used:
                tensor.buffer = 0
    compact_buffers(tree)


def compact_buffers(tree: Tree) -> None:
    """Keep only the buffers that are used, empty ones all as buffer 0."""
    owners = [t for g in tree.subgraphs for t in g.tensors] + list(tree.metadata or [])
    used = sorted({o.buffer for o in owners if tree.buffers[o.buffer].data is not None})
    new = {old: position + 1 for position, old in enumerate(used)}
    empty = tree.buffers[0]
    empty.data = None
    tree.buffers = [empty, *(tree.buffers[old] for old in used)]
    for owner in owners:
        owner.buffer = new.get(owner.buffer, 0)


def _refuse_quantized(tree: Tree) -> None:
    for graph in tree.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            parameters = tensor.quantization
            if parameters is not None and parameters.scale is not None and len(parameters.scale):
                name = _text(tensor.name).decode() or str(index)
                raise AutocompressError(
                    f"the model is already quantized (tensor '{name}'); give the float network it was made from"
                )


def _unshare_buffers(tree: Tree) -> None:
    # The converter merges equal constants (two zero biases); each layer must own what will be written into it.
    from ai_edge_litert.schema_py_generated import BufferT

    seen: set[int] = set()
    for graph in tree.subgraphs:
        for operator in graph.operators:
            for position, index in enumerate(operator.inputs):
                tensor = graph.tensors[index] if index >= 0 else None
                if tensor is None or tree.buffers[tensor.buffer].data is None:
                    continue
                if tensor.buffer in seen:
                    operator.inputs[position] = _copy_tensor(tree, graph, index, BufferT())
                else:
                    seen.add(tensor.buffer)


def _copy_tensor(tree: Tree, graph: Any, index: int, buffer: Any) -> int:
    tensor = copy.copy(graph.tensors[index])
    buffer.data = tree.buffers[tensor.buffer].data
    tree.buffers.append(buffer)
    tensor.buffer = len(tree.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _unique_names(tree: Tree) -> None:
    # ai-edge-quantizer finds operators by the names of their outputs.
    seen: set[bytes] = set()
    for graph in tree.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            name = _text(tensor.name) or f"tensor_{index}".encode()
            while name in seen:
                name += f"_{index}".encode()
            seen.add(name)
            tensor.name = name
    for signature in tree.signatureDefs or []:
        signature.signatureKey = _text(signature.signatureKey)
        for port in (*(signature.inputs or ()), *(signature.outputs or ())):
            port.name = _text(port.name)


def _sign(tree: Tree) -> None:
    """Name inputs and outputs as their tensors are: ai-edge-quantizer wants a signature for static activations."""
    from ai_edge_litert.schema_py_generated import SignatureDefT, TensorMapT

    def port(index: int) -> Any:
        made = TensorMapT()
        made.name, made.tensorIndex = tree.subgraphs[0].tensors[index].name, index
        return made

    if tree.signatureDefs:
        return
    signature = SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = OWN_SIGNATURE, 0
    signature.inputs = [port(int(i)) for i in tree.subgraphs[0].inputs]
    signature.outputs = [port(int(i)) for i in tree.subgraphs[0].outputs]
    tree.signatureDefs = [signature]


def _text(name: bytes | None) -> bytes:
    # The runtime's Python side stumbles over names that are no UTF-8.
    return (name or b"").decode(errors="replace").encode()


def watched(model: bytes, tensors: Sequence[int]) -> bytes:
    """The network with these tensors of its main graph as its outputs."""
    tree = read(model)
    tree.subgraphs[0].outputs, tree.signatureDefs = list(tensors), None
    return write(tree)


def strip(tree: Tree) -> None:
    """Drop what running does not need: names (but of inputs and outputs), descriptions, calibration ranges, how the
    float network was converted, unused buffers. All other metadata stay."""
    tree.description = None
    tree.metadata = [m for m in tree.metadata or [] if m.name != _CONVERSION]
    tree.signatureDefs = [s for s in tree.signatureDefs or [] if s.signatureKey != OWN_SIGNATURE] or None
    for graph in tree.subgraphs:
        kept = set(graph.inputs) | set(graph.outputs)
        for index, tensor in enumerate(graph.tensors):
            if index not in kept:
                tensor.name = None
            if tensor.quantization is not None:
                tensor.quantization.min = tensor.quantization.max = None
                if tensor.quantization.scale is None or not len(tensor.quantization.scale):
                    tensor.quantization = None
    _drop_unused_tensors(tree)


def write(tree: Tree) -> bytes:
    """The bytes of an object tree, each buffer aligned to 16 bytes as the schema asks for, equal quantization vectors
    stored once, and behind them the archive that stood behind what was read."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    originals, quantized = tree.buffers, _shared_quantization(tree)
    tree.buffers = [_aligned_buffer()(buffer.data) for buffer in originals]
    try:
        builder.Finish(tree.Pack(builder), file_identifier=_IDENTIFIER)
    finally:
        tree.buffers = originals
        for tensor, parameters in reversed(quantized):
            tensor.quantization = parameters
    written, archive = bytes(builder.Output()), getattr(tree, "appended", None)
    return written if archive is None else archive.behind(written)


def _shared_quantization(tree: Tree) -> list[tuple[Any, Any]]:
    """Let tensors share what is equal of their quantization; what each of them had. Scales of constants stay apart:
    builders write others into them, in place."""
    shared, found = SharedVectors(), []
    for tensor in (tensor for graph in tree.subgraphs for tensor in graph.tensors):
        if tensor.quantization is not None:
            constant = tree.buffers[tensor.buffer].data is not None
            found.append((tensor, tensor.quantization))
            packed: Any = SharedQuantization(tensor.quantization, shared, constant)
            tensor.quantization = packed
    return found


@functools.cache
def _aligned_buffer() -> type[Any]:
    """A buffer whose Pack honours `force_align: 16`, which the generated Python code forgets."""
    from ai_edge_litert import schema_py_generated as schema

    class AlignedBuffer(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> int:  # noqa: N802
            if self.data is None:
                return int(super().Pack(builder))
            payload = bytes(self.data)
            builder.StartVector(1, len(payload), 16)
            builder.head -= len(payload)
            builder.Bytes[builder.head : builder.head + len(payload)] = payload
            data = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, data)
            return int(schema.BufferEnd(builder))

    return AlignedBuffer
