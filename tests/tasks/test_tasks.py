"""Tasks: the built-in ones, the user's own, and every fault of a network or its data in one line."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_digits

from autocompress.errors import AutocompressError
from autocompress.metrics import get_metric
from autocompress.network.tflite.interpreter import Runner, TensorSpec
from autocompress.tasks import LoadedTask, Task, digits, fashion_mnist, load_task
from autocompress.tasks.arrays import fit_inputs, sha256_of
from autocompress.tasks.fashion_mnist import files
from tests.builders import networks
from tests.builders.arrays import Array
from tests.builders.optional import present
from tests.builders.project import ROOT

Data = dict[str, Array]
NETWORK = digits.NETWORK


def accuracy(task: LoadedTask, split: str) -> float:
    x, y = getattr(task, f"x_{split}"), getattr(task, f"y_{split}")
    return task.metric.value(Runner(task.network, 1).run(x), y, next(iter(x.values())))


# --- built in -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_task() -> LoadedTask:
    return load_task()


def test_the_default_is_digits_and_its_network_is_good(digits_task: LoadedTask) -> None:
    assert digits_task.name == "digits"
    assert digits_task.metric.name == "accuracy"
    assert accuracy(digits_task, "validation") >= 0.97
    assert accuracy(digits_task, "test") >= 0.97
    assert digits_task.notes == ()
    assert digits_task.network_sha256 == hashlib.sha256(NETWORK.read_bytes()).hexdigest()
    assert digits_task.original == NETWORK.read_bytes()


def test_digits_splits_are_disjoint_stratified_and_repeat(digits_task: LoadedTask) -> None:
    splits = digits.splits()
    rows = [row.tobytes() for x, _ in splits.values() for row in x]
    assert len(rows) == 1797
    assert len(set(rows)) == 1797
    for _, y in splits.values():
        assert np.ptp(np.bincount(y) / len(y)) < 0.02
    assert load_task("digits").data_sha256 == digits_task.data_sha256
    assert digits_task.train is not None
    x, labels = digits_task.train()
    calibration = digits_task.x_calibration["image"]
    np.testing.assert_array_equal(x["image"][: len(calibration)], calibration)
    assert len(present(labels)) == len(x["image"]) == 898


def test_digits_are_those_of_scikit_learn() -> None:
    with np.load(digits.DATA) as shipped:
        for name, wanted in zip(("images", "labels"), (load_digits().images, load_digits().target), strict=True):
            np.testing.assert_array_equal(shipped[name], wanted)


def test_shipped_networks_are_small_float_files() -> None:
    for network in (digits.NETWORK, fashion_mnist.NETWORK):
        assert network.stat().st_size <= 400_000
        assert network.with_name("train.py").is_file()


def test_loading_a_built_in_task_leaves_tensorflow_and_scikit_learn_alone() -> None:
    code = "import sys; from autocompress.tasks import load_task; load_task()\n"
    code += "assert not {'tensorflow', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


@pytest.mark.skipif(
    not files.DEBIAN_FOLDER.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_from_debian() -> None:
    task = load_task("fashion-mnist")
    (x_validation,) = task.x_validation.values()
    assert x_validation.shape == (10_000, 32, 32, 1)
    assert [len(x) for x in (*task.x_calibration.values(), *task.x_test.values())] == [1024, 10_000]
    assert accuracy(task, "validation") >= 0.91
    assert len(set(fashion_mnist.for_calibration())) == 1024
    assert fashion_mnist.for_calibration().max() < 50_000
    assert task.train is not None


def write_fashion_mnist(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 60_000), ("t10k", 30)):
        files._write(folder / f"{part}-images-idx3-ubyte.gz", np.repeat(rng.integers(0, 255, (1, 28, 28)), n, 0))
        files._write(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(n) % 10)


@pytest.fixture
def no_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without the Debian package; the cache folder it would use."""
    monkeypatch.setattr(files, "DEBIAN_FOLDER", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "autocompress" / "fashion-mnist"


def test_fashion_mnist_from_our_cache_reads_training_images_on_demand(no_debian: Path) -> None:
    write_fashion_mnist(no_debian)
    task = load_task("fashion-mnist")
    (x_test,) = task.x_test.values()
    assert x_test.shape == (30, 32, 32, 1)
    assert x_test.max() <= 1
    assert not x_test[:, :2].any()
    (no_debian / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    assert task.train is not None
    with pytest.raises(AutocompressError, match="is damaged"):
        task.train()


def test_fashion_mnist_downloaded_once(no_debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[Path] = []

    def download(folder: Path) -> None:
        downloads.append(folder)
        write_fashion_mnist(folder)

    monkeypatch.setattr(files, "_download", download)
    assert files.find_files() == no_debian
    assert files.find_files() == no_debian
    assert downloads == [no_debian]


def test_without_fashion_mnist_it_is_said_what_to_install(no_debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(folder: Path) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(files, "_download", offline)
    with pytest.raises(AutocompressError, match=r"no route to host.*install the Debian package dataset-fashion-mnist"):
        load_task("fashion-mnist")


# --- model, data and metric -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Data:
    splits = digits.splits()
    keys: Data = {"x_calibration": splits["train"][0][:8]}
    for name in ("validation", "test", "train"):
        keys |= {f"x_{name}": splits[name][0][:40], f"y_{name}": splits[name][1][:40]}
    return keys


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LoadedTask]:
    def load(data: Data, metric: str = "accuracy", model: Path = NETWORK) -> LoadedTask:
        np.savez(tmp_path / "data.npz", **data)
        return load_task(model=model, data=tmp_path / "data.npz", metric=metric)

    return load


def test_model_data_and_metric(load: Callable[..., LoadedTask], data: Data) -> None:
    task = load(data)
    assert task.name == "float"
    np.testing.assert_array_equal(task.x_test["image"], data["x_test"])
    np.testing.assert_array_equal(present(task.y_validation), data["y_validation"])
    assert len(task.x_calibration["image"]) == 8
    assert task.train is not None
    assert len(task.train()[0]["image"]) == 40
    assert task.notes == ()


def test_without_calibration_the_validation_inputs_serve_and_it_is_said(
    load: Callable[..., LoadedTask], data: Data
) -> None:
    task = load({key: data[key] for key in data if key not in ("x_calibration", "x_train", "y_train")})
    np.testing.assert_array_equal(task.x_calibration["image"], data["x_validation"])
    assert task.notes == ("no calibration inputs: the validation inputs serve",)
    assert task.train is None


def test_fidelity_needs_no_labels(load: Callable[..., LoadedTask], data: Data) -> None:
    unlabelled = load({key: data[key] for key in data if key.startswith("x_")}, "fidelity")
    assert unlabelled.y_validation is None
    assert unlabelled.y_test is None
    assert unlabelled.train is not None
    assert unlabelled.train()[1] is None
    assert unlabelled.notes == ()
    labelled = load(data, "fidelity")
    assert labelled.y_validation is None
    assert labelled.notes == ("fidelity compares with the float network: the labels are not used",)


def test_float64_is_cast_and_extra_keys_are_named(load: Callable[..., LoadedTask], data: Data) -> None:
    task = load({**data, "x_test": data["x_test"].astype(np.float64), "mean": np.zeros(3)})
    assert task.x_test["image"].dtype == np.float32
    assert any("not used: mean" in note for note in task.notes)
    assert any("x_test was cast from float64 to float32" in note for note in task.notes)


def test_labels_in_a_column_are_taken_as_a_vector(load: Callable[..., LoadedTask], data: Data) -> None:
    task = load({**data, "y_test": data["y_test"][:, None]})
    assert task.y_test is not None
    assert task.y_test.shape == (40,)


def test_the_digest_of_the_data_changes_with_the_data(load: Callable[..., LoadedTask], data: Data) -> None:
    changed = data["x_test"].copy()
    changed[0, 0, 0, 0] += 0.5
    digests = {
        load(d).data_sha256 for d in (data, {**data, "x_test": changed}, {**data, "y_test": data["y_test"][::-1]})
    }
    assert len(digests) == 3
    assert load(data).data_sha256 in digests


def _with(**changes: object) -> Callable[[Data], Data]:
    """The data with the named arrays changed by a function, or dropped where it is None."""

    def change(data: Data) -> Data:
        new = dict(data)
        for key, value in changes.items():
            if value is None:
                del new[key]
            else:
                new[key] = value(data.get(key)) if callable(value) else value  # type: ignore[assignment]
        return new

    return change


def _poisoned(x: Array) -> Array:
    x = x.copy()
    x[:2, 0, 0, 0], x[2, 0, 0, 0] = np.nan, np.inf
    return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with(x_test=None, y_validation=None), r"lacks x_test, y_validation \(it holds "),
        (_with(y_test=None), r"lacks y_test .*use the metric fidelity"),
        (_with(x_train=None), r"lacks x_train"),
        (_with(y_train=None), r"lacks y_train"),
        (_with(**{"x_test.image": lambda _: np.zeros((2, 8, 8, 1))}), r"both x_test and x_test\.image"),
        (
            _with(x_validation=lambda x: x.reshape(-1, 64)),
            r"x_validation has shape \(40, 64\), the network's input 'image' takes \(n, 8, 8, 1\); "
            r"if its values lie in this order, reshape it: x\.reshape\(-1, 8, 8, 1\)",
        ),
        (_with(x_test=lambda x: x[:, :7]), r"shape \(40, 7, 8, 1\).*takes \(n, 8, 8, 1\); prepare"),
        (_with(x_test=np.float32(3)), r"shape \(\)"),
        (
            _with(x_test=lambda x: (x * 16).astype(np.uint8)),
            r"x_test is uint8, the network takes float32; cast it",
        ),
        (_with(x_test=lambda x: x.astype(str)), r"the network takes float32"),
        (_with(x_test=lambda x: x.astype(complex)), r"complex128"),
        (
            _with(x_test=lambda x: x.astype(np.float64) + 1e300),
            r"x_test is float64, the network takes float32",
        ),
        (
            _with(x_validation=_poisoned),
            r"x_validation holds 2 NaN and 1 infinite of 2560 values, the first in sample 0",
        ),
        (_with(x_calibration=lambda x: x * np.nan), r"x_calibration holds \d+ NaN"),
        (_with(x_train=_poisoned), r"x_train holds 2 NaN"),
        (_with(x_test=lambda x: x[:0], y_test=lambda y: y[:0]), r"x_test holds no samples"),
        (_with(y_test=lambda y: y[:7]), r"y_test holds 7 labels for 40 samples"),
        (_with(y_test=lambda y: y + 5), r"y_test holds \d+ labels outside 0\.\.9"),
        (_with(y_validation=lambda y: np.eye(10)[y] + 1), r"y_validation has shape \(n, 10\); use integer labels"),
        (_with(y_train=lambda y: y - 5), r"y_train holds \d+ labels outside"),
        (_with(y_test=lambda y: y.astype(np.float32) + 0.5), r"y_test is float32; use integer labels"),
        (_with(x_test=lambda x: np.array([x, None], object)), r"x_test holds Python objects"),
    ],
)
def test_unusable_data_are_one_clear_line(
    change: Callable[[Data], Data], message: str, load: Callable[..., LoadedTask], data: Data
) -> None:
    with pytest.raises(AutocompressError, match=message) as error:
        load(change(data))
    assert "data.npz" in str(error.value)
    assert "\n" not in str(error.value)


def _npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "is no file"),
        (lambda path: path.write_bytes(b""), r"is no \.npz archive"),
        (lambda path: path.write_bytes(b"text"), r"is no \.npz archive"),
        (_npy, "holds a single array"),
        (lambda path: np.savez(path), "lacks x_validation, x_test, y_validation, y_test .it holds nothing"),
    ],
)
def test_unusable_data_files(write: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write(tmp_path / "data.npz")
    with pytest.raises(AutocompressError, match=message):
        load_task(model=NETWORK, data=tmp_path / "data.npz", metric="accuracy")


@pytest.mark.parametrize("kept", [0.3, 0.999])
def test_cut_off_archives(kept: float, tmp_path: Path, data: Data) -> None:
    np.savez_compressed(tmp_path / "data.npz", **data)
    content = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(AutocompressError, match=r"is no \.npz archive"):
        load_task(model=NETWORK, data=tmp_path / "data.npz", metric="accuracy")


def test_a_damaged_member_is_named(tmp_path: Path, data: Data) -> None:
    np.savez_compressed(tmp_path / "data.npz", **data)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(AutocompressError, match="x_calibration is damaged"):
        load_task(model=NETWORK, data=tmp_path / "data.npz", metric="accuracy")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, NETWORK.read_bytes()[:5000], b"{}"],
    ids=["empty", "zeros", "truncated", "text"],
)
def test_unusable_models_are_one_clear_line(
    content: bytes, tmp_path: Path, load: Callable[..., LoadedTask], data: Data
) -> None:
    model = tmp_path / "net.tflite"
    model.write_bytes(content)
    with pytest.raises(AutocompressError, match=r"model '.*net\.tflite'") as error:
        load(data, model=model)
    assert "\n" not in str(error.value)


def test_missing_and_contradictory_choices(load: Callable[..., LoadedTask], data: Data) -> None:
    with pytest.raises(AutocompressError, match="does not exist"):
        load(data, model=Path("none.tflite"))
    with pytest.raises(AutocompressError, match="is given without data; add --data"):
        load_task(model=NETWORK)
    with pytest.raises(AutocompressError, match="without a model; add --model"):
        load_task(data="data.npz")
    with pytest.raises(AutocompressError, match="add --metric, one of: accuracy, "):
        load_task(model=NETWORK, data="data.npz")
    with pytest.raises(AutocompressError, match="task and model are both given"):
        load_task("digits", model=NETWORK)
    with pytest.raises(AutocompressError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        load(data, "acuracy")
    with pytest.raises(AutocompressError, match="unknown task 'digit'; did you mean 'digits'"):
        load_task("digit")
    with pytest.raises(AutocompressError, match="roc-auc: the network's output"):
        load({**data, "y_validation": data["y_validation"] % 2}, "roc-auc")


def test_another_metric_replaces_the_tasks_own() -> None:
    assert load_task("digits", metric="top-2").metric == get_metric("top-2")


# --- the user's own task file ---------------------------------------------------------------------

TASK_FILE = """
import numpy as np
from autocompress.tasks import Task, digits
from neighbour import METRIC

def make(metric=METRIC):
    split = digits.splits()
    (x, y), (xt, yt) = split["validation"], split["test"]
    labels = {"y_validation": y, "y_test": yt}
    return Task(name="mine", network="mine.tflite", metric=metric, x_validation=x, x_test=xt, **labels)

task = make()
wrong = 3
broken = lambda: make("acc")
"""


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    (tmp_path / "my_task.py").write_text(TASK_FILE)
    (tmp_path / "neighbour.py").write_text("METRIC = 'recall'\n")
    (tmp_path / "mine.tflite").write_bytes(NETWORK.read_bytes())
    return tmp_path / "my_task.py"


@pytest.mark.parametrize("attribute", ["", ":task", ":make", ":"])
def test_a_task_of_the_users_own(task_file: Path, attribute: str) -> None:
    path = list(sys.path)
    task = load_task(f"{task_file}{attribute}")
    assert task.name == "mine"
    assert task.metric.name == "recall"
    assert accuracy(task, "test") > 0.95
    assert sys.path == path


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (":tusk", "'tusk'; did you mean 'task'"),
        (":wrong", "'wrong' of task file .* is a int; make it an autocompress.tasks.Task"),
        (":broken", "unknown metric 'acc'"),
    ],
)
def test_wrong_attributes(task_file: Path, attribute: str, message: str) -> None:
    with pytest.raises(AutocompressError, match=message):
        load_task(f"{task_file}{attribute}")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_module_anywhere", r"bad\.py, line 1: ModuleNotFoundError: No module named"),
        ("\nx = (", r"bad\.py, line 2: SyntaxError"),
        ("def task():\n    return 1 / 0", r"line 2: ZeroDivisionError"),
        ("import sys\nsys.exit('bye')", r"line 2: SystemExit: bye"),
        ("from autocompress.tasks import Task\ntask = Task(name='x')", r"line 2: TypeError: .*missing"),
    ],
)
def test_faults_of_the_users_code_are_one_line_with_the_place(code: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(AutocompressError, match=message) as error:
        load_task(f"{tmp_path / 'bad.py'}")
    assert "\n" not in str(error.value)


def test_a_missing_task_file(tmp_path: Path) -> None:
    with pytest.raises(AutocompressError, match=r"task file '.*none\.py' does not exist"):
        load_task(f"{tmp_path / 'none.py'}:task")


def test_a_task_without_inputs_labels_or_network(tmp_path: Path, data: Data) -> None:
    code = "from autocompress.tasks import Task\nimport numpy as np\nx = np.zeros((2, 8, 8, 1), 'float32')\n"
    code += f"net = {str(NETWORK)!r}\n"
    code += "a = Task(name='a', network=net, metric='accuracy', x_validation=None, x_test=x)\n"
    code += "b = Task(name='b', network=net, metric='accuracy', x_validation=x, x_test=x)\n"
    code += "c = Task(name='c', network=3, metric='accuracy', x_validation=x, x_test=x)\n"
    (tmp_path / "t.py").write_text(code)
    for attribute, message in (
        ("a", "x_validation is missing"),
        ("b", "y_validation is missing; metric accuracy needs labels, fidelity does not"),
        ("c", "network is a int; give bytes or a path"),
    ):
        with pytest.raises(AutocompressError, match=message):
            load_task(f"{tmp_path / 't.py'}:{attribute}")


# --- arrays ---------------------------------------------------------------------------------------

TWO = (TensorSpec(name="a", shape=(1, 2), dtype="float32"), TensorSpec(name="b", shape=(1,), dtype="int32"))


def test_inputs_of_several_names() -> None:
    x = {"b": np.arange(3), "a": np.zeros((3, 2))}
    fitted, notes = fit_inputs(x, TWO, "x_test")
    assert [(name, a.dtype.name, len(a)) for name, a in fitted.items()] == [
        ("a", "float32", 3),
        ("b", "int32", 3),
    ]
    assert notes == ["x_test.a was cast from float64 to float32", "x_test.b was cast from int64 to int32"]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.zeros((3, 2)),
            r"x_test is one array, but the network has the inputs 'a' \(n, 2\), 'b' \(n,\).*x_test\.a",
        ),
        ({"a": np.zeros((3, 2))}, r"names the inputs 'a'; the network has"),
        ({"a": np.zeros((3, 2)), "b": np.arange(4)}, r"different numbers of samples: 'a' 3, 'b' 4"),
        (
            {"a": np.zeros((3, 2)), "b": np.array([1, 2, 2**40])},
            r"x_test\.b is int64, the network takes int32; cast",
        ),
        ({"a": [[1.0, 2.0], [3.0]], "b": np.arange(2)}, r"x_test\.a is no regular array"),
        ({"a": np.zeros((2, 2)), "b": np.array([None, 1])}, r"x_test\.b holds Python objects"),
    ],
)
def test_wrong_inputs_of_several_names(x: object, message: str) -> None:
    with pytest.raises(AutocompressError, match=message):
        fit_inputs(x, TWO, "x_test")  # type: ignore[arg-type]


def test_a_network_of_two_inputs_from_an_npz(tmp_path: Path) -> None:
    built = networks.load("two-inputs")
    task = load_task(model=built.model_path, data=built.data_path, metric=built.metric)
    assert set(task.x_test) == {"image", "code"}
    assert accuracy(task, "test") < 0.1  # mean absolute error
    data = built.data
    np.savez(tmp_path / "data.npz", **{key: data[key] for key in data if key != "x_test.code"})
    with pytest.raises(AutocompressError, match=r"x_test names the inputs 'image'; the network has 'code' \(n, 4\)"):
        load_task(model=built.model_path, data=tmp_path / "data.npz", metric="mae")


arrays = hnp.arrays(st.sampled_from([np.float32, np.int32]), hnp.array_shapes(max_dims=3, max_side=4))


@given(arrays, arrays)
def test_digest_tells_arrays_apart(a: Array, b: Array) -> None:
    same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    assert (sha256_of([("x", a)]) == sha256_of([("x", b)])) == same
    assert sha256_of([("x", a)]) != sha256_of([("y", a)])
    assert sha256_of([("x", np.asfortranarray(a))]) == sha256_of([("x", a)])


@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(-1e6, 1e6, width=32)))
def test_casting_float64_keeps_float32_values(x: Array) -> None:
    spec = TensorSpec(name="a", shape=(1, 2), dtype="float32")
    fitted, _ = fit_inputs(x, (spec,), "x")
    np.testing.assert_array_equal(fitted["a"], x)


def test_tasks_are_plain_frozen_data() -> None:
    task = Task(name="t", network=b"", metric="accuracy", x_validation=np.zeros(1), x_test=np.zeros(1))
    with pytest.raises(AttributeError):
        task.name = "u"  # type: ignore[misc]


# --- advice that does no harm ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "wanted", "remedy"),
    [
        ((5, 3, 32, 32), (32, 32, 3), "x.transpose(0, 2, 3, 1)"),
        ((5, 32, 32, 3), (3, 32, 32), "x.transpose(0, 3, 1, 2)"),
        ((5, 9, 64), (64, 9), "x.transpose(0, 2, 1)"),
        ((5, 1, 28, 28), (28, 28, 1), "x.reshape(-1, 28, 28, 1)"),
        ((5, 28, 28), (28, 28, 1), "x.reshape(-1, 28, 28, 1)"),
        ((5, 784), (28, 28, 1), "x.reshape(-1, 28, 28, 1)"),
        ((32, 32, 3), (32, 32, 3), "x[None]"),
        ((5, 2, 16), (4, 8), "prepare the inputs as for training"),
        ((5, 30, 32, 3), (32, 32, 3), "prepare the inputs as for training"),
    ],
)
def test_a_shape_is_mended_by_what_keeps_its_meaning(
    shape: tuple[int, ...], wanted: tuple[int, ...], remedy: str
) -> None:
    x = np.random.default_rng(0).random(shape, np.float32)
    spec = TensorSpec(name="image", shape=(1, *wanted), dtype="float32")
    with pytest.raises(AutocompressError) as said:
        fit_inputs(x, (spec,), "x_test")
    assert str(said.value).endswith(remedy)
    if not remedy.startswith("prepare"):
        mended = eval(remedy, {"x": x})
        fitted, _ = fit_inputs(mended, (spec,), "x_test")
        assert fitted["image"].shape[1:] == wanted
        if "transpose" in remedy:  # every sample's channels are what they were
            before, after = (np.moveaxis(a, a.shape.index(min(a.shape[1:]), 1), 1) for a in (x, mended))
            assert np.array_equal(before, after)


@pytest.mark.parametrize(
    ("x", "spec", "message"),
    [
        (
            np.zeros((5, 160), np.float32),
            TensorSpec(name="wave", shape=(160,), dtype="float32"),
            r"takes \(160,\), without an axis for samples; convert it again with one: \(1, 160\)",
        ),
        (np.zeros((5, 4), np.uint8), TensorSpec(name="x", shape=(1, 4), dtype="float32"), "by nothing where a layer"),
        (np.array([["a"]] * 5), TensorSpec(name="x", shape=(1, 1), dtype="float32"), "encode it as for training"),
        (np.array([["a"]] * 5), TensorSpec(name="x", shape=(1, 1), dtype="bytes"), r"takes text; .* its tokenizer"),
    ],
)
def test_other_advice_is_what_helps(x: Array, spec: TensorSpec, message: str) -> None:
    with pytest.raises(AutocompressError, match=message):
        fit_inputs(x, (spec,), "x_test")
