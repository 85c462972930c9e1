"""The bundle of `export`: the very file that was measured, programs that need nothing of ours, cards that stay text."""

from __future__ import annotations

import ast
import gzip
import hashlib
import html
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from autocompress.compression.build import decoded
from autocompress.export import android, bundle, c_source
from autocompress.export.programs import verify
from autocompress.export.stored_weights import stored_weights
from autocompress.metrics import METRICS
from autocompress.report.card import escaped
from autocompress.tasks import load_task
from tests.builders.command_line import call
from tests.builders.edge_host import unavailable
from tests.builders.network_data import UnavailableError, apt
from tests.builders.optional import present
from tests.builders.project import ROOT

DIGITS = load_task("digits")
PROGRAMS = ROOT / "autocompress" / "export" / "programs"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' network and data as a user has them: net.tflite and data.npz."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "net.tflite").write_bytes(DIGITS.original)
    (validation,), (test,) = DIGITS.x_validation.values(), DIGITS.x_test.values()
    labels = {"y_validation": present(DIGITS.y_validation), "y_test": present(DIGITS.y_test)}
    np.savez(folder / "data.npz", x_validation=validation, x_test=test, **labels)
    return folder


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with study `own`: dense and sparse, clustered, dynamic-range and static candidates."""
    runs = tmp_path_factory.mktemp("runs")
    done = call(
        "search",
        "--device",
        "rpi4",
        "--runs",
        runs,
        "--trials",
        9,
        "--study",
        "own",
        "--model",
        data / "net.tflite",
        "--data",
        data / "data.npz",
        "--metric",
        "accuracy",
    )
    assert done.exit_code == 0, done.output
    return runs


def exported(runs: Path, folder: Path, *more: str | int) -> tuple[dict[str, Any], Any]:
    """The card of a bundle of study `own` in `folder`, and how the command ended."""
    done = call("export", "own", "--runs", runs, "--to", folder, *more)
    assert done.exit_code == 0, done.output
    return json.loads(Path(done.stdout.split()[2]).read_text(encoding="utf-8")), done


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own that finds nothing of ours."""
    command = [sys.executable, *(str(word) for word in words)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


# --- the bundle -----------------------------------------------------------------------------------


def test_the_bundle_holds_the_measured_file_and_says_what_it_is(runs: Path, tmp_path: Path) -> None:
    card, done = exported(runs, tmp_path, "--licence", "CC-BY-4.0")
    model, packed, described = (Path(line) for line in done.stdout.split())
    assert hashlib.sha256(model.read_bytes()).hexdigest() == card["sha256"] == card["hashes"]["model"]
    assert gzip.decompress(packed.read_bytes()) == model.read_bytes()
    assert len(packed.read_bytes()) == card["measurements"]["download_bytes"]
    assert described.suffix == ".json"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {model.name, packed.name, described.name, f"{model.stem}.md", "predict.py", "verify.py"}
    assert card["licence"] == "CC-BY-4.0"
    assert card["hashes"]["network"] == hashlib.sha256(DIGITS.original).hexdigest()
    assert card["baseline"]["accuracy_ci"][0] < card["baseline"]["accuracy"] < card["baseline"]["accuracy_ci"][1]
    difference = card["measurements"]["accuracy"] - card["baseline"]["accuracy"]
    assert card["deltas"]["accuracy"] == pytest.approx(difference)
    assert card["deltas"]["download_bytes_ratio"] < 1
    assert card["measurements"]["latency_error"] is None  # the digits network is far smaller than the fitted ones
    assert card["measurements"]["extrapolated"] is card["baseline"]["extrapolated"] is True
    assert {layer["runs_on"] for layer in card["layers"]} == {"XNNPACK"}
    page = (tmp_path / f"{model.stem}.md").read_text(encoding="utf-8")
    for said in (
        card["sha256"],
        "**modelled**",
        "CC-BY-4.0",
        "conv\\_2d\\_0",
        f"{card['measurements']['accuracy']:.4f}",
    ):
        assert said in page


def test_the_licence_is_null_unless_it_is_given(runs: Path, tmp_path: Path) -> None:
    card, _ = exported(runs, tmp_path)
    assert card["licence"] is None
    assert "not stated" in (tmp_path / card["model"]).with_suffix(".md").read_text(encoding="utf-8")


def test_the_command_of_the_card_repeats_the_study(runs: Path, data: Path, tmp_path: Path) -> None:
    card, _ = exported(runs, tmp_path, "--pick", 5)
    assert str(data) not in json.dumps(card)  # folders are nobody's business
    words = [str(data / word) if (data / word).is_file() else word for word in shlex.split(card["repeat"])]
    done = call(*words[1:], "--runs", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again" / "own" / "artifacts" / f"{card['sha256']}.tflite").is_file()


def test_a_program_of_the_users_own_is_never_overwritten(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "predict.py").write_text("mine = 1\n")
    done = call("export", "own", "--runs", runs, "--to", tmp_path)
    assert done.exit_code == 2
    assert "give another folder with --to" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["predict.py"]
    assert (tmp_path / "predict.py").read_text() == "mine = 1\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--format", "andriod"], "did you mean 'android'"),
        (["--normalise", "0", "1"], "add --format android"),
        (["--format", "android", "--normalise", "0", "0"], "not above 0"),
        (["--to", "/dev/null/x"], "cannot write into"),
    ],
)
def test_bad_options_end_in_one_line(runs: Path, more: list[str], said: str) -> None:
    done = call("export", "own", "--runs", runs, *more)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


# --- the programs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["predict.py", "verify.py"])
def test_programs_need_numpy_and_a_runtime_only_and_run_on_old_pythons(name: str) -> None:
    tree = ast.parse((PROGRAMS / name).read_text(encoding="utf-8"), feature_version=(3, 8))
    packages = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add((node.module or "").split(".")[0])
    assert packages - set(sys.stdlib_module_names) == {"numpy", "ai_edge_litert", "tflite_runtime"}


def test_predict_runs_samples(runs: Path, data: Path, tmp_path: Path) -> None:
    card, _ = exported(runs, tmp_path)
    samples = np.load(data / "data.npz")["x_test"][:20]
    np.save(tmp_path / "x.npy", samples)
    done = run(tmp_path / "predict.py", tmp_path / "x.npy")
    assert done.returncode == 0, done.stderr
    model = (tmp_path / card["model"]).read_bytes()
    (outputs,), _ = verify.outputs_of(model, {"x_test": samples}, "test", card["output"])
    assert [int(n) for n in re.findall(r"largest output (\d+)", done.stdout)] == outputs.argmax(1).tolist()
    assert "0: largest output" in run(tmp_path / "predict.py").stdout
    np.save(tmp_path / "x.npy", samples[:, :4])
    wrong = run(tmp_path / "predict.py", tmp_path / "x.npy")
    assert wrong.returncode == 1
    assert (
        wrong.stderr.splitlines(keepends=True)[-1]
        == "the network takes samples of shape (n, 8, 8, 1), as many of each; got (20, 4, 8, 1)\n"
    )


def test_predict_takes_the_data_of_a_search_and_says_what_it_takes(runs: Path, data: Path, tmp_path: Path) -> None:
    exported(runs, tmp_path)
    program = tmp_path / "predict.py"
    np.save(tmp_path / "x.npy", np.load(data / "data.npz")["x_test"])
    expected = run(program, tmp_path / "x.npy").stdout
    assert run(program, data / "data.npz").stdout == expected != ""
    np.savez(tmp_path / "mine.npz", whatever=np.load(tmp_path / "x.npy"))
    assert run(program, tmp_path / "mine.npz").stdout == expected
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    refused = run(program, tmp_path / "two.npz")
    assert refused.returncode == 1
    assert "among a, b; call it" in refused.stderr.splitlines()[-1]
    (tmp_path / "text.npz").write_text("no archive")
    refused = run(program, tmp_path / "text.npz")
    assert refused.returncode == 1
    assert "give a .npy an input or one .npz" in refused.stderr.splitlines()[-1]
    told = run(program, "--help")
    assert told.returncode == 0
    assert "one .npz with an array an input" in " ".join(told.stdout.split())


OLD_RUNTIME = pytest.mark.skipif(
    importlib.util.find_spec("tflite_runtime") is None, reason="there is no tflite-runtime for this Python"
)


def run_with_tflite_runtime(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [str(word) for word in words]
    return run(
        "-c",
        f"import sys, runpy\nsys.modules['ai_edge_litert'] = None\nsys.argv = {argv!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n",
    )


def with_activations(runs: Path, folder: Path, activations: str) -> dict[str, Any]:
    """The card of the first trial with integer layers and these activations, exported into `folder`."""
    cards = (exported(runs, folder, "--pick", number)[0] for number in range(9))
    return next(card for card in cards if card["configuration"]["activations"] == activations)


@OLD_RUNTIME
def test_programs_run_with_tflite_runtime_alone(runs: Path, data: Path, tmp_path: Path) -> None:
    with_activations(runs, tmp_path, "int8")
    for words in ([tmp_path / "predict.py"], [tmp_path / "verify.py", "--data", data / "data.npz"]):
        done = run_with_tflite_runtime(*words)
        assert done.returncode == 0, done.stdout + done.stderr


@OLD_RUNTIME
def test_verify_finds_kernels_that_compute_something_else(runs: Path, data: Path, tmp_path: Path) -> None:
    """tflite-runtime 2.14 runs dynamic-range FULLY_CONNECTED with scales per channel, wrongly."""
    with_activations(runs, tmp_path, "float32")
    done = run_with_tflite_runtime(tmp_path / "verify.py", "--data", data / "data.npz")
    assert done.returncode == 1
    assert re.search("FAULT accuracy on validation data: .* with tflite_runtime", done.stdout)


def test_verify_confirms_every_trial(runs: Path, data: Path, tmp_path: Path) -> None:
    for number in range(9):
        card, _ = exported(runs, tmp_path, "--pick", number)
        done = run(tmp_path / "verify.py", "--data", data / "data.npz")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"accuracy on validation data: {card['measurements']['accuracy']:.6f} with" in done.stdout
        assert "FAULT" not in done.stdout


def spoiled(card: dict[str, Any], path: list[Any], value: Any) -> dict[str, Any]:
    owner = card
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    return card


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (["layers", 0, "zeros"], 1, "conv_2d_0"),
        (["layers", 2, "levels"], 1, "conv_2d_1"),
        (["layers", 2, "container"], "FLOAT32", "conv_2d_1"),
        (["layers", 2, "asked", "sparsity"], 0.99, "conv_2d_1"),
        (["layers", 1, "name"], "conv_2d_7", "layers"),
        (["measurements", "accuracy"], 0.9, "accuracy on validation"),
        (["measurements", "test_accuracy"], 0.9, "accuracy on test"),
    ],
)
def test_verify_finds_a_card_that_is_wrong(
    runs: Path, data: Path, tmp_path: Path, path: list[Any], value: Any, fault: str
) -> None:
    card, _ = exported(runs, tmp_path)
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(spoiled(card, path, value)))
    done = run(tmp_path / "verify.py", wrong, "--data", data / "data.npz")
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(line.startswith("FAULT") and fault in line for line in done.stdout.splitlines())


def test_verify_finds_a_file_that_changed_or_is_missing(runs: Path, tmp_path: Path) -> None:
    card, _ = exported(runs, tmp_path)
    model = tmp_path / card["model"]
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = run(tmp_path / "verify.py")
    assert done.returncode == 1
    assert f"FAULT {model.name}: {len(content)} bytes" in done.stdout
    assert f"the card says {len(content)} bytes, sha256 {card['sha256']}" in done.stdout
    model.write_bytes(content[:1000])
    assert run(tmp_path / "verify.py").returncode == 1
    model.unlink()
    done = run(tmp_path / "verify.py")
    assert done.returncode == 1
    assert f"FAULT {model.name}: is missing" in done.stdout


def test_what_verify_cannot_read_is_one_line_and_code_2(runs: Path, data: Path, tmp_path: Path) -> None:
    card, _ = exported(runs, tmp_path)
    (tmp_path / "cut.npz").write_bytes((data / "data.npz").read_bytes()[:-100])
    (tmp_path / "other.json").write_text(json.dumps(card | {"metric": {"name": "iou"}}))
    faults: list[list[str | Path]] = [
        ["none.json"],
        ["other.json", "--data", data / "data.npz"],
        ["--data", tmp_path / "cut.npz"],
    ]
    for words in faults:
        full = [tmp_path / word if str(word).endswith(".json") else word for word in words]
        done = run(tmp_path / "verify.py", *full)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "cannot be checked: " in done.stderr


def test_verify_reads_what_the_schema_reads(runs: Path) -> None:
    files = [DIGITS.original, *(path.read_bytes() for path in sorted(runs.glob("own/artifacts/*.tflite")))]
    for file in files:
        ours = [{k: v for k, v in weight.to_dict().items() if k != "op"} for weight in stored_weights(file)]
        assert verify.layers_of(file) == ours


@given(st.binary(min_size=1, max_size=40), st.booleans())
def test_four_bit_values_are_read_alike(raw: bytes, odd: bool) -> None:
    size = 2 * len(raw) - odd
    ours, theirs = decoded(np.frombuffer(raw, np.uint8), "INT4", size), verify.four_bits(raw, size)
    assert len(np.unique(ours)) == len(np.unique(theirs))
    assert (ours == 0).tolist() == (theirs == 0).tolist()


KINDS = st.sampled_from([None, "softmax", "logistic", "linear"])


@given(st.sampled_from(sorted(METRICS)), KINDS, st.integers(0, 2**32 - 1), st.integers(4, 40))
@settings(deadline=None)
def test_verify_computes_the_metrics_of_the_search(name: str, kind: str | None, seed: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    columns = 2 if name == "roc-auc" and seed % 2 else 12
    outputs = rng.integers(0, 6, (samples, columns)).astype(np.float32) / 5 - 0.3  # ties too
    x = rng.normal(size=(samples, columns)).astype(np.float32)
    y: Any = x if name == "mae" else rng.permuted(outputs, axis=1) if name.endswith("fidelity") else None
    metric = METRICS[name].read_as(kind, y)
    if y is None:
        y = rng.permutation(np.arange(samples) % (2 if name == "roc-auc" else columns))
        several = name in ("f1", "macro-f1") and seed % 3 == 0
        y = rng.integers(0, 2, outputs.shape) if several else [y, y[:, None], y.astype(float)][seed % 3]
    expected = metric.value(outputs, metric.taken(y, outputs.shape), x)
    assert verify.metric_of(name, outputs, y, x, kind) == pytest.approx(expected, abs=1e-9)


@given(st.sampled_from(["accuracy", "mean-iou", "macro-f1", "recall"]), KINDS, st.integers(0, 99), st.booleans())
@settings(deadline=None, max_examples=40)
def test_verify_scores_label_maps_as_the_search_does(name: str, kind: str | None, seed: int, first: bool) -> None:
    rng = np.random.default_rng(seed)
    outputs, y = rng.normal(size=(5, 6, 4, 3)).astype(np.float32), rng.integers(0, 3, (5, 6, 4))
    y[rng.random(y.shape) < 0.1] = 255
    if seed % 4 == 0:
        outputs, y = outputs[..., :1], y % 2
    elif first:
        outputs = np.moveaxis(outputs, -1, 1)
    metric = METRICS[name].read_as(kind)
    expected = metric.value(outputs, metric.taken(y, outputs.shape), outputs)
    assert verify.metric_of(name, outputs, y, outputs, kind) == pytest.approx(expected, abs=1e-9)


def test_verify_needs_the_float_network_for_fidelity(data: Path, tmp_path: Path) -> None:
    files = ["--model", data / "net.tflite", "--data", data / "data.npz", "--metric", "fidelity"]
    more = ["--runs", tmp_path / "runs", "--space", "quick", "--trials", 2, "--study", "own", *files]
    assert call("search", "--device", "rpi4", *more).exit_code == 0
    exported(tmp_path / "runs", tmp_path)
    done = run(tmp_path / "verify.py", "--data", data / "data.npz")
    assert done.returncode == 2
    assert "add --float NETWORK.tflite" in done.stderr
    done = run(tmp_path / "verify.py", "--data", data / "data.npz", "--float", data / "net.tflite")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fidelity on test data" in done.stdout


# --- names ----------------------------------------------------------------------------------------


@given(st.text())
@settings(deadline=None)
def test_a_name_stays_text_in_markdown(name: str) -> None:
    expected = html.escape("".join(c if c.isprintable() else " " for c in name), quote=False)
    rendered = MarkdownIt("commonmark").enable("table").render(f"| a | b |\n| --- | --- |\n| x{escaped(name)}x | y |\n")
    cells = re.findall(r"<td>(.*?)</td>", rendered, re.DOTALL)
    assert cells == [f"x{expected}x".replace('"', "&quot;"), "y"]


@given(st.text())
def test_identifiers_are_those_of_c(name: str) -> None:
    assert re.fullmatch(r"model(_[A-Za-z0-9]+)*", c_source.identifier(name))


# --- C --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gcc() -> str:
    if shutil.which("gcc") is None and os.geteuid() == 0:
        try:
            apt("install", "-y", "--no-install-recommends", "gcc", "libc6-dev")
        except UnavailableError as reason:
            unavailable(str(reason))
    found = shutil.which("gcc")
    if found is None:
        unavailable("there is no gcc")
    return str(found)


DUMP = """
#include <stdint.h>
#include <stdio.h>
#include "NAME.h"
int main(void) {
  if ((uintptr_t)NAME % 16 != 0) return 1;
  return fwrite(NAME, 1, NAME_len, stdout) == sizeof NAME ? 0 : 1;
}
"""


def static_trial(runs: Path, folder: Path) -> int:
    """The first trial of static int8: what a microcontroller runs."""
    cards = (exported(runs, folder, "--pick", number)[0] for number in range(9))
    return next(n for n, card in enumerate(cards) if card["configuration"]["activations"] == "int8")


def test_the_c_array_holds_the_very_bytes_aligned(runs: Path, tmp_path: Path, gcc: str) -> None:
    card, _ = exported(runs, tmp_path, "--pick", static_trial(runs, tmp_path / "looked-at"), "--format", "c")
    (source,) = tmp_path.glob("*.c")
    (tmp_path / "main.c").write_text(DUMP.replace("NAME", source.stem))
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    built = subprocess.run([gcc, *flags, "-o", "dump", "main.c", source.name], cwd=tmp_path, check=False)
    assert built.returncode == 0
    done = subprocess.run([tmp_path / "dump"], capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout == (tmp_path / card["model"]).read_bytes()
    header = source.with_suffix(".h").read_text()
    for method in ("AddConv2D", "AddDepthwiseConv2D", "AddFullyConnected", "AddMean", "AddSoftmax"):
        assert f"resolver.{method}();" in header


def test_no_text_ends_the_comment(tmp_path: Path, gcc: str) -> None:
    source, header = c_source.c_files(DIGITS.original, "model", "*/ #error no\n??/ \\\nµ /*")
    (tmp_path / "model.h").write_text(header)
    (tmp_path / "model.c").write_text(source)
    flags = ["-std=c11", "-Wall", "-Werror", "-fsyntax-only"]
    assert subprocess.run([gcc, *flags, "model.c"], cwd=tmp_path, check=False).returncode == 0


def test_nothing_is_exported_for_a_microcontroller_that_its_runtime_does_not_run(runs: Path, tmp_path: Path) -> None:
    refused = 0
    for number in range(9):
        folder = tmp_path / str(number)
        card, _ = exported(runs, tmp_path, "--pick", number)
        integers = sum(layer["container"] != "FLOAT32" for layer in card["layers"])
        done = call("export", "own", "--runs", runs, "--pick", number, "--to", folder, "--format", "c")
        if integers and card["configuration"]["activations"] in ("float32", "weight_only"):
            refused += 1
            assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
            assert "no C source for a microcontroller: tflite-micro" in done.stderr
            assert not list(folder.glob("*"))
        else:
            assert done.exit_code == 0
            (header,) = folder.glob("*.h")
            assert re.search(r"Arena: \d+ bytes, \d+ of them persistent, in tflite-micro", header.read_text())
    assert refused


def test_where_the_runtime_of_microcontrollers_is_missing_the_export_is_unchecked(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "is_installed", lambda: False)
    for number in range(9):
        card, done = exported(runs, tmp_path, "--pick", number, "--format", "c")
        assert "not run in TensorFlow Lite Micro, which is not installed (pip install" in done.stderr
        integers = sum(layer["container"] == "INT8" for layer in card["layers"])
        expected = integers if card["configuration"]["activations"] == "float32" else 0
        assert (f"{expected} layers have integer weights and float inputs" in done.stderr) == (expected > 0)


# --- Android --------------------------------------------------------------------------------------


def metadata_of(file: bytes) -> Any:
    """The root table of the TFLite metadata, by the layout of FlatBuffers alone."""
    root = verify.Table(file, int.from_bytes(file[:4], "little"))
    (buffer,) = [entry.number(1, "<I") for entry in root.tables(6) if text(entry, 0) == "TFLITE_METADATA"]
    start, size = root.tables(4)[buffer].span(0)
    content = file[start : start + size]
    assert content[4:8] == b"M001"
    return verify.Table(content, int.from_bytes(content[:4], "little"))


def text(table: Any, field: int) -> str:
    start, size = table.span(field)
    return str(table.data[start : start + size], "utf-8")


def test_metadata_say_what_the_network_is_and_change_nothing(runs: Path, data: Path, tmp_path: Path) -> None:
    card, done = exported(runs, tmp_path, "--format", "android", "--licence", "MIT", "--normalise", "1", "16")
    model = (tmp_path / card["model"]).read_bytes()
    assert hashlib.sha256(model).hexdigest() == card["sha256"]  # the proof stays what was measured
    (path,) = tmp_path.glob("*-android.tflite")
    found = metadata_of(path.read_bytes())
    assert [text(found, n) for n in (0, 2, 5, 7)] == [Path(card["model"]).stem, card["sha256"][:12], "MIT", "1.0.0"]
    assert text(found, 1).startswith("net, compressed by autocompress")
    (graph,) = found.tables(3)
    (given,), (result,) = graph.tables(2), graph.tables(3)
    assert "float32, shape 1 x 8 x 8 x 1" in text(given, 1)
    assert "float32, shape 1 x 10" in text(result, 1)
    (unit,) = given.tables(4)
    assert unit.number(0, "B") == 1
    mean, deviation = (np.frombuffer(*span(unit, field)) for field in (0, 1))
    assert (mean.tolist(), deviation.tolist()) == ([1.0], [16.0])
    samples = {"x_test": np.load(data / "data.npz")["x_test"][:50]}
    (plain,), (described,) = (verify.outputs_of(file, samples, "test", None)[0] for file in (model, path.read_bytes()))
    assert (plain == described).all()
    assert "no input normalisation" not in done.stderr


def span(unit: Any, field: int) -> tuple[bytes, str]:
    """The floats of a field of the options behind a union."""
    options_at = unit._field(1)
    options = verify.Table(unit.data, options_at + int.from_bytes(unit.data[options_at : options_at + 4], "little"))
    start, count = options.span(field)
    return options.data[start : start + 4 * count], "<f4"


def test_metadata_that_are_there_are_kept(data: Path, tmp_path: Path) -> None:
    about = android.About(name="mine", description="d", version="1", licence=None, normalisation=None)
    (tmp_path / "net.tflite").write_bytes(android.with_metadata(DIGITS.original, about))
    files = ["--model", tmp_path / "net.tflite", "--data", data / "data.npz", "--metric", "accuracy"]
    more = ["--runs", tmp_path / "runs", "--space", "quick", "--trials", 2, "--study", "own", *files]
    assert call("search", "--device", "rpi4", *more).exit_code == 0
    card, done = exported(tmp_path / "runs", tmp_path, "--format", "android")
    (path,) = tmp_path.glob("*-android.tflite")
    assert path.read_bytes() == (tmp_path / card["model"]).read_bytes()
    assert text(metadata_of(path.read_bytes()), 0) == "mine"
    assert "kept as they are" in done.stderr
