"""A task file: MobileNetV1 of width 0.25 (arXiv 1704.04861) on the data of `fashion-mnist`, a second network for
`python -m benchmarks.search.samplers --task benchmarks/tasks/mobilenet_v1.py`.

Its first stride is 1, as the images are small: 28 layers, 220,000 weights. It is trained the first time that the task
is loaded and kept beside this file (not in the repository), about 15 minutes on two free cores:
`python -m benchmarks.tasks.mobilenet_v1` does that alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from autocompress.tasks import Task, fashion_mnist

NETWORK = Path(__file__).with_suffix(".tflite")
# Channels and stride of each block.
BLOCKS = (
    (16, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (128, 2),
    *[(128, 1)] * 5,
    (256, 2),
    (256, 1),
)


def task() -> Task:
    """The data of `fashion-mnist`, and this network; trained in a process of its own where it is not there yet."""
    if not NETWORK.exists():
        subprocess.run([sys.executable, __file__], check=True, stdout=sys.stderr)
    return replace(fashion_mnist.task(), name="mobilenet-v1", network=NETWORK)


def build() -> Any:
    """The untrained network: (n, 32, 32, 1) in [0, 1] to (n, 10) probabilities."""
    import keras

    layers = keras.layers

    def normalised(h: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization()(h))

    inputs = keras.Input((32, 32, 1))
    h = normalised(layers.Conv2D(8, 3, 1, "same", use_bias=False)(inputs))
    for channels, stride in BLOCKS:
        h = normalised(layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(h))
        h = normalised(layers.Conv2D(channels, 1, use_bias=False)(h))
    h = layers.GlobalAveragePooling2D()(h)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(h))


if __name__ == "__main__":
    from autocompress.tasks.fashion_mnist import train

    train.build = build  # type: ignore[assignment]  # its widths are the ResNet-8's
    train.main(NETWORK)
