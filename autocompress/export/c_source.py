"""A network as C source: an aligned array and its header, for TensorFlow Lite Micro."""

from __future__ import annotations

import re

from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import INPUTS, Graph, Operator, graphs_of, read_graph
from autocompress.network.tflite.micro import MicroRun
from autocompress.network.tflite.signature import output_names

_BYTES_A_LINE = 16
# Names of MicroMutableOpResolver's methods where they are not the operator's words with capitals.
_METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}


def identifier(name: str) -> str:
    """A C identifier made of any name: `model_` and its ASCII letters and digits, everything else as _."""
    return f"model_{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')}".rstrip("_")


def c_files(model: bytes, name: str, about: str, checked: MicroRun | None = None) -> tuple[str, str]:
    """Source and header of `model` as array `name` (an identifier) with its length `name_len`, ASCII; `about` is a line
    for their comments, `checked` how the file ran in TensorFlow Lite Micro. C11 and C++11 compilers take both."""
    comment = _comment(about)
    source = (
        f'{comment}#include "{name}.h"\n\n'
        f"alignas(16) const unsigned char {name}[{len(model)}] = {{\n{_rows(model)}\n}};\n"
        f"const unsigned int {name}_len = {len(model)};\n"
    )
    guard = f"{name.upper()}_H_"
    header = (
        f"{comment}{_operator_note(model)}{_arena_note(checked)}{_output_note(model)}"
        f"#ifndef {guard}\n#define {guard}\n\n"
        "#include <stdalign.h>\n\n"
        '#ifdef __cplusplus\nextern "C" {\n#endif\n\n'
        f"alignas(16) extern const unsigned char {name}[{len(model)}];\nextern const unsigned int {name}_len;\n\n"
        f"#ifdef __cplusplus\n}}\n#endif\n\n#endif  /* {guard} */\n"
    )
    return source, header


def operators(model: bytes) -> tuple[str, ...]:
    """The kinds of operators of all subgraphs, sorted."""
    return tuple(sorted({operator.op for graph in graphs_of(flatbuffer.read(model)) for operator in graph.operators}))


def mixed_layers(model: bytes) -> int:
    """How many layers have integer weights and float inputs. TensorFlow Lite Micro refuses those of dynamic range;
    where a DEQUANTIZE unpacks the weights, it does so at every inference and with the scale of one channel for all."""
    graph = read_graph(model)
    return sum(_is_mixed(graph, operator) for operator in graph.operators)


def _is_mixed(graph: Graph, operator: Operator) -> bool:
    if operator.op not in INPUTS:
        return False
    read, weight = (operator.inputs[at] for at in INPUTS[operator.op][:2])
    stored = graph.stored(weight)
    inputs, weights = (graph.tensors[i].type for i in (read, weight if stored is None else stored))
    return inputs == "FLOAT32" and weights in ("INT8", "INT4")


def _rows(model: bytes) -> str:
    starts = range(0, len(model), _BYTES_A_LINE)
    return "\n".join("    " + " ".join(f"0x{byte:02x}," for byte in model[at : at + _BYTES_A_LINE]) for at in starts)


def _operator_note(model: bytes) -> str:
    names = operators(model)
    lines = [f"tflite::MicroMutableOpResolver<{len(names)}> resolver;"]
    for name in names:
        custom = name.removeprefix("CUSTOM:")
        lines.append(f"resolver.{_method(name)}();" if custom == name else f'resolver.AddCustom("{custom}", ...);')
    if count := mixed_layers(model):
        lines.append(f"NOTE: {count} layers have integer weights and float inputs, which TensorFlow Lite Micro refuses")
        lines.append("or computes with wrong scales: pick a trial whose activations are int8 for a microcontroller.")
    return _comment("The operators of this network, for TensorFlow Lite Micro:", *lines)


def _arena_note(checked: MicroRun | None) -> str:
    """The arena that the network needs; nothing where that is not known."""
    if checked is None:
        return ""
    return _comment(
        f"Arena: {checked.arena_bytes} bytes, {checked.persistent_bytes} of them persistent, in tflite-micro "
        f"{checked.version}",
        "on a 64-bit host; the pointers in the persistent part are half as long on a 32-bit target.",
    )


def _output_note(model: bytes) -> str:
    """Which of several outputs is which; nothing where there is one."""
    tree = flatbuffer.read(model)
    names, outputs = output_names(tree), tree.subgraphs[0].outputs
    lines = [f"interpreter.output({n}) is {names[int(i)]}" for n, i in enumerate(outputs) if int(i) in names]
    return _comment("The outputs of this network:", *lines) if lines else ""


def _method(name: str) -> str:
    words = [word if word == "2D" else word.capitalize() for word in name.split("_")]
    return "Add" + _METHODS.get(name, "".join(words))


def _comment(*lines: str) -> str:
    """The lines as a C comment that nothing in them can end: printable ASCII, no comment within, no trigraph."""
    clean = ("".join(c if " " <= c <= "~" else "_" for c in line) for line in lines)
    return "/* " + "\n   ".join(re.sub(r"\*(?=/)|/(?=\*)|\?(?=\?)", r"\g<0> ", line) for line in clean) + " */\n"
