"""Probes of the layer tables: the walk against the whole network, and what the layers behind make up for."""

from __future__ import annotations

import numpy as np
import pytest

from autocompress.compression.compensated_probe import CompensatedProbe
from autocompress.compression.divergence import divergence
from autocompress.compression.reconstruct import FloatLayer, Reconstruction, SolvedLayer, untouched
from autocompress.compression.solve import solve
from autocompress.network.graph import trace
from autocompress.network.graph.layers import layers_of
from autocompress.network.graph.segments import Patchable
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import LayerChoice
from autocompress.tasks import LoadedTask, load_task
from tests.builders.arrays import Array

SAMPLES = 128
HARSH = LayerChoice(sparsity=0.8)


@pytest.fixture(scope="module")
def task() -> LoadedTask:
    return load_task("digits")


@pytest.fixture(scope="module")
def solver(task: LoadedTask) -> Reconstruction:
    return solver_of(task)


def solver_of(task: LoadedTask) -> Reconstruction:
    (index,) = Runner(task.network).input_indices.values()
    (inputs,) = task.x_calibration.values()
    tree = flatbuffer.read(task.network)
    return Reconstruction(tree, layers_of(graph_of(tree)), {index: inputs}, chunk=64, threads=1)


def alone(task: LoadedTask, layer: FloatLayer, changed: SolvedLayer) -> Array:
    """The outputs of the float network with this layer changed and nothing else."""
    patch = Patchable(task.network)
    patch.write(layer.layer.weight, changed.weight)
    if layer.layer.bias is not None and changed.bias is not None:
        patch.write(layer.layer.bias, changed.bias)
    return run(task, patch.snapshot())


def run(task: LoadedTask, network: bytes) -> Array:
    x = {name: values[:SAMPLES] for name, values in task.x_calibration.items()}
    return Runner(network, 1).run(x, 64)


def pruned(layer: FloatLayer, solver: Reconstruction) -> SolvedLayer:
    (whole,) = (each for each in solver.floats if each.layer.name == layer.layer.name)
    values = solve(whole.centred_problem, HARSH).values
    weight = trace.from_matrix(layer.layer, values).astype(np.float32)
    return SolvedLayer(weight=weight, bias=untouched(layer).bias)


def test_without_a_change_the_walk_gives_what_the_network_gives(task: LoadedTask, solver: Reconstruction) -> None:
    compensated_probe = CompensatedProbe(solver, SAMPLES)
    assert compensated_probe.reference == pytest.approx(run(task, task.network), abs=1e-6)
    for layer in compensated_probe.walk():
        assert compensated_probe.outputs(untouched(layer)) == pytest.approx(compensated_probe.reference, abs=1e-4)


def test_the_last_layer_has_nothing_behind_it_that_could_mend(task: LoadedTask, solver: Reconstruction) -> None:
    compensated_probe = CompensatedProbe(solver, SAMPLES)
    *_, last = compensated_probe.walk()
    changed = pruned(last, solver)
    assert compensated_probe.outputs(changed) == pytest.approx(alone(task, last, changed), abs=1e-6)


def test_the_layers_behind_make_up_for_most_of_what_a_pruned_one_does(task: LoadedTask, solver: Reconstruction) -> None:
    compensated_probe = CompensatedProbe(solver, SAMPLES)
    first = next(compensated_probe.walk())
    changed = pruned(first, solver)
    mended = divergence(compensated_probe.reference, compensated_probe.outputs(changed)).mean()
    bare = divergence(compensated_probe.reference, alone(task, first, changed)).mean()
    assert 0 < mended < 0.5 * bare


def test_behind_the_next_layers_the_float_network_runs_on_as_it_is(
    task: LoadedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (1, 2, 3):
        monkeypatch.setattr("autocompress.network.graph.segments.STAGE", stage)
        monkeypatch.setattr("autocompress.compression.compensated_probe.STAGE", stage)
        solver = solver_of(task)
        probe = CompensatedProbe(solver, SAMPLES, fits=0)
        for position, layer in enumerate(probe.walk()):
            changed = pruned(layer, solver)
            if (position + 1) % stage == 0:  # a stage begins behind it: nothing is fitted
                assert probe.outputs(changed) == pytest.approx(alone(task, layer, changed), abs=1e-5)
            assert probe.outputs(untouched(layer)) == pytest.approx(probe.reference, abs=1e-5)


def test_layers_within_reach_are_fitted_as_all_are(solver: Reconstruction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autocompress.compression.compensated_probe._FEWEST_PATCHES", 2048)
    near, whole = (CompensatedProbe(solver, SAMPLES, fits=fits) for fits in (len(solver.layers), None))
    for layer, _ in zip(near.walk(), whole.walk(), strict=True):
        changed = pruned(layer, solver)
        assert near.outputs(changed) == pytest.approx(whole.outputs(changed), abs=1e-6)
