"""Which signature of a file is meant, which outputs it names, and the network that holds nothing else."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from autocompress.errors import AutocompressError, unknown_name
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import Graph, graph_of
from autocompress.network.tflite.interpreter import TensorSpec
from autocompress.network.tflite.output_kind import kind_of, quantized_as
from autocompress.network.tflite.outputs import Output, Signature
from autocompress.network.tflite.tree import SubgraphTree, Tree

DEFAULT = "serving_default"


def keys_of(model: bytes) -> tuple[str, ...]:
    """The keys of the signatures in a file, in its order."""
    return tuple(_text(signature.signatureKey) for signature in flatbuffer.read(model).signatureDefs or [])


def chosen_key(keys: Sequence[str], asked: str | None) -> str | None:
    """The signature that is meant: the one `asked` for, the only one, else `serving_default`; None where a file has
    none. AutocompressError with all keys where that is not clear."""
    if asked is not None:
        if not keys:
            raise AutocompressError(f"the network has no signatures, so none is '{asked}'; leave --signature out")
        if asked not in keys:
            raise unknown_name("signature", asked, keys)
        return asked
    if len(keys) <= 1:
        return next(iter(keys), None)
    if DEFAULT in keys:
        return DEFAULT
    raise AutocompressError(
        f"the network has {len(keys)} signatures, {', '.join(keys)}; choose one: --signature {keys[0]}"
    )


def only(model: bytes, key: str) -> bytes:
    """The network of one signature: its graph as the main one, and those that it calls. A file that holds nothing else
    is given back as it is."""
    tree = flatbuffer.read(model)
    signatures = tree.signatureDefs or []
    if len(signatures) <= 1:
        return model
    signature = next(each for each in signatures if _text(each.signatureKey) == key)
    kept = _called(tree, int(signature.subgraphIndex))
    new = {old: number for number, old in enumerate(kept)}
    for graph in (tree.subgraphs[old] for old in kept):
        for options, name in _references(graph):
            setattr(options, name, new[getattr(options, name)])
    signature.subgraphIndex = 0
    tree.subgraphs, tree.signatureDefs = [tree.subgraphs[old] for old in kept], [signature]
    _keep_used_codes(tree)
    flatbuffer.compact_buffers(tree)
    return flatbuffer.write(tree)


def _called(tree: Tree, first: int) -> list[int]:
    """The subgraphs that `first` needs, itself in front."""
    found = [first]
    for number in found:
        for options, name in _references(tree.subgraphs[number]):
            if getattr(options, name) not in found:
                found.append(getattr(options, name))
    return found


def _references(graph: SubgraphTree) -> Iterator[tuple[Any, str]]:
    """Where operators (WHILE, IF, CALL_ONCE, ...) name other subgraphs: options and field."""
    for operator in graph.operators:
        for options in (operator.builtinOptions, getattr(operator, "builtinOptions2", None)):
            for name in () if options is None else vars(options):
                if name.lower().endswith(("subgraph", "subgraphindex")) and getattr(options, name) >= 0:
                    yield options, name


def _keep_used_codes(tree: Tree) -> None:
    # A runtime refuses a file for an operator that it does not know, even one that nothing uses.
    operators = [operator for graph in tree.subgraphs for operator in graph.operators]
    used = sorted({operator.opcodeIndex for operator in operators})
    tree.operatorCodes = [copy.copy(tree.operatorCodes[old]) for old in used]
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)


def signature_of(network: bytes, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
    """The signature of a normalised network of one signature, nothing judged yet. `inputs` and `outputs`: of its main
    graph, as it runs."""
    tree = flatbuffer.read(network)
    graph = graph_of(tree)
    ports, key = _ports(tree)
    found, left_out = list[Output](), list[str]()
    for name, tensor in ports:
        position = graph.outputs.index(tensor)
        shape = outputs[position].shape
        moves = tensor in graph.computed - graph.fixed
        if moves and shape and inputs[0].shape and shape[0] == inputs[0].shape[0]:
            found.append(_output(graph, name, position, outputs[position]))
        else:
            left_out.append(name)
    if not found:  # the metric's business: what runs the network says what is wrong
        name = next((name for name, tensor in ports if tensor == graph.outputs[0]), ports[0][0])
        found = [_output(graph, name, 0, outputs[0])]
        left_out.remove(name)
    return Signature(outputs=tuple(found), judged=None, key=key, left_out=tuple(left_out))


def _output(graph: Graph, name: str, position: int, spec: TensorSpec) -> Output:
    tensor = graph.outputs[position]
    kind, quantized = kind_of(graph, tensor), quantized_as(graph.tensors[tensor])
    return Output(name=name, position=position, shape=spec.shape, dtype=spec.dtype, kind=kind, quantized=quantized)


def _ports(tree: Tree) -> tuple[list[tuple[str, int]], str | None]:
    """Name and tensor of each output, in the user's order, and the key of the signature."""
    graph, signatures = tree.subgraphs[0], tree.signatureDefs or []
    own = signatures[0] if len(signatures) == 1 and int(signatures[0].subgraphIndex) == 0 else None
    ports = [] if own is None else [(_text(port.name), int(port.tensorIndex)) for port in own.outputs or ()]
    if own is not None and ports and {tensor for _, tensor in ports} <= {int(i) for i in graph.outputs}:
        return _in_order(ports), None if own.signatureKey == flatbuffer.OWN_SIGNATURE else _text(own.signatureKey)
    return _in_order([(_text(graph.tensors[int(i)].name), int(i)) for i in graph.outputs]), None


def output_names(tree: Tree) -> dict[int, str]:
    """The signature's names of the main graph's outputs, by tensor, where there are several: of those the names that
    converters give to tensors say nothing."""
    graph = tree.subgraphs[0]
    ports, _ = _ports(tree)
    return {tensor: name for name, tensor in ports} if len(graph.outputs) > 1 else {}


def _in_order(ports: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """By their numbers where the names differ in nothing else (output_0, output_1, ..., Name, Name:1, ...): files list
    them by the alphabet, or turned round. Else as they stand."""
    split = [re.fullmatch(r"(.*?)[:_]?(\d*)", name, re.DOTALL) for name, _ in ports]
    stems = {found[1] for found in split if found is not None}
    if len(stems) > 1:
        return ports
    numbers = [int(found[2] or -1) for found in split if found is not None]
    return [ports[at] for at in sorted(range(len(ports)), key=lambda n: numbers[n])]


def judging(signature: Signature, output: str | None, *, one: bool, metric: str) -> Signature:
    """The signature with the output that the metric judges: the one called `output`, the only one, else all. `one`:
    the metric judges a single output; AutocompressError where none of several is named."""
    names = [each.name for each in signature.outputs]
    if output is not None:
        if output in signature.left_out:
            raise AutocompressError(
                f"output '{output}' does not depend on the inputs, or has no row a sample; --output takes one of: "
                + ", ".join(names)
            )
        if output not in names:
            raise unknown_name("output", output, names)
        return replace(signature, judged=names.index(output))
    if len(names) == 1:
        return replace(signature, judged=0)
    if one:
        listed = ", ".join(f"{name} {shape}" for name, shape in _shapes(signature))
        raise AutocompressError(
            f"the network has {len(names)} outputs, {listed}, and {metric} judges one; name it: --output {names[0]}"
        )
    return signature


def _shapes(signature: Signature) -> Iterator[tuple[str, str]]:
    from autocompress.records.output import shape_text

    return ((each.name, shape_text(each.shape[1:])) for each in signature.outputs)


def _text(name: bytes | str | None) -> str:
    return name if isinstance(name, str) else (name or b"").decode(errors="replace")
