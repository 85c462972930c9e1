"""The pipeline that a user would write by hand for one candidate: prune, cluster (tfmot), convert, evaluate.

One sparsity and one cluster count for the whole ResNet-8, one short epoch of training after each of the two, the TFLite
converter: float, with its default optimization (dynamic range), or static int8."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.interpreter import Runner
from autocompress.tasks import LoadedTask
from benchmarks.compress.rebuild import to_keras

BATCH, LEARNING_RATE = 32, 1e-4
CALIBRATION = 256  # images that the converter finds the ranges of static activations with


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is done to the whole network: `clusters` None for no clustering, `dtype` "float32", "dynamic" or "int8"."""

    sparsity: float = 0.5
    clusters: int | None = 16
    dtype: str = "dynamic"


@dataclass(frozen=True, kw_only=True)
class PlainCandidate:
    """What one candidate took, step by step, in seconds, and what came of it."""

    prune_s: float
    cluster_s: float
    convert_s: float
    evaluate_s: float
    accuracy: float
    file: bytes

    @property
    def total_s(self) -> float:
        """From the trained network to the accuracy of the file."""
        return self.prune_s + self.cluster_s + self.convert_s + self.evaluate_s


class PlainPipeline:
    """The pipeline on one task. Loading the trained network is not part of a candidate."""

    def __init__(self, task: LoadedTask, short_epoch: int, threads: int) -> None:
        assert task.train is not None
        x, y = task.train()
        assert y is not None
        self._x, self._y = next(iter(x.values()))[:short_epoch].copy(), y[:short_epoch].copy()
        self._task, self._threads = task, threads
        self._tree = flatbuffer.read(task.network)
        self.images = len(self._x)

    def candidate(self, setting: Setting = Setting()) -> PlainCandidate:
        """Make and evaluate one candidate from a fresh copy of the trained network."""
        import tf_keras

        tf_keras.backend.clear_session()  # what earlier candidates left behind slows down the next
        network = to_keras(self._tree)
        marks = [time.perf_counter()]
        pruned = self._prune(network, setting.sparsity) if setting.sparsity else network
        marks.append(time.perf_counter())
        clustered = pruned if setting.clusters is None else self._cluster(pruned, setting.clusters)
        marks.append(time.perf_counter())
        file = self._convert(clustered, setting.dtype)
        marks.append(time.perf_counter())
        accuracy = self._accuracy(file)
        marks.append(time.perf_counter())
        steps = dict(zip(("prune_s", "cluster_s", "convert_s", "evaluate_s"), np.diff(marks), strict=True))
        return PlainCandidate(**steps, accuracy=accuracy, file=file)

    def _prune(self, network: Any, sparsity: float) -> Any:
        import tensorflow_model_optimization as tfmot

        pruning = tfmot.sparsity.keras
        steps = -(-self.images // BATCH)
        schedule = pruning.PolynomialDecay(0.0, sparsity, 0, steps, frequency=10)
        wrapped = pruning.prune_low_magnitude(network, schedule)
        self._train(wrapped, [pruning.UpdatePruningStep()])
        return pruning.strip_pruning(wrapped)

    def _cluster(self, network: Any, clusters: int) -> Any:
        import tensorflow_model_optimization as tfmot
        from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

        clustering = tfmot.clustering.keras
        wrapped = cluster.cluster_weights(
            network,
            number_of_clusters=clusters,
            cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=True,
        )
        self._train(wrapped, [])
        return clustering.strip_clustering(wrapped)

    def _train(self, network: Any, callbacks: list[Any]) -> None:
        import tf_keras

        network.compile(tf_keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy")
        network.fit(self._x, self._y, batch_size=BATCH, epochs=1, verbose=0, callbacks=callbacks)

    def _accuracy(self, model: bytes) -> float:
        runner = Runner(model, self._threads)
        (values,) = self._task.x_validation.values()
        outputs = runner.run({runner.inputs[0].name: values})
        assert self._task.y_validation is not None
        return float((outputs.argmax(-1) == self._task.y_validation).mean())

    def _convert(self, network: Any, dtype: str) -> bytes:
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        if dtype != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if dtype == "int8":
            converter.representative_dataset = self._calibration
        nowhere = io.StringIO()  # it says where it keeps a SavedModel meanwhile
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            return bytes(converter.convert())

    def _calibration(self) -> Iterator[list[Any]]:
        (values,) = self._task.x_calibration.values()
        for n in range(min(CALIBRATION, len(values))):
            yield [values[n : n + 1]]
