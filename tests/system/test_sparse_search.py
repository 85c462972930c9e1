"""Searches for sparse networks by the real command: what they offer, what they write and what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.compression.solve import Problem
from autocompress.compression.survey import survey
from autocompress.compression.tables import table_key
from autocompress.errors import AutocompressError
from autocompress.latency import source
from autocompress.latency.source import LatencySource
from autocompress.network.graph.xnnpack_sparse import runs_sparse
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import read_graph
from autocompress.records.configuration import LayerChoice
from autocompress.records.measurement import Measurement
from autocompress.search.sampler.container_costs import Cost, less, with_doubt
from autocompress.search.setup import sparse_note
from autocompress.specs import CalibratedModel, load_device, load_space
from autocompress.specs.device import CalibratedRuntime, CrossValidation
from tests.builders.project import ROOT
from tests.builders.sparse_networks import layers, mobile, names_stored_sparse, path_of, stored, with_zeros

SPACE = """\
schema: 1
name: blocks
rules:
  - {match: ".*", sparsity: [0.5]}
  - {match: ".*", sparse_kernels: true, sparsity: [0.8, 0.9], granularity: [block], bits: [32, 16]}
"""


def files(folder: Path, network: bytes) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    splits = {f"x_{name}": rng.standard_normal((48, 17, 17, 3)) for name in ("calibration", "validation", "test")}
    model, data = folder / "float.tflite", folder / "data.npz"
    model.write_bytes(network)
    np.savez(data, **{name: values.astype(np.float32) for name, values in splits.items()})
    return model, data


def searched(folder: Path, network: bytes, *more: str, device: str = "local", trials: int = 4) -> Any:
    model, data = files(folder, network)
    words = ["search", "--device", device, "--model", str(model), "--data", str(data), "--metric", "fidelity"]
    words += ["--runs", str(folder / "runs"), "--trials", str(trials), "--study", "s", "--json", *more]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("sparse")
    (folder / "space.yaml").write_text(SPACE)
    return folder, searched(folder, mobile(inside="residual"), "--space", str(folder / "space.yaml"))


def test_candidates_of_a_search_are_stored_sparse_in_blocks(study: tuple[Path, Any]) -> None:
    folder, report = study
    pointwise = path_of(mobile(inside="residual")).layers
    assert report["front"]
    for point in report["front"]:
        file = (folder / "runs" / point["artifact"]).read_bytes()
        asked = point["configuration"]["layers"]
        if all(asked[name]["granularity"] == "block" for name in pointwise):
            assert runs_sparse(read_graph(file)) == pointwise
            assert names_stored_sparse(file) >= len(pointwise)
    assert any(
        choice["granularity"] == "block"
        for point in report["front"]
        for choice in point["configuration"]["layers"].values()
    )


def test_the_bundle_of_a_sparse_candidate_verifies_itself(study: tuple[Path, Any], tmp_path: Path) -> None:
    folder, report = study
    words = ["export", "s", "--runs", str(folder / "runs"), "--pick", str(report["front"][0]["trial"])]
    done = CliRunner().invoke(app, [*words, "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (card,) = tmp_path.glob("*.json")
    check = [sys.executable, str(tmp_path / "verify.py"), str(card), "--data", str(folder / "data.npz")]
    found = subprocess.run(
        [*check, "--float", str(folder / "float.tflite")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    model = tmp_path / json.loads(card.read_text())["model"]
    damaged = bytearray(model.read_bytes())
    at = flatbuffer.constants(bytes(damaged))
    damaged[at[len(at) // 2].start] ^= 0xFF
    model.write_bytes(damaged)
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1


def test_the_packaged_space_offers_blocks_to_the_layers_with_sparse_kernels_alone() -> None:
    space, network = load_space("sparse"), mobile(inside="residual")
    pointwise = path_of(network).layers
    for layer in layers(network):
        described = {"name": layer.name, "tensor_name": layer.tensor_name, "op": layer.op}
        row = space.choices(**described, sparse_kernels=layer.name in pointwise)
        blocks = {choice.sparsity for choice in row if choice.granularity == "block"}
        assert blocks == ({0.7, 0.75, 0.8, 0.85, 0.9} if layer.name in pointwise else set())
        assert LayerChoice() in row
    assert all(
        choice.granularity == "element" for choice in space.choices(name="d", tensor_name="d", op="DEPTHWISE_CONV_2D")
    )


def test_a_search_says_why_nothing_gets_faster(tmp_path: Path) -> None:
    report = searched(tmp_path, mobile(stem="same"), "--space", "sparse", device="rpi4", trials=2)
    assert report["latency_source"] == "modelled"
    done = CliRunner().invoke(app, ["report", "s", "--runs", str(tmp_path / "runs")])
    assert "no sparse kernels: no 3x3 convolution of stride 2" in " ".join(done.output.split())


class _Asked:
    """What `sparse_note` reads of a request and a measurement."""

    def __init__(self, space: str, source: str = "measured", features: tuple[str, ...] = ()) -> None:
        self.space, self.latency_source = load_space(space), source
        self.environment, self.cpu_features = self, features


def test_notes_on_sparse_kernels() -> None:
    path = path_of(mobile())

    def said(*asked: Any) -> str | None:
        request = _Asked(*asked)
        return sparse_note(request, path, request)  # type: ignore[arg-type]

    assert said("default") is None
    assert said("sparse") is None
    assert "processors with AVX" in (said("sparse", "measured", ("avx2", "fma")) or "")
    assert "not modelled" in (said("sparse", "modelled") or "")


def test_a_calibrated_model_says_nothing_of_a_file_with_sparse_kernels() -> None:
    class Measured:
        """The host that the model was calibrated on."""

        runtime, runtime_version, threads, facts = "ai-edge-litert", "2.3.0", 1, {"os_bits": 64}

        @property
        def host(self) -> Measured:
            return self

    runtime = CalibratedRuntime(name="ai-edge-litert", version="2.3.0", threads=1, os_bits=64)
    model = CalibratedModel(
        runtime=runtime,
        measured_on="2026-11-24",
        longest_ms=1.0,
        network={"once": 0.5},
        costs={"float32": {}},
        cross_validation={"float32": CrossValidation(files=1, median=0.1, p90=0.1, largest=0.1)},
    )
    profile = replace(load_device("local"), latency_model=model)
    dense = with_zeros(mobile(), 0.8)
    asked = []

    said = Measurement(latency_ms=1.0, latency_source="modelled")

    def predicted(file: bytes, known: CalibratedModel) -> Measurement:
        asked.append(file)
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "predict", predicted)
        expected = LatencySource(profile, Measured(), None).expected()  # type: ignore[arg-type]
        assert expected is not None
        assert expected(dense) is said
        assert expected(stored(dense)) is None
    assert asked == [dense]


def problem() -> Problem:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((1, 200, 64))
    return Problem(weight=rng.standard_normal((1, 512, 64)), moment=inputs.transpose(0, 2, 1) @ inputs / 200)


def test_tables_know_blocks_and_sparse_storage() -> None:
    element, block = (LayerChoice(sparsity=0.8, granularity=kind) for kind in ("element", "block"))
    choices = (LayerChoice(), element, block)
    dense, thin = survey(problem(), choices), survey(problem(), choices, lambda _: True)
    np.testing.assert_array_equal(dense.error, thin.error)
    assert thin.error[2] > thin.error[1] > thin.error[0]
    assert (thin.bytes[1:] < dense.bytes[1:]).all()
    assert thin.bytes[0] == dense.bytes[0]
    assert thin.bytes[2] < thin.bytes[1]  # an index a block


def test_tables_of_another_storage_are_others() -> None:
    row = {"conv_2d_0": (LayerChoice(),)}
    assert table_key("n", {}, row) != table_key("n", {}, row, (32, 16))
    assert table_key("n", {}, row, (16, 32)) == table_key("n", {}, row, (32, 16))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("  - {match: '.*', sparse_kernels: 1}", "$.rules[0].sparse_kernels: 1 is not true or false"),
        ("  - {sparse_kernels: true}", "the rule names no layer"),
        ("  - {match: '.*', granularity: [blocks]}", "did you mean block"),
    ],
)
def test_faulty_rules(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "s.yaml").write_text(f"schema: 1\nname: s\nrules:\n{text}\n")
    with pytest.raises(AutocompressError) as found:
        load_space(str(tmp_path / "s.yaml"))
    assert fault in str(found.value)


def test_a_profile_without_densify_stores_nothing_sparse(tmp_path: Path) -> None:
    text = ROOT / "device_profiles" / "local.yaml"
    (tmp_path / "d.yaml").write_text("\n".join(line for line in text.read_text().splitlines() if "DENSIFY" not in line))
    (tmp_path / "s.yaml").write_text(SPACE)
    report = searched(
        tmp_path, mobile(), "--space", str(tmp_path / "s.yaml"), device=str(tmp_path / "d.yaml"), trials=2
    )
    for point in report["front"]:
        assert names_stored_sparse((tmp_path / "runs" / point["artifact"]).read_bytes()) == 0


def test_what_sparse_kernels_save_is_doubt_and_no_claim() -> None:
    flat = np.zeros((1, 2, 2))
    cost = Cost(base=np.ones(1), extra=flat, doubt=flat + 1e-6, weights=np.array([0.75, 0.25]), fixed=np.zeros(1))
    faster = with_doubt(cost, np.array([[0.0, 0.8], [0.0, 0.0]]))
    np.testing.assert_array_equal(faster.extra, cost.extra)
    np.testing.assert_allclose(faster.doubt, [[[1e-6, 0.6], [1e-6, 1e-6]]])
    smaller = less(cost, np.array([[[0.0, 0.2], [0.0, 0.0]]]))
    np.testing.assert_allclose(smaller.extra, [[[0.0, -0.2], [0.0, 0.0]]])
    np.testing.assert_allclose(smaller.doubt, [[[1e-6, 0.02], [1e-6, 1e-6]]])
