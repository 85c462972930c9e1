"""What a search takes outputs for, and that no unit of its targets changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.evaluate.quality import Split
from autocompress.metrics import get_metric
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.network.tflite.output_kind import kind_of
from autocompress.records.front import Front, is_flat
from autocompress.records.study import StudyRecord
from autocompress.specs import load_device, load_space
from autocompress.tasks import LoadedTask, Task, loaded_task
from tests.builders.arrays import Array
from tests.builders.searches import asked_for

SIZE = 12
X = np.random.default_rng(0).normal(size=(400, SIZE)).astype(np.float32)


def network(end: str, columns: int = 1, unit: float = 1.0) -> bytes:
    """Two dense layers and what stands at the end; `unit`: of the last layer's values."""
    net = NetworkBuilder((1, SIZE))
    inner = net.dense(net.dense(net.input, 32), 24)
    output = net.dense(inner, columns, relu=False)
    weight, bias = (int(i) for i in net._graph.operators[-1].inputs[1:3])
    for tensor in (weight, bias):
        buffer = net._tree.buffers[net._graph.tensors[tensor].buffer]
        buffer.data = (np.frombuffer(bytes(buffer.data), np.float32) * np.float32(unit)).view(np.uint8)
    ends = {
        "LOGISTIC": lambda: net.unary(output, "LOGISTIC"),
        "SOFTMAX": lambda: net.softmax(output),
        "RESHAPE": lambda: net.reshape(net.unary(output, "LOGISTIC"), (1, columns, 1)),
        "": lambda: output,
    }
    return net.finish(ends[end]())


def task(model: bytes, y: Array, metric: str) -> LoadedTask:
    parts: dict[str, Any] = {"x_calibration": X[:100], "x_validation": X[100:300], "x_test": X[300:]}
    return loaded_task(Task(name="t", network=model, metric=metric, y_validation=y[100:300], y_test=y[300:], **parts))


@pytest.mark.parametrize(
    ("end", "columns", "kind"),
    [("LOGISTIC", 1, "logistic"), ("SOFTMAX", 4, "softmax"), ("RESHAPE", 3, "logistic"), ("", 1, "linear")],
)
def test_what_makes_the_output_says_what_it_is(end: str, columns: int, kind: str) -> None:
    graph = read_graph(network(end, columns))
    assert kind_of(graph, graph.outputs[0]) == kind


@pytest.mark.parametrize("end", ["", "LOGISTIC"])
def test_a_logit_and_its_probability_have_one_accuracy(end: str) -> None:
    logits = Runner(network(""), 1).run({Runner(network(""), 1).inputs[0].name: X})[:, 0]
    y = (logits > np.median(logits) / 2).astype(np.int64)
    loaded = task(network(end), y, "accuracy")
    split = Split(
        loaded.x_validation,
        loaded.y_validation,
        loaded.metric,
        loaded.network,
        threads=1,
        seed=0,
        signature=loaded.signature,
    )
    assert split.baseline().value == np.mean((logits > 0) == y, where=(np.arange(400) // 100 % 3 > 0))
    assert loaded.output is not None
    assert loaded.output.words.endswith(f"class 1 above {'0' if end == '' else '0.5'}")


def searched(unit: float, folder: Path) -> StudyRecord:
    """A regression whose targets are in some unit: the network's own outputs and noise."""
    model = network("", 2, unit)
    clean = Runner(model, 1).run({Runner(model, 1).inputs[0].name: X}).astype(np.float64)
    y = clean + unit * 0.05 * np.random.default_rng(1).normal(size=clean.shape)
    return asked_for(
        task=task(model, y, "mae"),
        profile=load_device("rpi4"),
        space=load_space("default"),
        latency_source="modelled",
        runs=folder,
        name="units",
        trials=26,
    ).run()


@pytest.mark.slow
def test_the_same_network_in_three_units_is_the_same_search(tmp_path: Path) -> None:
    """Units that are powers of two change no digit of a weight, only what a gzip makes of their exponents."""
    records = {unit: searched(unit, tmp_path / str(n)) for n, unit in enumerate((1.0, 2.0**-14, 2.0**10))}
    first, *others = (Front(record) for record in records.values())
    assert first.hypervolume is not None
    assert first.hypervolume > 0
    for other in others:
        assert other.hypervolume == pytest.approx(first.hypervolume, rel=0.01)
        assert is_flat(other.record) == is_flat(first.record)
    found = [
        {t.evaluation.configuration.digest: t.evaluation.accuracy / unit for t in record.trials if t.evaluation}
        for unit, record in records.items()
    ]
    for values in found[1:]:
        assert {digest: value for digest, value in values.items() if digest in found[0]} == {
            digest: value for digest, value in found[0].items() if digest in values
        }
        assert len(values.keys() & found[0].keys()) > 20
    for unit, record in records.items():
        assert record.metric_scale == records[1.0].metric_scale * unit


def test_a_network_that_has_learned_nothing_is_remarked() -> None:
    y = np.arange(400) % 3
    y[Runner(network("SOFTMAX", 3), 1).run({"x": X}).argmax(1) == y] += 1
    loaded = task(network("SOFTMAX", 3), y % 3, "accuracy")
    said = loaded.remark(0.01)
    assert said is not None
    assert "is no better than" in said
    assert loaded.remark(0.9) is None
    assert get_metric("accuracy").read_as("softmax").reading.decision == 0.5
