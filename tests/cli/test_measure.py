"""`autocompress measure`: the document, what people see, and every kind of bad input in one line."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.quality import device_accuracy
from autocompress.latency.source import Unscreened
from autocompress.metrics import get_metric
from autocompress.records.measurement import DeviceAccuracy, Environment, MeasuredFile, Measurement, OpProfile, OpTime
from autocompress.report.measurement import document, histogram, print_measurement
from autocompress.specs import load_device
from autocompress.tasks import load_task
from tests.builders.command_line import call, fault_of
from tests.builders.optional import present
from tests.builders.project import ROOT
from tests.builders.runtimes import HAS_TFLITE, needs_tflite
from tests.builders.tiny_models import crashing_model, dense_model, refused_model

DOCUMENTED = [
    "schema",
    "model",
    "device",
    "latency_ms",
    "latency_source",
    "latency_error",
    "latency_ci_ms",
    "extrapolated",
    "p90_ms",
    "iqr_ms",
    "outliers",
    "load_ms",
    "first_inference_ms",
    "peak_memory_bytes",
    "memory_estimated",
    "ratio_to_baseline",
    "ratio_ci",
    "doubtful",
    "runtime",
    "runtime_version",
    "os_bits",
    "threads",
    "flash_bytes",
    "ram_bytes",
    "compilation",
    "of",
    "baseline",
    "energy_mj",
    "file_bytes",
    "download_bytes",
    "metric",
    "accuracy",
    "accuracy_ci",
    "accuracy_samples",
    "accuracy_output",
    "accuracy_kernels",
    "accuracy_here",
    "predictions_differ",
    "largest_output_difference",
    "environment",
    "ops",
    "ops_note",
    "ops_runs",
    "ops_inference_us",
    "notes",
    "samples_ms",
]
MEASURED = Measurement(
    latency_ms=0.25,
    latency_source="measured",
    latency_ci_ms=(0.24, 0.26),
    p90_ms=0.3,
    iqr_ms=0.02,
    outliers=1,
    load_ms=3.0,
    first_inference_ms=0.5,
    peak_memory_bytes=9_400_000,
    runtime="ai-edge-litert",
    runtime_version="2.3.0",
    os_bits=64,
    threads=1,
    samples_ms=((0.24, 0.25, 0.26), (0.25, 0.25, 0.9)),
    environment=Environment(
        machine="aarch64",
        python="3.11.2",
        cpu="Cortex-A72",
        board="Raspberry Pi 4",
        cpu_features=("asimd",),
        cores=4,
        governor="ondemand",
        clock_mhz=(1500.0, 600.0),
        temperature_c=(48.0, 61.0),
        throttled=(0, 0x50000),
        load_average=(0.1, 0.9),
    ),
)
OPS = OpProfile(
    ops=(
        OpTime(
            kernel="Convolution (NHWC, F32)",
            kind="delegate",
            index=0,
            partition=0,
            median_us=30.0,
            mean_us=30.0,
            op="CONV_2D",
            layer="conv_2d_0",
        ),
        OpTime(kernel="SOFTMAX", kind="builtin", index=3, partition=None, median_us=10.0, mean_us=10.0, op="SOFTMAX"),
    ),
    runs=100,
    inference_us=45.0,
)
FILE = MeasuredFile(
    model="net.tflite", device="rpi4", measurement=MEASURED, file_bytes=95_688, download_bytes=78_521, profile=OPS
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a float file, another one, and data that fit both."""
    rng = np.random.default_rng(0)
    (tmp_path / "net.tflite").write_bytes(dense_model())
    (tmp_path / "other.tflite").write_bytes(dense_model(seed=1))
    x, y = rng.standard_normal((40, 8)).astype(np.float32), rng.integers(0, 4, 40)
    np.savez(tmp_path / "data.npz", x_validation=x[:4], y_validation=y[:4], x_test=x, y_test=y)
    return tmp_path


def measure(files: Path, *more: str | Path, model: str = "net.tflite", device: str = "local") -> Any:
    return call("measure", files / model, "--device", device, "--processes", "2", *more)


def shown(found: MeasuredFile, encoding: str = "utf-8", width: int = 160) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    print_measurement(Console(file=stream, width=width), found)
    stream.seek(0)
    return stream.read()


# Good days


def test_json_of_a_measured_file_is_the_documented_one(files: Path) -> None:
    data: list[str | Path] = ["--accuracy", "--data", files / "data.npz", "--metric", "accuracy"]
    done = measure(files, "--json", "--baseline", files / "other.tflite", *data)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == DOCUMENTED
    assert (found["latency_source"], found["latency_error"], found["threads"]) == ("measured", None, 1)
    assert found["latency_ci_ms"][0] <= found["latency_ms"] <= found["latency_ci_ms"][1]
    assert found["ratio_ci"][0] <= found["ratio_to_baseline"] <= found["ratio_ci"][1]
    assert found["baseline"] == "other.tflite"
    assert found["file_bytes"] == len(dense_model())
    assert len(found["samples_ms"]) == 2
    assert max(map(len, found["samples_ms"])) > 200  # all of them, unlike in a study
    assert [op["layer"] for op in found["ops"] if op["layer"]] == ["fully_connected_0"]
    assert found["environment"]["cores"] >= 1
    assert (found["accuracy_samples"], found["accuracy_kernels"]) == (40, "local")
    assert found["accuracy"] == found["accuracy_here"]
    assert (found["predictions_differ"], found["largest_output_difference"]) == (0, 0.0)


def test_accuracy_is_that_of_the_file(files: Path) -> None:
    with np.load(files / "data.npz") as data:
        x, y = data["x_test"], data["y_test"]
    from autocompress.network.tflite.interpreter import Runner

    runner = Runner(dense_model())
    classes = runner.run({runner.inputs[0].name: x}).argmax(1)
    asked: list[str | Path] = ["--accuracy", "--data", files / "data.npz", "--metric", "accuracy", "--json"]
    for device in ("local", *(["local-tflite-runtime"] if HAS_TFLITE else []), "rpi4"):
        found = json.loads(measure(files, *asked, device=device).stdout)
        assert found["accuracy"] == np.mean(classes == y)
    assert found["accuracy_kernels"] == "this machine (the device is modelled)"
    assert found["accuracy_here"] is None


def test_fidelity_is_to_the_baseline(files: Path) -> None:
    asked: list[str | Path] = [
        "--accuracy",
        "--data",
        files / "data.npz",
        "--metric",
        "fidelity",
        "--json",
        "--baseline",
    ]
    assert json.loads(measure(files, *asked, files / "net.tflite").stdout)["accuracy"] == 1.0
    assert json.loads(measure(files, *asked, files / "other.tflite").stdout)["accuracy"] < 1.0


def test_modelled_devices_say_so(files: Path) -> None:
    found = json.loads(measure(files, "--json", "--baseline", files / "net.tflite", device="rpi4").stdout)
    assert list(found) == DOCUMENTED
    assert (found["latency_source"], found["latency_ci_ms"], found["ratio_to_baseline"]) == ("modelled", None, 1.0)
    assert (found["latency_error"], found["extrapolated"]) == (None, True)
    assert (found["ops"], found["samples_ms"], found["environment"]) == (None, [], None)
    assert "modelled" in found["ops_note"]
    text = measure(files, device="rpi4").stdout
    assert "modelled" in text
    assert "no per-op times: the latency is modelled" in text


def test_a_modelled_device_is_measured_at_a_host(files: Path) -> None:
    profile = (ROOT / "device_profiles" / "rpi4.yaml").read_text()
    (files / "one.yaml").write_text(profile.replace("threads: 4}", "threads: 1}", 1))
    found = json.loads(measure(files, "--json", "--host", "local", device=str(files / "one.yaml")).stdout)
    assert (found["latency_source"], found["latency_error"], found["device"]) == ("measured", None, "rpi4")
    assert found["energy_mj"] > 0


@needs_tflite
def test_tflite_runtime_says_why_there_are_no_times(files: Path) -> None:
    done = measure(files, device="local-tflite-runtime")
    assert done.exit_code == 0
    assert "no per-op times: tflite-runtime gives no per-op times" in done.stdout


def test_people_see_the_same(files: Path) -> None:
    done = measure(files, "--baseline", files / "other.tflite")
    assert done.exit_code == 0
    for word in (
        "measured [",
        "over 2 processes",
        "of other.tflite (interleaved)",
        "first inference",
        "Fully Connected",
    ):
        assert word in " ".join(done.stdout.replace("│", " ").split())


# What is said


def test_every_figure_is_shown() -> None:
    text = shown(
        replace(
            FILE,
            energy_mj=1.6,
            baseline="float.tflite",
            accuracy=DeviceAccuracy(
                metric="accuracy",
                value=0.9,
                interval=(0.88, 0.92),
                samples=1000,
                kernels="rpi4",
                value_here=0.901,
                predictions_differ=3,
                largest_difference=0.012,
            ),
            measurement=replace(MEASURED, ratio_to_baseline=0.5, ratio_ci=(0.49, 0.52), doubtful=True),
        )
    )
    for said in (
        "0.250 ms measured [0.240, 0.260], 95 % interval over 2 processes",
        "p90 0.300 ms",
        "interquartile range 0.020 ms",
        "1 outlier of 6 samples",
        "0.500 [0.490, 0.520] of float.tflite (interleaved)",
        "doubtful",
        "3.00 ms load",
        "0.500 ms first inference",
        "9,400 KB peak",
        "95.7 KB file",
        "78.5 KB download",
        "1.60 mJ an inference, estimated",
        "accuracy 0.9000 [0.8800, 0.9200] on 1,000 test samples, kernels of rpi4",
        "0.9010 under the kernels of this machine: 3 predictions differ",
        "ai-edge-litert 2.3.0 · 1 thread · 64-bit",
        "Raspberry Pi 4 · Cortex-A72 · aarch64",
        "clock 1500 -> 600 MHz",
        "temperature 48 -> 61 °C",
        "throttle bits 0x0 -> 0x50000",
        "governor ondemand",
        "75.0 %",
        "25.0 %",
        "conv_2d_0",
        "40.0 µs of 45.0 µs",
    ):
        assert said in text, said


def test_a_console_without_unicode_is_survived() -> None:
    assert "us" in shown(FILE, "ascii", 60)


def test_shares_add_up_and_unmapped_kernels_are_said() -> None:
    found = document(FILE)
    assert [op["share"] for op in found["ops"]] == [0.75, 0.25]
    nothing = replace(
        OPS, ops=tuple(replace(op, mean_us=0.0) for op in present(OPS.ops)), reason="2 kernels ran for the 3 layers"
    )
    assert [op["share"] for op in document(replace(FILE, profile=nothing))["ops"]] == [None, None]
    assert "2 kernels ran for the 3 layers" in shown(replace(FILE, profile=nothing))


@given(st.lists(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=50), min_size=1, max_size=4))
def test_the_histogram_counts_every_sample(runs: list[list[float]]) -> None:
    lines = histogram(replace(MEASURED, samples_ms=tuple(map(tuple, runs))))
    samples = [sample for run in runs for sample in run]
    if len(set(samples)) == 1:
        assert lines == []
    else:
        assert sum(int(line.split()[-1].replace(",", "")) for line in lines) == len(samples)


@given(st.integers(1, 30), st.data())
def test_differences_between_kernels_are_counted(n: int, data: st.DataObject) -> None:
    values = st.lists(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=3, max_size=3), min_size=n, max_size=n)
    there, here = (np.array(data.draw(values), np.float32) for _ in range(2))
    y = np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    found = device_accuracy(get_metric("accuracy"), there, y, y, kernels="there", here=here)
    assert found.value == sum(row.argmax() == label for row, label in zip(there, y, strict=True)) / n
    assert found.value_here == sum(row.argmax() == label for row, label in zip(here, y, strict=True)) / n
    assert found.predictions_differ == sum(a.argmax() != b.argmax() for a, b in zip(there, here, strict=True))
    assert found.largest_difference == max(abs(a - b) for a, b in zip(there.ravel(), here.ravel(), strict=True))
    targets = device_accuracy(get_metric("mae"), there, here, y, kernels="there", here=here)
    assert targets.predictions_differ is None


# Stored


@given(st.lists(st.lists(st.floats(0, 9), max_size=700), max_size=3), st.integers(1, 300))
def test_thinned_samples_are_every_kth(runs: list[list[float]], most: int) -> None:
    whole = replace(MEASURED, samples_ms=tuple(map(tuple, runs)))
    thin = whole.thinned(most)
    assert replace(thin, samples_ms=whole.samples_ms) == whole
    for run, kept in zip(runs, thin.samples_ms, strict=True):
        assert len(kept) <= most
        step = -(-len(run) // most) or 1
        assert list(kept) == run[::step]


def test_a_study_stores_thinned_samples(tmp_path: Path) -> None:
    task = load_task("digits")
    many = replace(MEASURED, samples_ms=(tuple(np.linspace(0.2, 0.3, 5000).tolist()),) * 3)
    bench = Evaluator(
        task,
        load_device("rpi4"),
        Unscreened(lambda *_: many),
        runs=tmp_path,
        artifacts=tmp_path / "artifacts",
        seed=0,
        threads=1,
    )
    stored = bench.baseline.measurement
    assert [len(run) for run in stored.samples_ms] == [200] * 3
    assert stored == many.thinned()
    assert bench.remeasured(bench.baseline) == many.thinned()


def test_records_come_back_from_json_and_old_ones_too() -> None:
    stored = json.loads(json.dumps(MEASURED.to_dict()))
    assert Measurement.from_dict(stored) == MEASURED
    old = {key: value for key, value in stored.items() if key not in ("environment", "ratio_ci")}
    assert Measurement.from_dict(old) == replace(MEASURED, environment=None)


# Bad input


def refused(done: Any, message: str, code: int = 2) -> None:
    assert done.exit_code == code, done.output
    # Another test may be measuring on this machine; that the command waits for it is no error.
    assert message in fault_of(done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; give a file ending in .tflite"),
        (b"", "is empty"),
        (refused_model(), "not a TFLite file"),
        (crashing_model(), "truncated or damaged"),
        (dense_model()[:300], "truncated or damaged"),
    ],
    ids=["missing", "empty", "foreign", "noise", "cut"],
)
def test_files_that_are_none(files: Path, content: bytes | None, message: str) -> None:
    (files / "bad.tflite").unlink(missing_ok=True)
    if content is not None:
        (files / "bad.tflite").write_bytes(content)
    refused(measure(files, model="bad.tflite"), message)
    refused(measure(files, "--baseline", files / "bad.tflite"), message)


def test_a_file_that_the_runtime_refuses(files: Path) -> None:
    (files / "custom.tflite").write_bytes(custom_op())
    refused(measure(files, model="custom.tflite"), "the model does not run on 'local': ai-edge-litert")


def custom_op() -> bytes:
    """A whole file with an operator that nobody has."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(dense_model(), 0))
    code = tree.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM, schema.BuiltinOperator.CUSTOM
    code.customCode = "NobodyHasThis"
    tree.subgraphs[0].operators[0].builtinOptions, tree.subgraphs[0].operators[0].builtinOptionsType = None, 0
    builder = flatbuffers.Builder(1024)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--accuracy"], "--accuracy needs --data FILE.npz and --metric"),
        (["--accuracy", "--data", "DATA"], "needs --data FILE.npz and --metric"),
        (["--accuracy", "--data", "nowhere.npz", "--metric", "accuracy"], "is no file"),
        (["--accuracy", "--data", "DATA", "--metric", "acuracy"], "did you mean 'accuracy'"),
        (["--accuracy", "--data", "DATA", "--metric", "fidelity"], "add --baseline FILE"),
        (["--accuracy", "--data", "DATA", "--metric", "roc-auc"], "y_test"),
        (["--host", "-oProxyCommand=true"], "write user@name"),
    ],
)
def test_bad_arguments(files: Path, arguments: list[str], message: str) -> None:
    refused(measure(files, *[str(files / "data.npz") if a == "DATA" else a for a in arguments]), message)


def test_data_of_another_shape(files: Path) -> None:
    x, y = np.zeros((5, 9), np.float32), np.zeros(5, int)
    np.savez(files / "data.npz", x_validation=x, y_validation=y, x_test=x, y_test=y)
    asked: list[str | Path] = ["--accuracy", "--data", files / "data.npz", "--metric", "accuracy"]
    refused(measure(files, *asked), "x_test has shape (5, 9)")


def test_unknown_devices_and_devices_without_a_host(files: Path) -> None:
    refused(measure(files, device="locl"), "did you mean 'local'")
    profile = (ROOT / "device_profiles" / "local.yaml").read_text()
    (files / "bare.yaml").write_text(profile.replace("host: local", "host: null"))
    bare = measure(files, "--json", device=str(files / "bare.yaml"))
    assert bare.exit_code == 0, bare.output
    found = json.loads(bare.stdout)
    assert (found["latency_ms"], found["latency_source"], found["memory_estimated"]) == (None, "none", True)
    (files / "gone.yaml").write_text(profile.replace("host: local", "host: {command: [no-such-python]}"))
    refused(measure(files, device=str(files / "gone.yaml")), "cannot start 'no-such-python'", 3)
    (files / "many.yaml").write_text(profile.replace("threads: 1", "threads: 256"))
    refused(measure(files, device=str(files / "many.yaml")), "256 threads exceed", 3)
