"""Networks in the shapes that people ship, with random weights, as Keras builds them: what they cost depends on shapes.

Batch norm is given the statistics of one batch, so that signals neither vanish nor explode on their way.
`python -m benchmarks.tasks.large_networks FOLDER NAME...` writes NAME.tflite and NAME.npz (labels are the network's
own decisions) into the folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION, JUDGED = 64, 32  # samples
CLASSES = 10


def mobilenet_v2(size: int) -> Any:
    """MobileNetV2 1.0 (arXiv 1801.04381), 3.5 million weights."""
    import keras

    return keras.applications.MobileNetV2((size, size, 3), weights=None, classes=1000)


def efficientnet_b0() -> Any:
    """EfficientNet-B0 (arXiv 1905.11946), 5.3 million weights."""
    import keras

    return keras.applications.EfficientNetB0(input_shape=(224, 224, 3), weights=None, classes=1000)


def resnet_18(size: int) -> Any:
    """ResNet-18 (arXiv 1512.03385, table 1), 11.7 million weights."""
    import keras

    layers = keras.layers

    def convolved(h: Any, channels: int, kernel: int, stride: int) -> Any:
        return layers.BatchNormalization()(layers.Conv2D(channels, kernel, stride, "same", use_bias=False)(h))

    inputs = keras.Input((size, size, 3))
    h = layers.MaxPooling2D(3, 2, "same")(layers.ReLU()(convolved(inputs, 64, 7, 2)))
    for channels, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            straight = h if stride == 1 and h.shape[-1] == channels else convolved(h, channels, 1, stride)
            h = convolved(layers.ReLU()(convolved(h, channels, 3, stride)), channels, 3, 1)
            h = layers.ReLU()(h + straight)
    return keras.Model(inputs, layers.Dense(1000, "softmax")(layers.GlobalAveragePooling2D()(h)))


def vit_tiny(size: int) -> Any:
    """A vision transformer (arXiv 2010.11929): patches of 16, 12 blocks, 192 wide, 3 heads, 5.7 million weights."""
    import keras

    layers, ops = keras.layers, keras.ops
    width, heads, tokens = 192, 3, (size // 16) ** 2

    def split(h: Any) -> Any:
        return ops.transpose(ops.reshape(h, (-1, tokens, heads, width // heads)), (0, 2, 1, 3))

    def attended(h: Any) -> Any:
        query, key, value = (split(layers.Dense(width)(h)) for _ in range(3))
        weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / (width // heads) ** 0.5)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return layers.Dense(width)(ops.reshape(mixed, (-1, tokens, width)))

    inputs = keras.Input((size, size, 3))
    h = ops.reshape(layers.Conv2D(width, 16, 16)(inputs), (-1, tokens, width))
    for _ in range(12):
        h = h + attended(layers.LayerNormalization()(h))
        inner = layers.Dense(4 * width, "gelu")(layers.LayerNormalization()(h))
        h = h + layers.Dense(width)(inner)
    h = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(h))
    return keras.Model(inputs, layers.Dense(1000, "softmax")(h))


def wide_dense() -> Any:
    """A dense network whose first layer is 6522 x 1024, 7.4 million weights."""
    import keras

    layers = keras.layers
    inputs = keras.Input((6522,))
    h = layers.Dense(512, "relu")(layers.Dense(1024, "relu")(inputs))
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(h))


def small() -> Any:
    """Six layers, 20,000 weights."""
    import keras

    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    h = inputs
    for channels, stride in ((16, 1), (16, 2), (32, 2), (32, 1)):
        h = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(channels, 3, stride, "same", use_bias=False)(h)))
    h = layers.Dense(32, "relu")(layers.GlobalAveragePooling2D()(h))
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(h))


NETWORKS: dict[str, Callable[[], Any]] = {
    "small": small,
    "mobilenet-v2-96": lambda: mobilenet_v2(96),
    "mobilenet-v2-224": lambda: mobilenet_v2(224),
    "efficientnet-b0": efficientnet_b0,
    "resnet-18-96": lambda: resnet_18(96),
    "resnet-18-224": lambda: resnet_18(224),
    "vit-tiny-96": lambda: vit_tiny(96),
    "vit-tiny-224": lambda: vit_tiny(224),
    "wide-dense": wide_dense,
}


def images(shape: tuple[int, ...], count: int, seed: int) -> np.ndarray[Any, Any]:
    """Noise with the falling spectrum that images have, of about unit variance."""
    noise = np.random.default_rng(seed).standard_normal((count, *shape))
    for axis in range(1, max(2, len(shape))):  # not over channels
        spectrum = np.fft.rfft(noise, axis=axis)
        falling = 1.0 / (1.0 + np.arange(spectrum.shape[axis]) / 4)
        spectrum *= falling.reshape([-1 if n == axis else 1 for n in range(noise.ndim)])
        noise = np.fft.irfft(spectrum, n=shape[axis - 1], axis=axis)
    return (noise / float(noise.std())).astype(np.float32)


def write(folder: Path, name: str) -> None:
    """The network and its data, as a user would bring them."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    model = NETWORKS[name]()
    shape = tuple(model.input_shape[1:])
    calibration, validation, test = (images(shape, n, seed) for seed, n in enumerate((CALIBRATION, JUDGED, JUDGED)))
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(calibration[:16], training=True)
    labels = [np.argmax(model.predict(x, verbose=0), axis=1).astype(np.int64) for x in (validation, test)]
    (folder / f"{name}.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    np.savez(
        folder / f"{name}.npz",
        x_calibration=calibration,
        x_validation=validation,
        x_test=test,
        y_validation=labels[0],
        y_test=labels[1],
    )


def files(folder: Path, name: str) -> tuple[Path, Path]:
    """The paths of a network and its data, written by a process of its own where they are not there yet."""
    model, data = folder / f"{name}.tflite", folder / f"{name}.npz"
    if not data.exists():
        command = [sys.executable, "-m", "benchmarks.tasks.large_networks", str(folder), name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return model, data


if __name__ == "__main__":
    for asked in sys.argv[2:]:
        write(Path(sys.argv[1]), asked)
