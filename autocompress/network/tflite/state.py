"""Networks that keep state from one call to the next, as streaming keyword spotters do.

What such a network says of a sample depends on the calls before it: on the order of samples, on how many lanes they are
spread over, and, of a sensitivity, on what was tried before. Operators over whole sequences keep a state too, but only
within a call: it is reset before each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autocompress.errors import AutocompressError
from autocompress.network.tflite import flatbuffer

_WITHIN_A_CALL = (
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
)


def refuse_state(tree: Any) -> None:
    """AutocompressError for a network that remembers the call before."""
    keeping = sorted(set(_keeping(tree)))
    if keeping:
        raise AutocompressError(
            f"it keeps state from one call to the next ({', '.join(keeping)}), so that samples depend on those before "
            "them; give the network as it was trained, on whole sequences (n, time, ...) that each start anew"
        )


def _keeping(tree: Any) -> Iterator[str]:
    """The operators that write what the next call reads. What fills variables once, when a network is loaded, does
    not."""
    once = set(_filled_once(tree))
    for number, graph in enumerate(tree.subgraphs):
        for operator in graph.operators:
            name = flatbuffer.op_name(tree, operator)
            variable = any(graph.tensors[int(i)].isVariable for i in operator.inputs if i >= 0)
            if (name == "ASSIGN_VARIABLE" and number not in once) or (variable and name not in _WITHIN_A_CALL):
                yield name


def _filled_once(tree: Any) -> Iterator[int]:
    for graph in tree.subgraphs:
        for operator in graph.operators:
            if flatbuffer.op_name(tree, operator) == "CALL_ONCE":
                yield int(operator.builtinOptions.initSubgraphIndex)
