"""The real command on real networks, and every file it leaves read again by other code.

Nothing here asks the builder, the metrics or the runner of the project: files are read through LiteRT's interpreter,
metrics are scikit-learn's and NumPy's on outputs of single samples."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from sklearn.metrics import accuracy_score, mean_absolute_error, roc_auc_score
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.compression.template import quantize_plainly
from autocompress.network.graph import trace
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import read_graph
from autocompress.records.front import complete
from autocompress.records.study import Evaluation
from autocompress.search.storage import study_records
from tests.builders import networks
from tests.builders.arrays import Array
from tests.builders.framework_files import MAKE_FILES
from tests.builders.optional import present

SPACE = """\
schema: 1
name: mixed
activations: [float32, int8]
rules:
  - {match: ".*", sparsity: [0, 0.4], bits: [32, 16, 8, 4], clusters: [none, 12]}
  - {op: DEPTHWISE_CONV_2D, sparsity: [0, 0.3], bits: [32, 8], clusters: [none, 12]}
"""
TRIALS = 7  # four uniform baselines (8 and 4 bits under both activations), then mixtures
LAYER_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
DTYPES = {32: np.float32, 16: np.float16, 8: np.int8, 4: np.int8}


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A network and the study that the command made of it."""

    network: networks.BuiltNetwork
    runs: Path
    report: dict[str, Any]
    evaluations: tuple[Evaluation, ...]
    error_output: str

    def split(self, name: str) -> dict[str, Array]:
        """The inputs of a split, by input name; of a single input by the empty name."""
        prefix = f"x_{name}"
        data = self.network.data
        return {key[len(prefix) + 1 :]: data[key] for key in data if key == prefix or key.startswith(f"{prefix}.")}

    def file(self, evaluation: Evaluation) -> bytes:
        return (self.runs / evaluation.artifact).read_bytes()

    def uniform_baseline(self, activations: str) -> bytes:
        """The file of the uniform 8-bit baseline."""
        for evaluation in self.evaluations:
            asked = evaluation.configuration
            plain = all(c.bits == 8 and not c.sparsity and c.clusters is None for c in asked.layers.values())
            if plain and asked.activations == activations:
                return self.file(evaluation)
        raise AssertionError(f"no uniform 8-bit baseline with {activations} activations")


@pytest.fixture(scope="module", params=sorted(networks.BUILDERS))
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    network = networks.load(request.param)
    folder = tmp_path_factory.mktemp("search")
    (folder / "space.yaml").write_text(SPACE)
    done = search(folder, network.model_path, network.data_path, network.metric, str(TRIALS))
    assert done.exit_code == 0, done.output
    record = study_records.read_record(study_records.load_study(folder / "runs", "study", None))
    return Searched(
        network=network,
        runs=folder / "runs",
        report=json.loads(done.stdout),
        error_output=done.stderr,
        evaluations=tuple(evaluation for _, evaluation in complete(record)),
    )


def search(folder: Path, model: Path, data: Path, metric: str, trials: str) -> Any:
    arguments = [
        "search",
        "--device",
        "rpi4",
        "--model",
        model,
        "--data",
        data,
        "--metric",
        metric,
        "--seed",
        "0",
        "--trials",
        trials,
        "--space",
        folder / "space.yaml",
        "--runs",
        folder / "runs",
        "--study",
        "study",
        "--json",
    ]
    return CliRunner().invoke(app, [str(a) for a in arguments])


# --- reading a file with other code ---------------------------------------------------------------


def interpreter(model: bytes) -> Any:
    """The file as it is, no delegate in between."""
    made = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    made.allocate_tensors()
    return made


def weights_of(model: bytes) -> dict[str, tuple[Array, Array, type]]:
    """By layer name: the stored weight (what a DEQUANTIZE reads, where one stands before the layer), the scales, and
    the dtype of the layer's input."""
    made, found, counts = interpreter(model), {}, dict.fromkeys(LAYER_OPS, 0)
    details = {d["index"]: d for d in made.get_tensor_details()}
    ops = made._get_ops_details()
    sources = {int(op["outputs"][0]): int(op["inputs"][0]) for op in ops if op["op_name"] == "DEQUANTIZE"}
    for op in ops:
        name = op["op_name"]
        if name not in LAYER_OPS:
            continue
        weight = int(op["inputs"][1])
        weight = sources.get(weight, weight)
        scales = details[weight]["quantization_parameters"]["scales"]
        data = int(op["inputs"][2 if name == "TRANSPOSE_CONV" else 0])
        found[f"{name.lower()}_{counts[name]}"] = (made.get_tensor(weight), scales, details[data]["dtype"])
        counts[name] += 1
    return found


def outputs_of(model: bytes, x: Mapping[str, Array]) -> Array:
    """The first output, sample by sample."""
    made = Interpreter(model_content=model, num_threads=1)
    made.allocate_tensors()
    at = input_indices(made, x)
    (output, *_) = made.get_output_details()
    results = []
    for n in range(len(next(iter(x.values())))):
        made.reset_all_variables()
        for name, values in x.items():
            made.set_tensor(at[name], values[n : n + 1])
        made.invoke()
        results.append(made.get_tensor(output["index"]))
    return np.concatenate(results)


def input_indices(made: Any, x: Mapping[str, Array]) -> dict[str, int]:
    details = made.get_input_details()
    if len(details) == 1:
        return {next(iter(x)): details[0]["index"]}
    (key,) = made.get_signature_list()
    named = made.get_signature_runner(key).get_input_details()
    return {name: named[name]["index"] for name in x}


def value_of(metric: str, outputs: Array, y: Array | None, x: Array, float_outputs: Array) -> float:
    """The metric by scikit-learn or NumPy."""
    if metric == "accuracy":
        return float(accuracy_score(y, outputs.argmax(-1)))
    if metric == "fidelity":
        return float(accuracy_score(float_outputs.argmax(-1), outputs.argmax(-1)))
    if metric == "roc-auc":
        return float(roc_auc_score(y, ((outputs.astype(np.float64) - x) ** 2).mean(1)))
    assert metric == "mae"
    return float(mean_absolute_error(np.ravel(present(y)), outputs.ravel()))


# --- the checks -----------------------------------------------------------------------------------


def test_search_ends_with_a_front_and_says_nothing_but_its_own(searched: Searched) -> None:
    report = searched.report
    assert report["trials"]["complete"] == TRIALS
    assert report["trials"]["failed"] == 0
    assert report["front"]
    assert report["latency_source"] == "modelled"
    assert "it/s" not in searched.error_output  # a progress bar of ai-edge-quantizer's
    for stray in ("WARNING", "INFO:", "Traceback"):
        assert stray not in searched.error_output


def test_sizes_and_hashes_are_those_of_the_files(searched: Searched, tmp_path: Path) -> None:
    baseline = searched.report["baseline"]
    assert baseline["file_bytes"] == len(searched.network.network)
    for point in searched.report["front"]:
        content = (searched.runs / point["artifact"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == point["sha256"]
        assert len(content) == point["file_bytes"]
        arguments = ["export", "study", "--runs", searched.runs, "--pick", point["trial"], "--out", tmp_path]
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        packed = (tmp_path / f"study-{point['trial']}.tflite.gz").read_bytes()
        assert gzip.decompress(packed) == content
        assert len(packed) == point["download_bytes"]


def test_a_bundle_proves_itself(searched: Searched, tmp_path: Path) -> None:
    """verify.py and predict.py, in processes that know nothing of ours, on the network's own data."""
    arguments = ["export", "study", "--runs", searched.runs, "--pick", "best", "--to", tmp_path]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    (tmp_path / "float.tflite").write_bytes(searched.network.network)
    files: list[str | Path] = ["--data", searched.network.data_path, "--float", tmp_path / "float.tflite"]
    checked = run_program(tmp_path / "verify.py", *files)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{searched.network.metric} on test data" in checked.stdout
    card = json.loads(Path(done.stdout.split()[2]).read_text(encoding="utf-8"))
    x = {name: values[:3] for name, values in searched.split("test").items()}
    order = input_order(interpreter(searched.network.network), x)
    for name, values in x.items():
        np.save(tmp_path / f"{order[name]}.npy", values)
    predicted = run_program(tmp_path / "predict.py", *(tmp_path / f"{n}.npy" for n in range(len(x))))
    assert predicted.returncode == 0, predicted.stderr
    found = [int(n) for n in re.findall(r"largest output (\d+)", predicted.stdout)]
    expected = outputs_of((tmp_path / card["model"]).read_bytes(), x).reshape(3, -1).argmax(1)
    assert found == expected.tolist()


def run_program(*words: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(str(word) for word in words)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def input_order(made: Any, x: Mapping[str, Array]) -> dict[str, int]:
    """The place of each input among those of the file."""
    indices = [detail["index"] for detail in made.get_input_details()]
    return {name: indices.index(index) for name, index in input_indices(made, x).items()}


def test_every_layer_of_every_file_is_what_was_asked(searched: Searched) -> None:
    floats = weights_of(searched.network.network)
    for evaluation in searched.evaluations:
        asked, stored = evaluation.configuration, weights_of(searched.file(evaluation))
        assert set(asked.layers) == set(stored) == set(floats)
        for name, choice in asked.layers.items():
            weight, scales, input_dtype = stored[name]
            assert weight.shape == floats[name][0].shape
            assert weight.dtype == DTYPES[choice.bits], (name, choice)
            assert np.count_nonzero(weight == 0) >= math.ceil(choice.sparsity * weight.size), (name, choice)
            assert input_dtype is (np.int8 if choice.bits <= 8 and asked.activations == "int8" else np.float32)
            if choice.bits <= 8:
                assert len(np.unique(weight)) <= (choice.clusters or 2**choice.bits - 1), (name, choice)
                assert np.abs(weight.astype(int)).max() < 2 ** (choice.bits - 1)
                assert len(scales) == weight.shape[3 if name.startswith("depthwise") else 0]
                assert np.isfinite(scales).all()
                assert (scales > 0).all()


def test_metrics_are_those_of_the_files(searched: Searched) -> None:
    data, metric = searched.network.data, searched.network.metric
    front = {point["sha256"]: point for point in searched.report["front"]}
    for split in ("validation", "test"):
        x, y = searched.split(split), data.get(f"y_{split}")
        first, float_outputs = next(iter(x.values())), outputs_of(searched.network.network, x)
        value = value_of(metric, float_outputs, y, first, float_outputs)
        key = "accuracy" if split == "validation" else "test_accuracy"
        assert searched.report["baseline"][key] == pytest.approx(value, abs=1e-6)
        for evaluation in searched.evaluations:
            if split == "test" and evaluation.sha256 not in front:
                continue
            outputs = outputs_of(searched.file(evaluation), x)
            told = evaluation.accuracy if split == "validation" else front[evaluation.sha256]["test_accuracy"]
            assert told == pytest.approx(value_of(metric, outputs, y, first, float_outputs), abs=1e-6)


@pytest.mark.parametrize("activations", ["float32", "int8"])
def test_uniform_8_bits_lose_no_more_than_the_quantizer_alone(searched: Searched, activations: str) -> None:
    """The outputs of our uniform 8-bit files are as near to the float network's as those of ai-edge-quantizer's
    file, as far as so few samples tell: a softmax in steps of 1/256 is one step off here or there for either."""
    x = searched.split("validation")
    float_outputs = outputs_of(searched.network.network, x)
    plain, ours = (
        np.abs(outputs_of(file, x) - float_outputs).reshape(len(float_outputs), -1).mean(axis=1)
        for file in (_plainly(searched, activations), searched.uniform_baseline(activations))
    )
    excess = ours - 1.15 * plain
    assert excess.mean() <= 3 * excess.std() / np.sqrt(len(excess))
    assert ours.mean() <= 1.5 * plain.mean()


def _plainly(searched: Searched, activations: str) -> bytes:
    model = flatbuffer.normalise(searched.network.network)
    if activations == "float32":
        return _plainly_dynamic(model)
    x = searched.split("calibration")
    at = input_indices(interpreter(model), x)
    ranges = trace.activation_ranges(model, {at[name]: values for name, values in x.items()}, 1, 1)
    return quantize_plainly(model, layers_of(read_graph(model)), ranges)


def _plainly_dynamic(model: bytes) -> bytes:
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(bytearray(model), recipe.dynamic_wi8_afp32())
    return bytes(made.quantize(enable_progress_report=False).quantized_model)


# --- networks as frameworks write them ------------------------------------------------------------


@pytest.fixture(scope="module")
def framework_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network as Keras 3 and Keras 2 save it and as a SavedModel, with what each framework computes."""
    folder = tmp_path_factory.mktemp("frameworks")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", MAKE_FILES, str(folder)], check=True, capture_output=True, env=environment)
    (folder / "keras2.hdf5").rename(folder / "keras2.h5")
    x = np.load(folder / "x.npy")
    rng = np.random.default_rng(1)
    calibration = rng.normal(size=(64, *x.shape[1:])).astype(np.float32)
    np.savez(folder / "data.npz", x_calibration=calibration, x_validation=calibration, x_test=x)
    (folder / "space.yaml").write_text(SPACE)
    return folder


@pytest.mark.parametrize("name", ["keras3.keras", "keras2.h5", "saved"])
def test_networks_of_every_framework_are_searched(framework_files: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    done = search(tmp_path, framework_files / name, framework_files / "data.npz", "fidelity", "4")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["front"]
    assert report["baseline"]["test_accuracy"] == 1.0
    x, predicted = np.load(framework_files / "x.npy"), np.load(framework_files / f"{Path(name).stem}.npy")
    best = max(report["front"], key=lambda point: point["accuracy"])
    model = (tmp_path / "runs" / best["artifact"]).read_bytes()
    assert set(weights_of(model)) == set(best["configuration"]["layers"])
    np.testing.assert_allclose(outputs_of(model, {"": x}), predicted, atol=0.02)
