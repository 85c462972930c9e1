"""Layers in several processes: the same as one after another, faults and breaks included."""

from __future__ import annotations

import os
import signal

import pytest

from autocompress.compression.reconstruct import Reconstruction
from autocompress.compression.side_by_side import side_by_side
from autocompress.compression.tables import build_tables
from autocompress.errors import CandidateError
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import LayerChoice
from autocompress.tasks import load_task


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("positions", [0, 1, 7, 20])
def test_results_come_in_order_from_rising_positions(processes: int, positions: int) -> None:
    seen: list[int] = []  # of each process its own

    def of_position(position: int) -> tuple[int, int, bool]:
        seen.append(position)
        return position, os.getpid(), seen == sorted(seen)

    breaks: list[int] = []
    found = side_by_side(of_position, positions, processes, lambda: breaks.append(1))
    assert [position for position, _, _ in found] == list(range(positions))
    assert all(rising for _, _, rising in found)
    assert len({pid for _, pid, _ in found} | {os.getpid()}) <= processes + 1
    assert os.getpid() not in {pid for _, pid, _ in found}
    assert len(breaks) == positions
    assert seen == []


def test_a_fault_is_raised_here_and_a_process_that_is_ended_is_a_candidates() -> None:
    def faulty(position: int) -> int:
        if position == 5:
            raise ZeroDivisionError
        return position

    def ended(position: int) -> int:
        if position == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return position

    with pytest.raises(ZeroDivisionError):
        side_by_side(faulty, 20, 2, lambda: None)
    with pytest.raises(CandidateError, match="SIGKILL"):
        side_by_side(ended, 20, 2, lambda: None)


def test_tables_of_large_networks_are_the_same_from_several_processes() -> None:
    task = load_task("digits")
    tree, (index,) = flatbuffer.read(task.network), Runner(task.network).input_indices.values()
    (inputs,) = task.x_calibration.values()
    layers = layers_of(graph_of(tree))
    choices = {layer.name: (LayerChoice(), LayerChoice(bits=8), LayerChoice(sparsity=0.5)) for layer in layers}
    made = []
    for processes in (1, 2):
        solver = Reconstruction(tree, layers, {index: inputs[:128]}, chunk=64, threads=1)
        made.append(build_tables(solver, choices, 64, large=True, processes=processes))
    for one, other in zip(made[0].layers, made[1].layers, strict=True):
        assert (one.name, one.choices) == (other.name, other.choices)
        for column in ("error", "bytes", "sensitivity"):
            assert getattr(one, column) == pytest.approx(getattr(other, column), rel=1e-3, abs=1e-9)
