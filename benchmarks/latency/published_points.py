"""Refits the latency model to the published Raspberry Pi figures, and prints fitted and left-out values.

Makes the four MobileNets (without weights), converts them to `.tflite` in float32 and, where int8 figures
were published, static int8, and counts their features. Shows too what the same form makes of the boards whose
profile has no latency model. About three minutes: `python -m benchmarks.latency.published_points`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from autocompress.latency.model import predict
from autocompress.specs import Coefficients, FittedPoint, LatencyModel, load_device

SOURCE = "google/XNNPACK README (end2end-bench, 2022-02-08)"
NETWORKS = {
    "MobileNetV1 1.0 224": "MobileNet",
    "MobileNetV2 1.0 224": "MobileNetV2",
    "MobileNetV3 Large 224": "MobileNetV3Large",
    "MobileNetV3 Small 224": "MobileNetV3Small",
}
# Published milliseconds in the order of NETWORKS; int8 for the first two.
PUBLISHED = {
    "rpi4": {"float32": (77, 46, 40, 15), "int8": (24, 17)},
    "rpi4-32bit": {"float32": (72, 41, 38, 13), "int8": (29, 20)},
    "rpi3 (B+, 32-bit)": {"float32": (114, 79, 67, 22), "int8": (46, 30)},
}


def main() -> None:
    """Print the table and compare the profile of the Raspberry Pi 4 with the new fit."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    counted = {(name, dtype): predict.features(model) for name, dtype, model in networks()}
    for board, latencies in PUBLISHED.items():
        points = [
            point_of(name, dtype, counted[name, dtype], latency)
            for dtype, values in latencies.items()
            for name, latency in zip(NETWORKS, values, strict=False)
        ]
        show(board, points)
    compare_with_profile(counted)


def networks() -> Iterator[tuple[str, str, bytes]]:
    """(model, dtype, `.tflite`) of every network that figures were published for."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tf_keras

    for name, builder in NETWORKS.items():
        options = {"include_preprocessing": False} if "V3" in builder else {}
        network = getattr(tf_keras.applications, builder)(weights=None, input_shape=(224, 224, 3), **options)
        for dtype in ("float32", "int8")[: 1 if "V3" in builder else 2]:
            yield name, dtype, convert(network, dtype)


def convert(network: Any, dtype: str) -> bytes:
    """The network as `.tflite`; int8: static, with int8 inputs and outputs, as the published networks run."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if dtype == "int8":
        rng = np.random.default_rng(0)
        noise = [[rng.normal(size=(1, 224, 224, 3)).astype(np.float32)] for _ in range(2)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: noise
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def point_of(name: str, dtype: str, found: predict.Features, latency_ms: float) -> FittedPoint:
    """A published figure with the features of its network."""
    return FittedPoint(
        model=name,
        dtype=dtype,
        mmac=found.total.mmac,
        mb=found.total.mb,
        ops=found.total.ops,
        latency_ms=latency_ms,
        source=SOURCE,
    )


def show(board: str, points: list[FittedPoint]) -> None:
    """One board: coefficients, then published, fitted and left-out milliseconds of each point."""
    fitted = predict.fit_by_dtype(points)
    print(f"\n{board}")
    for dtype, each in fitted.items():
        own = [point for point in points if point.dtype == dtype]
        shared = None if dtype == "float32" else fitted["float32"]
        print(f"  {dtype}: {spelled(each)}{' (MB and ops shared with float32)' if shared else ''}")
        print("    model                      MMAC       MB  ops  published  fitted          left out")
        errors = predict.leave_one_out(own, shared)
        for point, error in zip(own, errors, strict=True):
            value = predict.latency_of_point(point, each)
            print(
                f"    {point.model:22} {point.mmac:8.3f} {point.mb:8.3f} {point.ops:4d}"
                f" {point.latency_ms:7.0f} ms {value:6.1f} ({value / point.latency_ms - 1:+6.1%})"
                f" {point.latency_ms * (1 + error):6.1f} ({error:+6.1%})"
            )
        print(f"    largest leave-one-out error {max(map(abs, errors)):.1%}")


def spelled(each: Coefficients) -> str:
    """Coefficients in one line."""
    return f"{each.ms_per_mmac:.6g} ms/MMAC, {each.ms_per_mb:.6g} ms/MB, {each.ms_per_op:.6g} ms/op"


def compare_with_profile(counted: dict[tuple[str, str], predict.Features]) -> None:
    """Whether the features that the profile carries are those counted here."""
    model = load_device("rpi4").latency_model
    assert isinstance(model, LatencyModel)
    for point in model.fitted_to:
        total = counted[point.model, point.dtype].total
        same = (point.mmac, point.mb, point.ops) == (total.mmac, total.mb, total.ops)
        print(f"profile rpi4, {point.model} {point.dtype}: features {'as counted here' if same else 'DIFFER'}")


if __name__ == "__main__":
    main()
