"""The network cut at its layers: what the pieces hold."""

from __future__ import annotations

from autocompress.network.graph.layers import layers_of
from autocompress.network.graph.segments import Segments
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import Runner
from autocompress.tasks import load_task


def test_the_pieces_hold_each_constant_once() -> None:
    task = load_task("fashion-mnist")
    tree, (index,) = flatbuffer.read(task.network), Runner(task.network).input_indices.values()
    (inputs,) = task.x_calibration.values()
    segments = Segments(tree, layers_of(graph_of(tree)), {index: inputs[:4]}, 4, 1)
    assert segments.file_bytes < 1.1 * len(task.network)
