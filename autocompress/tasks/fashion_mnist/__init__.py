"""`fashion-mnist`: 70,000 images of clothes (28x28, padded to 32x32x1, in [0, 1], 10 classes) and a ResNet-8.

Data: Xiao, Rasul and Vollgraf, arXiv 1708.07747. Network: the ResNet-8 of MLPerf Tiny (arXiv 2106.07597),
one channel in. Of the 60,000 training images the first 50,000 trained the network, the last 10,000 were
held out: they are the validation images. The test split is the official one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autocompress.tasks.fashion_mnist.files import find_files, read_images, read_labels
from autocompress.tasks.task import Array, Task

NETWORK = Path(__file__).with_name("float.tflite")
TRAINING_IMAGES = 50_000
CALIBRATION_IMAGES = 1_024


def task() -> Task:
    """The built-in task; its network is the one that `train.py` beside this file made. The training images
    are read only when fine-tuning asks for them."""
    folder = find_files()
    images, labels = read_images(folder, "train"), read_labels(folder, "train")
    return Task(
        name="fashion-mnist",
        network=NETWORK,
        metric="accuracy",
        x_calibration=prepare(images[for_calibration()]),
        x_validation=prepare(images[TRAINING_IMAGES:]),
        y_validation=labels[TRAINING_IMAGES:],
        x_test=prepare(read_images(folder, "t10k")),
        y_test=read_labels(folder, "t10k"),
        x_train=lambda: prepare(read_images(folder, "train")[:TRAINING_IMAGES]),
        y_train=lambda: read_labels(folder, "train")[:TRAINING_IMAGES],
    )


def prepare(images: Array) -> Array:
    """uint8 (n, 28, 28) as the network takes them: float32 (n, 32, 32, 1) in [0, 1], two zeros on each
    side."""
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return padded[..., None].astype(np.float32) / np.float32(255)


def for_calibration() -> Array:
    """Indices of the calibration images, in order; they are of the training part."""
    # RandomState's stream is frozen by NumPy's policy, default_rng's is not.
    return np.sort(np.random.RandomState(0).permutation(TRAINING_IMAGES)[:CALIBRATION_IMAGES])
