"""What else compresses weights in one shot, without training: simple methods, and tfmot.

Weights come and go as one (weight in the flatbuffer's order, bias) a layer, in layer order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from autocompress.network.graph.layers import Layer
from autocompress.records.configuration import LayerChoice
from benchmarks.compress.rebuild import to_keras, weights_of

Array = np.ndarray[Any, Any]
Weights = list[tuple[Array, Array | None]]
KMEANS_STEPS = 25
TFMOT_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-model-optimization")


def simple(weights: Weights, choice: LayerChoice) -> Weights:
    """Magnitude pruning in each layer, then k-means or rounding to the nearest level; the bias stays.

    Output channels come first in every weight (convolutions and fully connected layers)."""
    return [(_simple_weight(weight, choice), bias) for weight, bias in weights]


def _simple_weight(weight: Array, choice: LayerChoice) -> Array:
    limit = 2 ** (choice.bits - 1) - 1
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    kept = _largest(rows, math.ceil(choice.sparsity * rows.size - 1e-9))
    scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-9) / limit
    ratios = np.where(kept, rows / scale, 0.0)
    if choice.clusters is None:
        levels = np.rint(ratios)
    else:
        centres = np.rint(kmeans_with_zero(ratios[ratios != 0], choice.clusters))
        levels = centres[np.abs(ratios[..., None] - centres).argmin(-1)]
    return np.where(kept, levels * scale, 0.0).reshape(weight.shape)


def _largest(rows: Array, zeros: int) -> Array:
    """Mask of all weights but the `zeros` smallest."""
    kept = np.ones(rows.size, bool)
    kept[np.argsort(np.abs(rows).ravel(), kind="stable")[:zeros]] = False
    return kept.reshape(rows.shape)


def kmeans_with_zero(values: Array, clusters: int) -> Array:
    """Lloyd's k-means of numbers from their quantiles, the centre nearest to zero held there."""
    centres = np.quantile(values, np.linspace(0, 1, clusters))
    fixed = np.abs(centres).argmin()
    centres[fixed] = 0.0
    for _ in range(KMEANS_STEPS):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        for k in range(clusters):
            if k != fixed and (nearest == k).any():
                centres[k] = values[nearest == k].mean()
    return centres


def tfmot(tree: Any, layers: Sequence[Layer], choice: LayerChoice) -> Iterator[Weights]:
    """One-shot pruning, then clustering from each of tfmot's two usual starts; weights stay float32.

    Nothing for bit-widths below 8, which tfmot has no way to reach without training."""
    if choice.bits < 8:
        return
    if choice.clusters is None:
        yield list(weights_of(_pruned(tree, choice.sparsity), layers))
        return
    for start in ("KMEANS_PLUS_PLUS", "LINEAR"):
        clustered = _clustered(_pruned(tree, choice.sparsity), choice, start)
        yield list(weights_of(clustered, layers))


def _pruned(tree: Any, sparsity: float) -> Any:
    """`prune_low_magnitude` with a constant sparsity: one step with learning rate 0 sets the masks."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    network = to_keras(tree)
    if sparsity == 0:
        return network
    pruning = tfmot.sparsity.keras
    wrapped = pruning.prune_low_magnitude(network, pruning.ConstantSparsity(sparsity, 0, frequency=1))
    wrapped.compile(tf_keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    images = np.zeros((8, *network.input_shape[1:]), np.float32)
    wrapped.fit(images, np.zeros(8, np.int32), verbose=0, callbacks=[pruning.UpdatePruningStep()])
    return pruning.strip_pruning(wrapped)


def _clustered(network: Any, choice: LayerChoice, start: str) -> Any:
    """`cluster_weights` as its author's experimental variant does it, which alone can keep zeros."""
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

    clustering = tfmot.clustering.keras
    wrapped = cluster.cluster_weights(
        network,
        number_of_clusters=choice.clusters,
        cluster_centroids_init=clustering.CentroidInitialization[start],
        preserve_sparsity=choice.sparsity > 0,
    )
    return clustering.strip_clustering(wrapped)
