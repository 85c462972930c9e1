"""Finding and reading the four files of Fashion-MNIST: Debian's package, our cache, or a download through
Keras."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
import zlib
from pathlib import Path

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.tasks.task import Array

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PARTS = ("train", "t10k")
FILES = tuple(f"{part}-{kind}-ubyte.gz" for part in PARTS for kind in ("images-idx3", "labels-idx1"))
IMAGES_HEADER_BYTES, LABELS_HEADER_BYTES = 16, 8


def cache_folder() -> Path:
    """Our own copy: below $XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autocompress" / "fashion-mnist"


def find_files() -> Path:
    """The folder with the four files. Raises AutocompressError that says what to install."""
    for folder in (DEBIAN_FOLDER, cache_folder()):
        if all((folder / name).is_file() for name in FILES):
            return folder
    try:
        _download(cache_folder())
    except Exception as fault:  # Keras raises anything when there is no network
        reason = " ".join(str(fault).split())[:200]
        raise AutocompressError(
            f"Fashion-MNIST is not on this machine and cannot be downloaded ({reason}); install the Debian "
            f"package dataset-fashion-mnist, or put {', '.join(FILES)} into {cache_folder()}"
        ) from fault
    return cache_folder()


def read_images(folder: Path, part: str) -> Array:
    """The images of `part` (train or t10k), uint8 (n, 28, 28)."""
    return _read(folder / f"{part}-images-idx3-ubyte.gz", IMAGES_HEADER_BYTES).reshape(-1, 28, 28)


def read_labels(folder: Path, part: str) -> Array:
    """The labels of `part` (train or t10k), int32 (n,) in 0..9."""
    return _read(folder / f"{part}-labels-idx1-ubyte.gz", LABELS_HEADER_BYTES).astype(np.int32)


def _read(path: Path, header_bytes: int) -> Array:
    try:
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header_bytes)
    except (OSError, EOFError, ValueError, zlib.error) as fault:
        raise AutocompressError(f"{path} is damaged ({fault}); remove it and install the data again") from fault


def _download(folder: Path) -> None:
    """Fetches the arrays through Keras and keeps them as the original four files, for runs without
    TensorFlow."""
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
        import keras

        (x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    folder.mkdir(parents=True, exist_ok=True)
    for part, images, labels in (("train", x_train, y_train), ("t10k", x_test, y_test)):
        _write(folder / f"{part}-images-idx3-ubyte.gz", images)
        _write(folder / f"{part}-labels-idx1-ubyte.gz", labels)


def _write(path: Path, array: Array) -> None:
    """An IDX file: two zeros, 8 for uint8, the number of dimensions, each as big-endian int32, then the
    values."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), 6, mtime=0))
    partial.replace(path)
