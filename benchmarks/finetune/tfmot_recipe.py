"""The recipe of tensorflow_model_optimization's guides on a rebuilt network: prune, cluster with the zeros kept, PCQAT.

80 % zeros and 16 clusters in every layer, as `benchmarks/finetune/resnet_and_lenets.py minutes` asks for; each stage
gets a third of the time. What the exported file holds is read back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from autocompress.network.keras import model as keras_model
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import read_graph
from autocompress.tasks.task import LoadedTask
from benchmarks.task_splits import test_split

SPARSITY, CLUSTERS, BATCH = 0.8, 16, 64
LEARNING_RATES = {"prune": 5e-4, "cluster": 1e-4, "pcqat": 1e-4}


def run(task: LoadedTask, budget_s: float, size_of: Callable[[bytes], int]) -> None:
    """Train, export, and print what the file is on the test split."""
    assert task.train is not None
    x, y = task.train()
    (images,) = x.values()
    trained = keras_model.to_keras(read_graph(task.network))
    for stage in (prune, cluster, quantize):
        trained = stage(trained, images, y, budget_s / 3)
    exported = export(trained)
    test = test_split(task)
    quality = test.quality_of(outputs_of(exported, task))
    print(
        json.dumps(
            {
                "float_test": test.baseline().value,
                "test": quality.value,
                "delta_ci": quality.delta_interval,
                "file_bytes": len(exported),
                "download": size_of(exported),
                "layers": stored_layers(exported),
            }
        )
    )


def prune(model: Any, x: Any, y: Any, seconds: float) -> Any:
    """Gradual magnitude pruning (its guide `pruning_with_keras`)."""
    import tensorflow_model_optimization as tfmot

    sparsity = tfmot.sparsity.keras
    steps = steps_in(model, x, y, seconds, "prune")
    schedule = sparsity.PolynomialDecay(0.0, SPARSITY, 0, max(2, steps // 2), frequency=max(1, steps // 100))
    pruned = sparsity.prune_low_magnitude(model, schedule)
    fit(pruned, x, y, steps, "prune", [sparsity.UpdatePruningStep()])
    return sparsity.strip_pruning(pruned)


def cluster(model: Any, x: Any, y: Any, seconds: float) -> Any:
    """Sparsity-preserving clustering (its guide `sparse_clustering`)."""
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as experimental

    steps = steps_in(model, x, y, seconds, "cluster")
    start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    clustered = experimental.cluster_weights(
        model, number_of_clusters=CLUSTERS, cluster_centroids_init=start, preserve_sparsity=True
    )
    fit(clustered, x, y, steps, "cluster", [])
    return tfmot.clustering.keras.strip_clustering(clustered)


def quantize(model: Any, x: Any, y: Any, seconds: float) -> Any:
    """Sparsity- and cluster-preserving quantization-aware training (its guide `pcqat`)."""
    import tensorflow_model_optimization as tfmot

    steps = steps_in(model, x, y, seconds, "pcqat")
    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    with tfmot.quantization.keras.quantize_scope():
        scheme = tfmot.experimental.combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
        aware = tfmot.quantization.keras.quantize_apply(annotated, scheme)
    fit(aware, x, y, steps, "pcqat", [])
    return aware


def fit(model: Any, x: Any, y: Any, steps: int, stage: str, callbacks: list[Any]) -> None:
    """Train for so many steps."""
    import tf_keras

    model.compile(tf_keras.optimizers.Adam(LEARNING_RATES[stage]), "sparse_categorical_crossentropy")
    begun, left = time.monotonic(), steps
    while left > 0:
        part = min(left, len(x) // BATCH)
        order = np.random.default_rng(left).permutation(len(x))[: part * BATCH]
        model.fit(x[order], y[order], batch_size=BATCH, epochs=1, verbose=0, callbacks=callbacks)
        left -= part
    print(f"  {stage}: {steps} steps in {time.monotonic() - begun:.0f} s", flush=True)


def steps_in(model: Any, x: Any, y: Any, seconds: float, stage: str) -> int:
    """How many plain steps the time allows, by a copy of the model."""
    import tf_keras

    copy = tf_keras.models.clone_model(model)
    copy.compile(tf_keras.optimizers.Adam(LEARNING_RATES[stage]), "sparse_categorical_crossentropy")
    copy.fit(x[:BATCH], y[:BATCH], BATCH, 1, verbose=0)
    begun = time.monotonic()
    copy.fit(x[: 20 * BATCH], y[: 20 * BATCH], BATCH, 1, verbose=0)
    return max(30, int(20 * seconds / (time.monotonic() - begun)))


def export(model: Any) -> bytes:
    """The file as the guide exports it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


def outputs_of(model: bytes, task: LoadedTask) -> Any:
    """Outputs for the test split; the file has one input, named as its converter likes."""
    from autocompress.network.tflite.interpreter import Runner

    runner = Runner(model, 2)
    (values,) = task.x_test.values()
    return runner.run({runner.inputs[0].name: values})


def stored_layers(model: bytes) -> list[dict[str, Any]]:
    """Share of zeros and number of levels of each layer's stored integers."""
    tree, found = flatbuffer.read(model), []
    for operator in tree.subgraphs[0].operators:
        if flatbuffer.op_name(tree, operator) in ("CONV_2D", "FULLY_CONNECTED"):
            levels = flatbuffer.constant(tree, int(operator.inputs[1]))
            assert levels is not None
            found.append({"zeros": round(float(np.mean(levels == 0)), 3), "levels": len(np.unique(levels))})
    return found
