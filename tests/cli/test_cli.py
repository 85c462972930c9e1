"""The command line as a user meets it: the main road, and every kind of bad input in one line with exit code 2."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.cli.options import Waits, seconds
from autocompress.errors import AutocompressError
from autocompress.latency.model.operators import operators
from autocompress.network.tflite.graph import read_graph
from autocompress.specs import load_device
from autocompress.tasks import load_task
from tests.builders.command_line import call, fault_of

DIGITS = load_task("digits")


def search(runs: Path, *more: str | Path) -> Any:
    return call("search", "--device", "rpi4", "--runs", runs, "--space", "quick", "--trials", "6", *more)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a finished study `a`."""
    runs = tmp_path_factory.mktemp("runs")
    done = search(runs, "--study", "a", "--seed", "1")
    assert done.exit_code == 0, done.output
    return runs


def test_report_json_is_the_documented_one(studied: Path) -> None:
    done = call("report", "a", "--runs", studied, "--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert list(report) == [
        "schema",
        "study",
        "task",
        "device",
        "latency_source",
        "latency_error",
        "metric",
        "output",
        "space",
        "sampler",
        "seed",
        "baseline",
        "front",
        "hypervolume",
        "trials",
        "candidates_per_s",
        "wall_s",
        "versions",
        "importance",
        "whole_channels",
        "ship",
    ]
    assert report["trials"]["complete"] == 6
    assert report["latency_source"] == "modelled"
    assert report["latency_error"] is None  # the network is far smaller than what the model was fitted to
    assert {report["baseline"]["extrapolated"], *(entry["extrapolated"] for entry in report["front"])} == {True}
    assert report["baseline"]["file_bytes"] == len(DIGITS.original)
    for point in report["front"]:
        content = (studied / point["artifact"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == point["sha256"]
        assert point["test_accuracy"] is not None
        assert set(point["kernels"].values()) == {"XNNPACK"}
        depthwise = [each for each in operators(content) if each.op == "DEPTHWISE_CONV_2D"]
        assert depthwise
        # No dynamic range: XNNPACK does not take it there. Unpacked weights are float ones of the operator.
        assert {(op.first.kind, op.weight.kind) for op in depthwise} <= {("FLOAT32", "FLOAT32"), ("INT8", "INT8")}
        assert point["latency_ci_ms"] is None


def test_report_html_is_one_file_that_repeats_the_command(studied: Path, tmp_path: Path) -> None:
    page, ops = tmp_path / "new" / "a.html", tmp_path / "ops.json"
    done = call("report", "a", "--runs", studied, "--html", page)
    assert (done.exit_code, done.stdout) == (0, f"{page}\n")
    text = page.read_text(encoding="utf-8")
    asked = f"--device rpi4 --space quick --trials 6 --study a --runs {studied} --seed 1"
    assert f"autocompress search {asked}" in text
    assert "<script src" not in text
    assert DIGITS.network_sha256 in text
    assert list(page.parent.iterdir()) == [page]
    ops.write_text("[1]")
    for arguments, said in (
        (("--ops", ops), "--ops belongs to the page"),
        (("--html", page, "--ops", ops), "holds no JSON object"),
        (("--html", page, "--ops", tmp_path / "none.json"), "cannot read"),
        (("--html", page / "below"), "cannot write"),
    ):
        done = call("report", "a", "--runs", studied, *arguments)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr
    assert page.read_text(encoding="utf-8") == text


def test_who_searched_is_in_the_record_without_a_password(studied: Path) -> None:
    from autocompress.search.storage.study_records import load_study, read_record, without_password

    record = read_record(load_study(studied, "a", None))
    assert [run.command[:2] for run in record.runs] == [("autocompress", "search")]
    assert record.runs[0].started_s > 0
    assert record.hashes["network"] == DIGITS.network_sha256
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert without_password("sqlite:///a@b:c.db") == "sqlite:///a@b:c.db"


def test_search_json_prints_the_same_document_and_people_read_standard_error(tmp_path: Path) -> None:
    done = search(tmp_path, "--study", "b", "--json")
    assert done.exit_code == 0
    again = call("report", "b", "--runs", tmp_path, "--json")
    assert json.loads(done.stdout) == json.loads(again.stdout)
    assert "baseline" in done.stderr


def test_report_names_the_latency_source_and_the_next_command(studied: Path) -> None:
    done = call("report", "a", "--runs", studied)
    assert done.exit_code == 0
    flat = " ".join(done.stdout.split())
    assert "for all, modelled, order of magnitude, outside what the model was fitted to" in flat
    assert f"autocompress export a --pick knee --runs {studied}" in done.stdout


@pytest.mark.parametrize("pick", ["knee", "fastest", "smallest", "best", "0"])
def test_export_writes_file_gzip_and_card(studied: Path, tmp_path: Path, pick: str) -> None:
    done = call("export", "a", "--pick", pick, "--runs", studied, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    model, packed, card = (Path(line) for line in done.stdout.split())
    described = json.loads(card.read_text())
    assert hashlib.sha256(model.read_bytes()).hexdigest() == described["sha256"]
    assert gzip.decompress(packed.read_bytes()) == model.read_bytes()
    assert described["configuration"]["layers"]
    assert {"autocompress", "optuna", "ai-edge-quantizer", "runtime"} <= set(described["versions"])


def test_export_refuses_a_file_that_changed(tmp_path: Path) -> None:
    assert search(tmp_path, "--study", "c", "--trials", "2").exit_code == 0
    for file in (tmp_path / "c" / "artifacts").glob("*.tflite"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = call("export", "c", "--runs", tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "has changed since it was measured" in done.stderr
    assert not (tmp_path / "out").exists()


def test_own_network_and_data(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(DIGITS.original)
    np.savez(tmp_path / "data.npz", **arrays())
    done = search(
        tmp_path / "runs", "--model", tmp_path / "net.tflite", "--data", tmp_path / "data.npz", "--metric", "accuracy"
    )
    assert done.exit_code == 0, done.output
    assert "the validation inputs serve" in done.output


def test_own_task_file(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(DIGITS.original)
    np.savez(tmp_path / "data.npz", **arrays())
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nimport numpy as np\nfrom autocompress.tasks import Task\n"
        "data = np.load(Path(__file__).parent / 'data.npz')\n"
        "task = Task(name='mine', network='net.tflite', metric='fidelity', x_validation=data['x_validation'],\n"
        "            x_test=data['x_test'])\n"
    )
    done = search(tmp_path / "runs", "--task", f"{tmp_path / 'mine.py'}:task", "--study", "m")
    assert done.exit_code == 0, done.output
    report = json.loads(call("report", "m", "--runs", tmp_path / "runs", "--json").stdout)
    assert report["metric"]["name"] == "fidelity"
    assert report["baseline"]["accuracy"] == 1.0


def test_constraints_nobody_meets_end_with_1_and_the_nearest(tmp_path: Path) -> None:
    done = search(tmp_path, "--constraint", "download_bytes<=100")
    assert done.exit_code == 1
    assert "nearest" in done.output


def arrays(**changes: Any) -> dict[str, Any]:
    (validation,), (test,) = DIGITS.x_validation.values(), DIGITS.x_test.values()
    assert DIGITS.y_validation is not None
    assert DIGITS.y_test is not None
    made = {
        "x_validation": validation[:50],
        "y_validation": DIGITS.y_validation[:50],
        "x_test": test[:50],
        "y_test": DIGITS.y_test[:50],
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


def with_nan() -> Any:
    values = arrays()["x_validation"].copy()
    values[3, 2, 1, 0] = np.nan
    return values


BAD_DATA = {
    "nan": ({"x_validation": with_nan()}, "NaN"),
    "shape": ({"x_test": np.zeros((5, 9, 9, 1), np.float32), "y_test": np.zeros(5, np.int64)}, "8, 8, 1"),
    "dtype": ({"x_validation": (arrays()["x_validation"] * 255).astype(np.uint8)}, "uint8"),
    "labels out of range": ({"y_validation": np.full(50, 10)}, "10"),
    "fewer labels": ({"y_test": np.zeros(3, np.int64)}, "3"),
    "missing key": ({"y_validation": None}, "y_validation"),
    "no samples": ({"x_test": np.zeros((0, 8, 8, 1), np.float32), "y_test": np.zeros(0, np.int64)}, "no samples"),
}


@pytest.mark.parametrize("kind", sorted(BAD_DATA))
def test_bad_data(tmp_path: Path, kind: str) -> None:
    changes, message = BAD_DATA[kind]
    (tmp_path / "net.tflite").write_bytes(DIGITS.original)
    np.savez(tmp_path / "data.npz", **arrays(**changes))
    refused(
        tmp_path, message, "--model", tmp_path / "net.tflite", "--data", tmp_path / "data.npz", "--metric", "accuracy"
    )


def refused(tmp_path: Path, message: str, *arguments: str | Path) -> None:
    """Exit code 2, one line, and no study begun."""
    done = search(tmp_path / "runs", *arguments)
    assert done.exit_code == 2, done.output
    assert message in fault_of(done.stderr)
    assert not (tmp_path / "runs").exists()


def test_bad_models(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **arrays())
    whole = DIGITS.original
    bad = {
        "empty": (b"", "empty"),
        "truncated": (whole[: len(whole) // 2], "truncated or damaged"),
        "text": (b"hello, I am a network", "not a TFLite file"),
        "quantized": (_quantized(), "already quantized"),
    }
    for name, (content, message) in bad.items():
        (tmp_path / f"{name}.tflite").write_bytes(content)
        refused(
            tmp_path,
            message,
            "--model",
            tmp_path / f"{name}.tflite",
            "--data",
            tmp_path / "data.npz",
            "--metric",
            "accuracy",
        )
    refused(
        tmp_path,
        "gone.tflite",
        "--model",
        tmp_path / "gone.tflite",
        "--data",
        tmp_path / "data.npz",
        "--metric",
        "accuracy",
    )


def _quantized() -> bytes:
    from autocompress.compression.template import make_template
    from autocompress.network.graph.layers import layers_of

    layers = layers_of(read_graph(DIGITS.network))
    return make_template(DIGITS.network, layers, [8] * len(layers), "float32", None).patch.snapshot()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "rpi44"], "did you mean 'rpi4'"),
        (["--task", "digit"], "did you mean 'digits'"),
        (["--space", "defualt"], "did you mean 'default'"),
        (["--metric", "acuracy"], "did you mean 'accuracy'"),
        (["--objective", "latencies"], "did you mean 'latency'"),
        (["--sampler", "tpe2"], "did you mean 'tpe'"),
        (["--size", "zip"], "unknown size 'zip'"),
        (["--constraint", "latensy<=3"], "did you mean 'latency"),
        (["--constraint", "latency_ms=3"], "NAME<=NUMBER"),
        (["--constraint", "latency_ms<=fast"], "'fast' is no number"),
        (["--constraint", "accuracy>=2"], "cannot be met"),
        (["--constraint", "accuracy>=0.9", "--constraint", "accuracy<=0.8"], "exclude each other"),
        (["--time-budget", "soon"], "no duration"),
        (["--host-wait", "soon"], "--host-wait 'soon' is no duration"),
        (["--host=-oProxyCommand=x"], "write user@name"),
        (["--host="], "write user@name"),
        (["--model", "x.tflite"], "--data"),
        (["--task", "nowhere.py:task"], "nowhere.py"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: list[str], message: str) -> None:
    refused(tmp_path, message, *arguments)


def test_every_fault_of_a_yaml_is_listed_with_its_path(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("schema: 1\nname: x\nrules:\n  - {match: '(', bits: [9], sparsty: [0]}\n  - {sparsity: [1.5]}\n")
    done = search(tmp_path / "runs", "--space", space)
    assert done.exit_code == 2
    for path in ("$.rules[0].match", "$.rules[0].bits[0]", "$.rules[0].sparsty", "$.rules[1].sparsity[0]"):
        assert path in fault_of(done.stderr)


def test_a_space_that_matches_no_layer(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("schema: 1\nname: x\nrules:\n  - {match: 'conv2d.*', bits: [8]}\n")
    refused(tmp_path, "matches no layer", "--space", space)


def test_a_runs_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = search(tmp_path / "file" / "runs")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


def test_unknown_studies(studied: Path, tmp_path: Path) -> None:
    done = call("report", "aa", "--runs", studied)
    assert done.exit_code == 2
    assert "did you mean 'a'" in done.stderr
    assert "holds none yet" in call("report", "a", "--runs", tmp_path).stderr
    assert call("export", "a", "--runs", studied, "--pick", "nicest").exit_code == 2


def test_in_a_process_of_its_own_a_fault_is_one_line_and_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autocompress.cli", "search", "--device", "nope", "--runs", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"})
    assert done.returncode == 2
    assert done.stdout == ""
    assert "nope" in fault_of(done.stderr)


def test_devices_are_listed_and_shown() -> None:
    listed = call("device", "list")
    assert listed.exit_code == 0
    assert "rpi4" in listed.stdout
    shown = json.loads(call("device", "show", "rpi4", "--json").stdout)
    assert shown["latency_model"]["leave_one_out"]["float32"] < 0.05
    assert "fitted_to" in call("device", "show", "rpi4").stdout
    assert "leaves one out with an error of 13 %" in " ".join(call("device", "show", "rpi3").stdout.split())


@pytest.mark.parametrize("name", ["rpi4", "rpi3", "local"])
def test_what_is_shown_of_a_device_is_a_profile(name: str, tmp_path: Path) -> None:
    (tmp_path / "copy.yaml").write_text(call("device", "show", name).stdout)
    assert load_device(tmp_path / "copy.yaml") == load_device(name)


def test_a_line_about_waiting_comes_again_at_most_once_a_minute() -> None:
    from rich.console import Console

    now, console = [0.0], Console(record=True, width=20)
    waits = Waits(console, clock=lambda: now[0])
    for now[0], line in ((0, "a [b]"), (1, "a [b]"), (2, "c"), (59, "a [b]"), (61, "a [b]"), (62, "c")):
        waits(line)
    assert console.export_text().split("\n")[:-1] == ["a [b]", "c", "a [b]", "c"]


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90.0), ("10m", 600.0), ("1h30m", 5400.0), ("7", 7.0), ("1.5m", 90.0)]
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "m", "10 m", "5d", "-3s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(AutocompressError):
        seconds(text)
