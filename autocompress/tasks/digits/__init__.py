"""`digits`: 1,797 handwritten digits (8x8x1 in [0, 1], 10 classes) and a small convolutional network.

Nothing is downloaded: `digits.npz` beside this file holds `images` (n, 8, 8) in 0 ... 16 and `labels`. Data: Alpaydin
and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998, CC BY 4.0), its test part, in the order of
scikit-learn's `load_digits`, whose import alone took a third of the time in which a search starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from autocompress.tasks.task import Array, Task

NETWORK = Path(__file__).with_name("float.tflite")
DATA = Path(__file__).with_name("digits.npz")
TRAINING_SHARE, VALIDATION_SHARE = 0.5, 0.25  # of each class; the rest is the test split
CALIBRATION_SAMPLES = 256


def task() -> Task:
    """The built-in task; its network is the one that `train.py` beside this file made."""
    split = splits()
    x_train, y_train = split["train"]
    return Task(
        name="digits",
        network=NETWORK,
        metric="accuracy",
        x_calibration=x_train[:CALIBRATION_SAMPLES],
        x_validation=split["validation"][0],
        y_validation=split["validation"][1],
        x_test=split["test"][0],
        y_test=split["test"][1],
        x_train=x_train,
        y_train=y_train,
    )


def splits() -> Mapping[str, tuple[Array, Array]]:
    """`train`, `validation` and `test`: images float32 (n, 8, 8, 1) and labels int32 (n,), each class in
    each split by its share, always the same samples in the same order."""
    with np.load(DATA) as digits:
        x = (digits["images"][..., None] / 16).astype(np.float32)
        y = digits["labels"].astype(np.int32)
    # RandomState's stream is frozen by NumPy's policy, default_rng's is not.
    order = np.random.RandomState(0).permutation(len(y))
    members: dict[str, list[Array]] = {"train": [], "validation": [], "test": []}
    for label in range(10):
        own = order[y[order] == label]
        first, second = (
            round(len(own) * TRAINING_SHARE),
            round(len(own) * (TRAINING_SHARE + VALIDATION_SHARE)),
        )
        for name, part in zip(members, np.split(own, [first, second]), strict=True):
            members[name].append(part)
    place = np.argsort(order)
    chosen = {name: sorted(np.concatenate(parts), key=place.__getitem__) for name, parts in members.items()}
    return {name: (x[index], y[index]) for name, index in chosen.items()}
