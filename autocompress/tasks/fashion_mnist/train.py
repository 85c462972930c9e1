"""Trains the network of the task `fashion-mnist`: python -m autocompress.tasks.fashion_mnist.train
[OUT.tflite].

ResNet-8 (78,000 weights): a stem, three residual blocks of 16, 32 and 64 channels, a dense head. Nine
epochs of the first 50,000 images, half of them mirrored at random; Adam with cosine decay. About 5 minutes
on two free cores. The batch norms are folded by the converter."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from autocompress.tasks.fashion_mnist import NETWORK, TRAINING_IMAGES, prepare
from autocompress.tasks.fashion_mnist.files import find_files, read_images, read_labels

SEED, EPOCHS, BATCH, LEARNING_RATE = 0, 9, 128, 3e-3
WIDTHS = (16, 32, 64)


def build(widths: Sequence[int] = WIDTHS) -> Any:
    """The untrained network: (n, 32, 32, 1) in [0, 1] to (n, 10) probabilities; `widths`: channels of its blocks."""
    inputs = keras.Input((32, 32, 1))
    h = keras.layers.ReLU()(_convolution(inputs, widths[0], 1))
    for filters, strides in zip(widths, (1, 2, 2), strict=True):
        h = _residual_block(h, filters, strides)
    h = keras.layers.GlobalAveragePooling2D()(h)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(h))


def _residual_block(h: Any, filters: int, strides: int) -> Any:
    shortcut = h
    h = keras.layers.ReLU()(_convolution(h, filters, strides))
    h = _convolution(h, filters, 1)
    if strides != 1 or shortcut.shape[-1] != filters:
        shortcut = keras.layers.Conv2D(filters, 1, strides, "same")(shortcut)
    return keras.layers.ReLU()(keras.layers.Add()([h, shortcut]))


def _convolution(h: Any, filters: int, strides: int) -> Any:
    h = keras.layers.Conv2D(filters, 3, strides, "same", use_bias=False)(h)
    return keras.layers.BatchNormalization()(h)


def batches(x: Any, y: Any, epochs: int = EPOCHS) -> Iterator[tuple[Any, Any]]:
    """Batches of all epochs: a fresh order each epoch, every second image mirrored."""
    rng = np.random.default_rng(SEED)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for step in range(len(x) // BATCH):
            index = order[step * BATCH : (step + 1) * BATCH]
            images = x[index].copy()
            mirrored = rng.random(len(images)) < 0.5
            images[mirrored] = images[mirrored, :, ::-1]
            yield images, y[index]


def fit(network: Any, x: Any, y: Any, epochs: int = EPOCHS, **options: Any) -> None:
    """Train an untrained network on prepared images; `options` are those of Keras's `fit`."""
    steps = len(x) // BATCH
    decay = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * steps)
    network.compile(keras.optimizers.Adam(decay), "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(batches(x, y, epochs), steps_per_epoch=steps, epochs=epochs, **options)


def main(target: Path) -> None:
    """Train, print the accuracies, write the float `.tflite`."""
    keras.utils.set_random_seed(SEED)
    folder = find_files()
    x, y = prepare(read_images(folder, "train")), read_labels(folder, "train")
    network, held_out = build(), (x[TRAINING_IMAGES:], y[TRAINING_IMAGES:])
    fit(network, x[:TRAINING_IMAGES], y[:TRAINING_IMAGES], verbose=2, validation_data=held_out)
    correct = network.predict(prepare(read_images(folder, "t10k")), verbose=0).argmax(1) == read_labels(folder, "t10k")
    print(f"test: accuracy {correct.mean():.4f} of {len(correct)}")
    target.write_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    print(f"{network.count_params()} weights, {target.stat().st_size} bytes in {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else NETWORK)
