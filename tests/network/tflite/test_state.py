"""Networks that remember the call before are refused; those that only look as if they did are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from autocompress.errors import AutocompressError
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.state import refuse_state
from tests.builders.command_line import call

SIZE = 6


def accumulating() -> bytes:
    """A dense layer of the sum of all inputs that the network was ever given: v = v + x; y = Wv + b."""
    net = NetworkBuilder((1, SIZE))
    graph = net._graph
    resource, total = net._tensor((1,)), net._tensor((1, SIZE))
    graph.tensors[resource].type = schema.TensorType.RESOURCE
    graph.tensors[resource].shape = []
    options = schema.VarHandleOptionsT()
    options.container, options.sharedName = b"", b"memory"

    def operator(name: str, inputs: list[int], outputs: list[int]) -> schema.OperatorT:
        made = schema.OperatorT()
        made.opcodeIndex = net._code(name, 1)
        made.inputs, made.outputs = inputs, outputs
        return made

    handle = operator("VAR_HANDLE", [], [resource])
    handle.builtinOptionsType, handle.builtinOptions = schema.BuiltinOptions.VarHandleOptions, options
    start = net._constant(np.zeros((1, SIZE), np.float32))
    graph.operators += [handle, operator("READ_VARIABLE", [resource], [total])]
    summed = net.add(total, net.input)
    graph.operators.append(operator("ASSIGN_VARIABLE", [resource, summed], []))
    model: Any = flatbuffer.read(net.finish(net.dense(summed, 3, relu=False)))
    fill = schema.SubGraphT()
    fill.name, fill.inputs, fill.outputs = b"fill", [], []
    kinds = model.subgraphs[0].tensors
    fill.tensors = [kinds[resource], kinds[start]]
    again = [operator("VAR_HANDLE", [], [0]), operator("ASSIGN_VARIABLE", [0, 1], [])]
    again[0].builtinOptionsType, again[0].builtinOptions = handle.builtinOptionsType, options
    fill.operators = again
    once = schema.OperatorT()
    model.operatorCodes.append(schema.OperatorCodeT())
    model.operatorCodes[-1].deprecatedBuiltinCode = 127  # as of all that came later
    model.operatorCodes[-1].builtinCode = schema.BuiltinOperator.CALL_ONCE
    model.operatorCodes[-1].version = 1
    once.opcodeIndex, once.inputs, once.outputs = len(model.operatorCodes) - 1, [], []
    once.builtinOptionsType, once.builtinOptions = schema.BuiltinOptions.CallOnceOptions, schema.CallOnceOptionsT()
    once.builtinOptions.initSubgraphIndex = 1
    model.subgraphs[0].operators.insert(0, once)
    model.subgraphs.append(fill)
    return flatbuffer.write(model)


def test_such_a_network_does_remember() -> None:
    run = Interpreter(model_content=accumulating())
    run.allocate_tensors()
    found = []
    for _ in range(2):
        run.reset_all_variables()  # which does not reach them
        run.set_tensor(run.get_input_details()[0]["index"], np.ones((1, SIZE), np.float32))
        run.invoke()
        found.append(run.get_tensor(run.get_output_details()[0]["index"]))
    assert not np.allclose(*found)


def test_it_is_refused_with_a_line_that_asks_for_sequences(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(accumulating())
    x, y = np.random.default_rng(0).normal(size=(40, SIZE)).astype(np.float32), np.arange(40) % 3
    np.savez(tmp_path / "data.npz", x_validation=x, y_validation=y, x_test=x, y_test=y)
    words = ["--model", tmp_path / "net.tflite", "--data", tmp_path / "data.npz", "--metric", "accuracy"]
    done = call("search", "--device", "rpi4", "--runs", tmp_path, *words)
    assert done.exit_code == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: model '")
    assert "it keeps state from one call to the next (ASSIGN_VARIABLE)" in line
    assert "give the network as it was trained, on whole sequences (n, time, ...)" in line
    words = ["--accuracy", "--data", tmp_path / "data.npz", "--metric", "accuracy", "--device", "rpi4"]
    done = call("measure", tmp_path / "net.tflite", *words)
    assert done.exit_code == 2
    assert "keeps state" in done.stderr


def test_what_is_filled_once_is_no_state() -> None:
    tree = flatbuffer.read(accumulating())
    graph = tree.subgraphs[0]
    graph.operators = [op for op in graph.operators if flatbuffer.op_name(tree, op) != "ASSIGN_VARIABLE"]
    refuse_state(tree)


@pytest.mark.parametrize(("op", "refused"), [("SVDF", True), ("UNIDIRECTIONAL_SEQUENCE_LSTM", False)])
def test_a_variable_tensor_is_state_but_within_a_call(op: str, refused: bool) -> None:
    net = NetworkBuilder((1, SIZE))
    net.finish(net.dense(net.input, 3))
    tree: Any = flatbuffer.read(net.finish(net.dense(net.input, 3)))
    tree.operatorCodes[0].builtinCode = getattr(schema.BuiltinOperator, op)
    tree.subgraphs[0].tensors[int(tree.subgraphs[0].operators[0].inputs[2])].isVariable = True
    if refused:
        with pytest.raises(AutocompressError, match=rf"keeps state from one call to the next \({op}\)"):
            refuse_state(tree)
    else:
        refuse_state(tree)
