"""Trains the network of the task `digits`: python -m autocompress.tasks.digits.train [OUT.tflite]. About a
minute.

A stem, a depthwise separable block with a stride, a second one, a dense head; 13,000 weights. The images of
the training split are shifted by at most one pixel at random; Adam with cosine decay. The batch norms are
folded by the converter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from autocompress.tasks.digits import NETWORK, splits

SEED, EPOCHS, BATCH, LEARNING_RATE = 0, 60, 32, 3e-3


def build() -> Any:
    """The untrained network: (n, 8, 8, 1) in [0, 1] to (n, 10) probabilities."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 1), name="image")
    h = _normalised(layers.Conv2D(32, 3, padding="same", use_bias=False)(inputs))
    h = _separable(h, 64, strides=1)
    h = _separable(h, 96, strides=2)
    h = layers.GlobalAveragePooling2D()(h)
    h = layers.Dense(32, activation="relu")(h)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="probabilities")(h))


def _separable(h: Any, filters: int, strides: int) -> Any:
    layers = keras.layers
    h = _normalised(layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(h))
    return _normalised(layers.Conv2D(filters, 1, use_bias=False)(h))


def _normalised(h: Any) -> Any:
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(h))


def batches(x: Any, y: Any) -> Iterator[tuple[Any, Any]]:
    """Batches of all epochs: a fresh order each epoch, every image shifted by -1, 0 or 1 pixels both ways."""
    rng = np.random.default_rng(SEED)
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            index = order[start : start + BATCH]
            shifts = rng.integers(0, 3, (BATCH, 2))
            padded = np.pad(x[index], ((0, 0), (1, 1), (1, 1), (0, 0)))
            yield (
                np.stack([p[i : i + 8, j : j + 8] for p, (i, j) in zip(padded, shifts, strict=True)]),
                y[index],
            )


def main(target: Path) -> None:
    """Train, print the accuracies, write the float `.tflite`."""
    keras.utils.set_random_seed(SEED)
    split = splits()
    x, y = split["train"]
    steps = len(x) // BATCH
    network = build()
    decay = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, EPOCHS * steps)
    network.compile(keras.optimizers.Adam(decay), "sparse_categorical_crossentropy")
    network.fit(batches(x, y), steps_per_epoch=steps, epochs=EPOCHS, verbose=2)
    for name, (images, labels) in split.items():
        correct = network.predict(images, verbose=0).argmax(1) == labels
        print(f"{name}: accuracy {correct.mean():.4f} of {len(labels)}")
    target.write_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    print(f"{network.count_params()} weights, {target.stat().st_size} bytes in {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else NETWORK)
