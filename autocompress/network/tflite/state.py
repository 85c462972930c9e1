"""Networks that keep state from one call to the next, as streaming keyword spotters do.

What such a network says of a sample depends on the calls before it: on the order of samples, on how many lanes they are
spread over, and, of a sensitivity, on what was tried before. Operators over whole sequences keep a state too, but only
within a call: it is reset before each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autocompress.errors import AutocompressError
from autocompress.network.tflite.graph import Graph, graphs_of
from autocompress.network.tflite.tree import Tree

_WITHIN_A_CALL = (
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
)


def refuse_state(tree: Tree) -> None:
    """AutocompressError for a network that remembers the call before."""
    keeping = sorted(set(_keeping(graphs_of(tree))))
    if keeping:
        raise AutocompressError(
            f"it keeps state from one call to the next ({', '.join(keeping)}), so that samples depend on those before "
            "them; give the network as it was trained, on whole sequences (n, time, ...) that each start anew"
        )


def _keeping(graphs: Sequence[Graph]) -> Iterator[str]:
    """The operators that write what the next call reads. What fills variables once, when a network is loaded, does
    not."""
    once = set(_filled_once(graphs))
    for number, graph in enumerate(graphs):
        for operator in graph.operators:
            variable = any(graph.tensors[i].variable for i in operator.inputs if i >= 0)
            assigns = operator.op == "ASSIGN_VARIABLE" and number not in once
            if assigns or (variable and operator.op not in _WITHIN_A_CALL):
                yield operator.op


def _filled_once(graphs: Sequence[Graph]) -> Iterator[int]:
    for graph in graphs:
        for operator in graph.operators:
            if operator.op == "CALL_ONCE":
                yield int(operator.options.initSubgraphIndex)
