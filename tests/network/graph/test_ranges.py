"""Activation ranges of large networks, which run on the delegate's kernels, against those of the built-in ones."""

from __future__ import annotations

import numpy as np
import pytest

from autocompress.network.graph import trace
from autocompress.network.tflite.batching import WANTED, affordable_batch, inner_bytes
from autocompress.network.tflite.interpreter import Runner, interpreter
from autocompress.tasks import load_task


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_the_delegates_ranges_are_those_of_the_builtin_kernels(
    name: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task(name)
    (index,) = Runner(task.network).input_indices.values()
    (inputs,) = task.x_calibration.values()
    x = {index: inputs[:24]}
    slow = trace.activation_ranges(task.network, x, 8, 1)
    monkeypatch.setattr(trace, "affordable_batch", lambda model: 8)
    fast = trace.activation_ranges(task.network, x, 8, threads)
    assert set(fast) == set(slow)
    for tensor, (low, high) in slow.items():
        assert fast[tensor] == pytest.approx((low, high), rel=1e-4, abs=1e-5 * (high - low))


def test_ranges_are_of_every_sample_and_every_tensor() -> None:
    task = load_task("digits")
    (index,) = Runner(task.network).input_indices.values()
    (inputs,) = task.x_calibration.values()
    found = trace.activation_ranges(task.network, {index: inputs[:24]}, 8, 1)
    for sample in inputs[:24]:
        run = interpreter(task.network, 1, {index: (1, *sample.shape)}, keep_all=True)
        run.set_tensor(index, sample[None])
        run.invoke()
        for detail in run.get_tensor_details():
            if detail["dtype"] is np.float32 and detail["name"]:
                values, (low, high) = run.get_tensor(detail["index"]), found[detail["name"]]
                near = 1e-4 * max(1e-6, abs(low), abs(high))
                assert low - near <= values.min() <= values.max() <= high + near


def test_a_network_of_large_inner_tensors_runs_fewer_samples_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_task("fashion-mnist").network
    assert affordable_batch(network) == WANTED
    monkeypatch.setattr("autocompress.network.tflite.batching._AT_ONCE_BYTES", 5 * inner_bytes(network))
    assert affordable_batch(network) == 4
    monkeypatch.setattr("autocompress.network.tflite.batching._AT_ONCE_BYTES", 1)
    assert affordable_batch(network) == 1
