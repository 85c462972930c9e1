"""The pipeline that a user would write by hand for one candidate: prune, cluster (tfmot), convert, evaluate.

One sparsity and one cluster count for the whole ResNet-8, one short epoch of training after each of the two,
the TFLite converter with its default optimization (dynamic range)."""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from rebuild import to_keras

from autocompress.network import flatbuffer
from autocompress.network.run import Runner
from autocompress.tasks import LoadedTask

SPARSITY, CLUSTERS = 0.5, 16
BATCH, LEARNING_RATE = 32, 1e-4


@dataclass(frozen=True, kw_only=True)
class PlainCandidate:
    """What one candidate took, step by step, in seconds, and what came of it."""

    prune_s: float
    cluster_s: float
    convert_s: float
    evaluate_s: float
    accuracy: float
    file_bytes: int

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

    def candidate(self) -> PlainCandidate:
        """Make and evaluate one candidate from a fresh copy of the trained network."""
        import tf_keras

        tf_keras.backend.clear_session()  # what earlier candidates left behind slows down the next
        network = to_keras(self._tree)
        marks = [time.perf_counter()]
        pruned = self._prune(network)
        marks.append(time.perf_counter())
        clustered = self._cluster(pruned)
        marks.append(time.perf_counter())
        model = _convert(clustered)
        marks.append(time.perf_counter())
        accuracy = self._accuracy(model)
        marks.append(time.perf_counter())
        steps = dict(zip(("prune_s", "cluster_s", "convert_s", "evaluate_s"), np.diff(marks), strict=True))
        return PlainCandidate(**steps, accuracy=accuracy, file_bytes=len(model))

    def _prune(self, network: Any) -> Any:
        import tensorflow_model_optimization as tfmot

        pruning = tfmot.sparsity.keras
        steps = -(-self.images // BATCH)
        schedule = pruning.PolynomialDecay(0.0, SPARSITY, 0, steps, frequency=10)
        wrapped = pruning.prune_low_magnitude(network, schedule)
        self._train(wrapped, [pruning.UpdatePruningStep()])
        return pruning.strip_pruning(wrapped)

    def _cluster(self, network: Any) -> Any:
        import tensorflow_model_optimization as tfmot
        from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

        clustering = tfmot.clustering.keras
        wrapped = cluster.cluster_weights(
            network,
            number_of_clusters=CLUSTERS,
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


def _convert(network: Any) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with contextlib.redirect_stdout(io.StringIO()):  # it says where it keeps a SavedModel meanwhile
        return bytes(converter.convert())
