"""Networks of several outputs or signatures: what is judged is what the user names, whatever the file's order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compression.divergence import divergence
from autocompress.errors import AutocompressError
from autocompress.evaluate.quality import Split
from autocompress.export import android
from autocompress.export.c_source import c_files
from autocompress.metrics import get_metric
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import Runner
from autocompress.network.tflite.outputs import FIRST, Output, Signature, packed
from autocompress.network.tflite.signature import _in_order, only
from autocompress.search.storage.study_records import load_study
from autocompress.specs import load_sweep
from autocompress.tasks import LoadedTask, SignatureChoice, load_task
from autocompress.tasks.task import asked_by
from tests.builders.command_line import call, fault_of
from tests.builders.optional import present
from tests.builders.two_outputs import by_signature, data_file, inputs, two_outputs, two_signatures


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network of two outputs and its data."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.tflite").write_bytes(two_outputs())
    data_file(folder / "two.npz", two_outputs())
    return folder


def load(folder: Path, metric: str = "accuracy", **asked: Any) -> LoadedTask:
    return load_task(
        model=folder / "two.tflite", data=folder / "two.npz", metric=metric, asked=SignatureChoice(**asked)
    )


def split_of(task: LoadedTask) -> Split:
    return Split(task.x_test, task.y_test, task.metric, task.network, threads=1, seed=0, signature=task.signature)


def damaged(task: LoadedTask, layer: int) -> bytes:
    """The network with the weights of one layer turned round."""
    tree = flatbuffer.read(task.network)
    weight = layers_of(graph_of(tree))[layer].weight
    values = flatbuffer.constant(tree, weight)
    assert values is not None
    flatbuffer.set_constant(tree, weight, -values)
    return flatbuffer.write(tree)


def test_a_metric_of_one_output_asks_which(files: Path) -> None:
    with pytest.raises(AutocompressError) as refused:
        load(files)
    assert str(refused.value).endswith(
        "the network has 2 outputs, output_0 (n, 5), output_1 (n, 3), and accuracy judges one; name it: "
        "--output output_0"
    )
    with pytest.raises(AutocompressError, match="unknown output 'output_00'; did you mean 'output_0'"):
        load(files, output="output_00")


def test_the_named_output_is_judged_as_the_runtime_names_it(files: Path) -> None:
    task = load(files, output="output_0")
    (x,) = task.x_test.values()
    classes = by_signature(task.original, x)["output_0"].argmax(1)
    found = split_of(task).baseline()
    assert found.value == pytest.approx((classes == task.y_test).mean())
    assert found.value == pytest.approx(0.9)
    assert task.output is not None
    assert task.output.words == "output_0 (n, 5) of serving_default: the largest of 5 · not judged: output_1"


def test_without_a_word_about_outputs_the_first_one_is_meant_as_it_was(files: Path) -> None:
    task = load(files, "fidelity", as_before=True)
    assert task.signature.positions == FIRST.positions
    assert task.output is None
    (x,) = task.x_test.values()
    np.testing.assert_array_equal(
        Runner(task.network, 1, task.signature).run(dict(task.x_test)), Runner(task.network).run(dict(task.x_test))
    )
    np.testing.assert_allclose(
        split_of(task).baseline_outputs, by_signature(task.original, x)["output_1"], rtol=1e-4, atol=1e-5
    )
    assert asked_by({"task": None, "metric": "fidelity"}).as_before
    assert not asked_by({"task": None, "output": None, "signature": None}).as_before


def test_fidelity_looks_at_all_outputs(files: Path) -> None:
    task = load(files, "fidelity")
    split = split_of(task)
    assert split.baseline().value == 1.0
    for layer in range(4):  # two of each output
        assert split.quality(damaged(task, layer)).value < 0.99
        apart = divergence(split.baseline_outputs, split.outputs(damaged(task, layer)), task.signature)
        assert apart.mean() > 1e-3


def test_an_output_that_never_changes_does_not_make_everything_faithful(tmp_path: Path) -> None:
    network = two_outputs(constant=True)
    (tmp_path / "two.tflite").write_bytes(network)
    data_file(tmp_path / "two.npz", network)
    first, whole = load(tmp_path, "fidelity", as_before=True), load(tmp_path, "fidelity")
    worse = damaged(whole, 1)
    assert split_of(first).quality(worse).value == 1.0  # what was said of anything
    assert split_of(whole).quality(worse).value < 0.99
    split = split_of(whole)
    apart = divergence(split.baseline_outputs, split.outputs(worse), whole.signature)
    assert np.isfinite(apart).all()
    assert 1e-3 < apart.mean() < 100  # one that is constant has no variance to be measured in


@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 3), max_size=3), st.sampled_from(["float32", "int32"])),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_packed_outputs_come_apart_again(kinds: list[tuple[list[int], str]], samples: int, random: Any) -> None:
    rng = np.random.default_rng(random.randrange(2**32))
    arrays = [(rng.standard_normal((samples, *shape)) * 1e6).astype(dtype) for shape, dtype in kinds]
    outputs = tuple(
        Output(name=str(n), position=n, shape=(1, *shape), dtype=dtype) for n, (shape, dtype) in enumerate(kinds)
    )
    parts = Signature(outputs=outputs, judged=None).parts(packed(arrays))
    for part, array in zip(parts, arrays, strict=True):
        assert part.dtype == array.dtype
        np.testing.assert_array_equal(part, array)


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["output_1", "output_0"], ["output_0", "output_1"]),
        (["output_1", "output_10", "output_2"], ["output_1", "output_2", "output_10"]),
        (["Call:1", "Call"], ["Call", "Call:1"]),
        (["box", "class"], ["box", "class"]),
        (["box_1", "class_0"], ["box_1", "class_0"]),
    ],
)
def test_numbered_outputs_stand_by_their_numbers(names: list[str], ordered: list[str]) -> None:
    assert [name for name, _ in _in_order([(name, 0) for name in names])] == ordered


def test_of_several_signatures_one_is_meant(tmp_path: Path) -> None:
    network = two_signatures(("encode", "decode"))
    (tmp_path / "two.tflite").write_bytes(network)
    data_file(tmp_path / "two.npz", network, key="decode")
    with pytest.raises(AutocompressError, match="2 signatures, encode, decode; choose one: --signature encode"):
        load(tmp_path, output="output_0")
    with pytest.raises(AutocompressError, match="unknown signature 'decod'; did you mean 'decode'"):
        load(tmp_path, output="output_0", signature="decod")
    task = load(tmp_path, output="output_0", signature="decode")
    assert split_of(task).baseline().value == pytest.approx(0.9)
    (x,) = task.x_test.values()
    alone, within = by_signature(task.original, x), by_signature(network, x, "decode")
    for name in within:
        np.testing.assert_array_equal(alone[name], within[name])
    assert len(task.original) < 0.6 * len(network)
    assert task.output is not None
    assert task.output.words.endswith("without the signatures encode")


def test_the_default_signature_is_taken_and_said(tmp_path: Path) -> None:
    network = two_signatures(("encode", "serving_default"))
    (tmp_path / "two.tflite").write_bytes(network)
    data_file(tmp_path / "two.npz", network, key="serving_default")
    task = load(tmp_path, output="output_0")
    assert split_of(task).baseline().value == pytest.approx(0.9)
    assert any("signature serving_default is searched" in note for note in task.notes)
    assert only(two_outputs(), "serving_default") == two_outputs()


def test_a_search_judges_remembers_and_ships_the_named_output(files: Path, tmp_path: Path) -> None:
    words = ["--model", files / "two.tflite", "--data", files / "two.npz", "--metric", "accuracy"]
    search = ["search", "--device", "rpi4", "--runs", tmp_path, "--space", "quick", "--trials", "4", "--study", "a"]
    refused = call(*search, *words)
    assert refused.exit_code == 2
    assert fault_of(refused.stderr)
    done = call(*search, *words, "--output", "output_0")
    assert done.exit_code == 0, done.output
    assert "output_0 (n, 5) of serving_default" in done.stdout
    assert call(*search, *words, "--output", "output_1").exit_code == 2
    report = json.loads(call("report", "a", "--runs", tmp_path, "--json").stdout)
    assert report["output"] == {
        "signature": "serving_default",
        "judged": [{"name": "output_0", "shape": [None, 5], "position": 1, "kind": "softmax"}],
        "read_as": "the largest of 5",
        "reads_anew": False,
        "others": ["output_1"],
        "other_signatures": [],
    }
    assert report["baseline"]["test_accuracy"] == pytest.approx(0.9)
    for point in report["front"]:  # int8 ones too: whatever was done to the file, the name is the contract
        outputs = by_signature((tmp_path / point["artifact"]).read_bytes(), np.load(files / "two.npz")["x_test"])
        right = (outputs["output_0"].argmax(1) == np.load(files / "two.npz")["y_test"]).mean()
        assert point["test_accuracy"] == pytest.approx(right, abs=0.02)
    done = call("export", "a", "--runs", tmp_path, "--pick", "smallest", "--to", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "--output output_0" in json.loads(next((tmp_path / "out").glob("*.json")).read_text())["repeat"]
    command: list[str | Path] = [sys.executable, tmp_path / "out" / "verify.py", "--data", files / "two.npz"]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "accuracy on test data" in verified.stdout
    page = tmp_path / "a.html"
    assert call("report", "a", "--runs", tmp_path, "--html", page).exit_code == 0
    assert "output_0 (n, 5)" in page.read_text()


def test_verify_compares_all_outputs_with_the_float_network_as_it_was_given(tmp_path: Path) -> None:
    network = two_signatures(("encode", "serving_default"))
    (tmp_path / "two.tflite").write_bytes(network)
    data_file(tmp_path / "two.npz", network, key="serving_default")
    done = call(
        "search",
        "--device",
        "rpi4",
        "--runs",
        tmp_path,
        "--space",
        "quick",
        "--trials",
        "2",
        "--study",
        "f",
        "--model",
        tmp_path / "two.tflite",
        "--data",
        tmp_path / "two.npz",
        "--metric",
        "fidelity",
    )
    assert done.exit_code == 0, done.output
    out = tmp_path / "out"
    assert call("export", "f", "--runs", tmp_path, "--pick", "smallest", "--to", out).exit_code == 0
    command: list[str | Path] = [
        sys.executable,
        out / "verify.py",
        "--data",
        tmp_path / "two.npz",
        "--float",
        tmp_path / "two.tflite",
    ]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    predicted = subprocess.run([sys.executable, out / "predict.py"], capture_output=True, text=True, check=True)
    assert predicted.stdout.startswith("0: output_0: ")


def test_measure_judges_the_named_output(files: Path) -> None:
    words = ["measure", files / "two.tflite", "--device", "rpi4", "--accuracy", "--data", files / "two.npz"]
    assert call(*words, "--metric", "accuracy").exit_code == 2
    done = call(*words, "--metric", "accuracy", "--output", "output_0", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(0.9)
    assert json.loads(done.stdout)["accuracy_output"]["judged"][0]["name"] == "output_0"
    all_of = call(*words, "--metric", "fidelity", "--baseline", files / "two.tflite", "--json")
    assert json.loads(all_of.stdout)["accuracy"] == 1.0


def test_keras_outputs_keep_their_order(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras", reason="Keras makes the network")
    layers = keras.layers
    given = keras.Input((12,))
    heads = [layers.Dense(5, activation="softmax"), layers.Dense(3)]
    made = keras.Model(given, [head(layers.Dense(16, activation="relu")(given)) for head in heads])
    made.save(tmp_path / "two.keras")
    x = inputs(60)
    y = np.asarray(made(x)[0]).argmax(1)
    y[::6] = (y[::6] + 1) % 5
    np.savez(tmp_path / "two.npz", x_validation=x, y_validation=y, x_test=x, y_test=y)
    asked = SignatureChoice(output="output_0")
    task = load_task(model=tmp_path / "two.keras", data=tmp_path / "two.npz", metric="accuracy", asked=asked)
    assert split_of(task).baseline().value == pytest.approx(50 / 60)
    assert [output.shape[1] for output in task.signature.outputs] == [5, 3]


def test_training_sees_all_outputs_in_units_of_their_own() -> None:
    tf = pytest.importorskip("tensorflow", reason="losses are TensorFlow's")
    from autocompress.finetune.heads import Heads
    from autocompress.finetune.recipe import Recipe

    tree = flatbuffer.read(flatbuffer.normalise(two_outputs()))
    outputs = (
        Output(name="output_0", position=1, shape=(1, 5), dtype="float32"),
        Output(name="output_1", position=0, shape=(1, 3), dtype="float32"),
    )
    metric, rng = get_metric("accuracy"), np.random.default_rng(0)
    heads = Heads(graph_of(tree), metric, Signature(outputs=outputs, judged=0))
    assert [head.kind for head in heads.heads] == ["classes", "values"]
    assert heads.columns == 5
    aim, own = rng.standard_normal((2, 40, 8)).astype(np.float32)
    labels = rng.integers(0, 5, 40)

    def loss(kind: str, own: Any, aim: Any) -> Any:
        return heads.loss(Recipe(loss=kind), metric)(tf.constant(own), tf.constant(aim), tf.constant(labels)).numpy()

    for kind in ("distillation", "labels", "both"):
        plain = loss(kind, own, aim)
        for columns in (slice(0, 5), slice(5, 8)):  # either output alone moves it
            moved = own.copy()
            moved[:, columns] += rng.standard_normal(moved[:, columns].shape)
            assert not np.allclose(loss(kind, moved, aim), plain)
        pixels = np.array([1] * 5 + [300] * 3, np.float32)
        np.testing.assert_allclose(loss(kind, own * pixels, aim * pixels), plain, rtol=1e-4)
    assert loss("distillation", aim, aim) == pytest.approx(0, abs=1e-5)


def test_what_is_shipped_names_its_outputs() -> None:
    about = android.About(name="two", description="", version="1", licence=None, normalisation=None)
    described = android.with_metadata(two_outputs(names=("class", "box")), about)
    (metadata,) = (
        entry for entry in present(flatbuffer.read(described).metadata) if entry.name == android.METADATA_NAME
    )
    content = bytes(present(flatbuffer.read(described).buffers[metadata.buffer].data))
    assert b"class" in content
    assert b"box" in content
    _, header = c_files(two_outputs(names=("class", "box")), "model_two", "two")
    assert "interpreter.output(0) is box" in header
    assert "interpreter.output(1) is class" in header


def test_a_sweep_names_outputs_and_signatures(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "schema: 1\nname: night\ndevices: [rpi4]\ntasks:\n"
        "- {model: a.tflite, data: a.npz, metric: accuracy, output: class, signature: s}\n"
    )
    (task,) = load_sweep(file).tasks
    assert (task.output, task.signature) == ("class", "s")


def test_a_study_that_says_nothing_of_outputs_goes_on_with_the_first(files: Path, tmp_path: Path) -> None:
    words = ["--model", files / "two.tflite", "--data", files / "two.npz", "--metric", "fidelity"]
    search = ["search", "--device", "rpi4", "--runs", tmp_path, "--space", "quick", "--trials", "2", "--study", "old"]
    assert call(*search, *words, "--output", "output_1").exit_code == 0
    study = load_study(tmp_path, "old", None)
    stored = study.user_attrs["specification"]
    said = stored["task"] | stored["named"]
    kept = {name: word for name, word in said.items() if name not in ("output", "signature")}
    identity = {name: value for name, value in study.user_attrs["identity"].items() if name != "output"}
    study.set_user_attr("words", kept)  # as older versions wrote them
    study.set_user_attr("specification", None)
    study.set_user_attr("schema", 1)
    study.set_user_attr("identity", identity)
    study.set_user_attr("output", None)
    done = call("finetune", "old", "--trial", "0", "--runs", tmp_path, "--epochs", "1", "--time-budget", "20s")
    assert done.exit_code == 0, done.output
    assert "fidelity" in done.output
    report = json.loads(call("report", "old", "--runs", tmp_path, "--json").stdout)
    assert report["output"] is None
    refused = call(*search, *words)  # all outputs are another question
    assert refused.exit_code == 2
    assert "output: the first then, all of output_0, output_1 as the largest of 5; real numbers" in refused.stderr
