"""Calibrates `local` and compares what the calibrated model predicts of networks it never saw with measurements.

The designed set is measured and fitted as `autocompress device calibrate local` does. The networks, in float32, dynamic
range and static int8: MobileNetV1 0.25, MobileNetV2 0.35, a ResNet-8, a DS-CNN, two MLP autoencoders (the one of
MLPerf Tiny and a small one), LeNet-300-100 and the small DNN of "Hello Edge" (arXiv 1711.07128). Nothing of them is
used in fitting. About seven minutes on an idle machine:
`python -m benchmarks.latency.calibration`. `--profile FILE` checks a calibrated profile instead of calibrating, `--keep
FILE` stores the new one, `--networks FOLDER` keeps the networks there."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autocompress.devices.calibrate import calibrate, specimens
from autocompress.devices.designs import Design
from autocompress.latency.host.client import local_host
from autocompress.latency.model.predict import predict
from autocompress.records.measurement import Measurement
from autocompress.specs import CalibratedModel, load_device
from autocompress.specs.user_profiles import as_yaml
from benchmarks.goals import Goal, judge, print_run, print_table

NETWORKS = (
    "mobilenet-v1",
    "mobilenet-v2",
    "resnet-8",
    "ds-cnn",
    "autoencoder",
    "small-autoencoder",
    "lenet-300-100",
    "hello-edge-dnn",
)
MOST_MEDIAN, MOST_P90, LEAST_SPEARMAN = 0.10, 0.20, 0.97
PROCESSES = 5

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One file: what the model says and what was measured."""

    network: str
    dtype: str
    predicted: Measurement
    measured: Measurement

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted.known_latency_ms / self.measured.known_latency_ms - 1


def main() -> int:
    """Calibrate or read, check, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", help="a calibrated profile, a name or a file")
    parser.add_argument("--keep", type=Path, help="where to write the new profile")
    parser.add_argument("--networks", type=Path, help="folder where the networks are kept")
    arguments = parser.parse_args()
    print_run("Calibrated latency against measured, on networks outside the designed set", ("ai-edge-litert",))
    networks = unseen(arguments.networks)
    model = from_profile(arguments.profile) if arguments.profile else calibrated(arguments.keep)
    checked = [*check(networks, model)]
    show(checked)
    show_cost(networks, model)
    return judge(goals(checked))


def from_profile(name: str) -> CalibratedModel:
    """The model of a calibrated profile."""
    model = load_device(name).latency_model
    if not isinstance(model, CalibratedModel):
        sys.exit(f"profile '{name}' is not calibrated")
    return model


def calibrated(keep: Path | None) -> CalibratedModel:
    """A calibration of this machine, as the command makes it."""
    profile = replace(load_device("local"), host="local")
    found = calibrate(profile)
    model = found.model
    if keep is not None:
        keep.write_text(as_yaml(replace(profile, latency_model=model)))
    print(f"  calibrated with {len(found.samples)} files, {found.wall_s:.0f} s")
    rows = [
        (dtype, str(each.files), f"{each.median:.1%}", f"{each.p90:.1%}", f"{each.largest:.1%}")
        for dtype, each in model.cross_validation.items()
    ]
    print_table("Cross-validation in the designed set", ("dtype", "files", "median", "p90", "largest"), rows)
    return model


def check(networks: list[Design], model: CalibratedModel) -> Iterator[Checked]:
    """Predict and measure each network in each dtype."""
    with local_host("ai-edge-litert", 1) as host:
        for file in specimens(networks):
            yield Checked(
                network=file.design,
                dtype=file.dtype,
                predicted=predict(file.model, model),
                measured=host.measure(file.model, processes=PROCESSES),
            )


def show(checked: list[Checked]) -> None:
    """Predicted beside measured."""
    rows = [
        (
            each.network,
            each.dtype,
            f"{each.predicted.known_latency_ms:.4f}",
            f"{each.measured.known_latency_ms:.4f}",
            f"{each.error:+.1%}",
            f"{each.predicted.latency_error:.1%}",
            "extrapolated" if each.predicted.extrapolated else "-",
        )
        for each in checked
    ]
    header = ("network", "dtype", "predicted ms", "measured ms", "off by", "said", "reach")
    print_table("Networks outside the designed set", header, rows)


def show_cost(networks: list[Design], model: CalibratedModel) -> None:
    """How long a prediction takes."""
    file = next(file for file in specimens(networks) if (file.design, file.dtype) == ("mobilenet-v2", "int8"))
    seconds = min(timeit.repeat(lambda: predict(file.model, model), number=10, repeat=5)) / 10
    print(f"\n  a prediction for MobileNetV2 0.35 int8 takes {seconds * 1e3:.2f} ms")


def goals(checked: list[Checked]) -> list[Goal]:
    """The stated goals."""
    from scipy.stats import spearmanr

    errors = np.abs([each.error for each in checked])
    median, p90 = float(np.median(errors)), float(np.quantile(errors, 0.9))
    ranks = spearmanr(
        [c.predicted.known_latency_ms for c in checked], [c.measured.known_latency_ms for c in checked]
    ).statistic
    return [
        Goal(wanted=f"median error <= {MOST_MEDIAN:.0%}", got=f"{median:.1%}", met=median <= MOST_MEDIAN),
        Goal(wanted=f"90th percentile <= {MOST_P90:.0%}", got=f"{p90:.1%}", met=p90 <= MOST_P90),
        Goal(wanted=f"Spearman >= {LEAST_SPEARMAN}", got=f"{ranks:.4f}", met=ranks >= LEAST_SPEARMAN),
    ]


# --- the networks, made in a child process: TensorFlow must not disturb the measurements -----------


def unseen(kept: Path | None) -> list[Design]:
    """The networks in float32."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (kept or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{name}.tflite" for name in NETWORKS]
        if not all(file.exists() for file in files):
            _make_in_child(folder)
        return [Design(name=file.stem, kind="unseen", model=file.read_bytes()) for file in files]


def _make_in_child(folder: Path) -> None:
    code = f"from benchmarks.latency import calibration; calibration.make({str(folder)!r})"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        sys.exit(f"the networks could not be made: {made.stderr[-2000:]}")


def make(folder: str) -> None:
    """Write the networks as float `.tflite` files. Weights are random where no training is at hand."""
    import tensorflow as tf
    import tf_keras

    from autocompress.network.tflite import flatbuffer
    from autocompress.tasks import fashion_mnist
    from tests.builders import networks as tested

    # The detector of MLPerf Tiny, LeNet-300-100, and the small DNN of Hello Edge.
    widths = {
        "autoencoder": (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640),
        "lenet-300-100": (784, 300, 100, 10),
        "hello-edge-dnn": (250, 144, 144, 144, 12),
    }
    version_1 = tf_keras.applications.MobileNet((96, 96, 3), alpha=0.25, weights=None, classes=2)
    made = {
        "mobilenet-v2": tested.load("mobilenet-v2").network,
        "resnet-8": fashion_mnist.NETWORK.read_bytes(),
        "ds-cnn": tested.load("ds-cnn").network,
        "small-autoencoder": tested.load("shuttle").network,
    }
    for name, network in {"mobilenet-v1": version_1, **{n: _dense(tf_keras, *w) for n, w in widths.items()}}.items():
        made[name] = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    for name, model in made.items():
        Path(folder, f"{name}.tflite").write_bytes(flatbuffer.normalise(bytes(model)))


def _dense(keras: object, width: int, *units: int) -> object:
    """Fully connected layers, ReLU behind all but the last."""
    layers = keras.layers  # type: ignore[attr-defined]
    h = inputs = keras.Input((width,))  # type: ignore[attr-defined]
    for n in units[:-1]:
        h = layers.Dense(n, activation="relu")(h)
    return keras.Model(inputs, layers.Dense(units[-1])(h))  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
