"""What fine-tuning wins back, against the numbers it was asked for: python benchmarks/finetune.py PART [--out FILE]

Test data are looked at once, after all choices. Parts:
  minutes   one ResNet-8 candidate, three minutes: how much of the lost accuracy comes back
  resnet    Fashion-MNIST, ResNet-8: (a) <= 14 KB download at >= float - .0036, (b) <= 10 KB at >= float - .0136
  lenet-300-100, lenet-5   <= 1/40 of the float file at no loss, over three seeds (paired 95 % interval reaches 0)
  tfmot     the recipe of tensorflow_model_optimization (prune, cluster with the zeros kept, PCQAT) on the same network
Sizes are downloads (gzip). Latency is not measured here."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the first import of TensorFlow

import numpy as np

from autocompress import stats
from autocompress.compress.download import download_bytes
from autocompress.finetune.recipe import Lesson, Progress, Recipe
from autocompress.finetune.train import finetune
from autocompress.measure.accuracy import Split
from autocompress.records import Configuration, LayerChoice, Measurement
from autocompress.search.objective import Workbench
from autocompress.specs import load_device
from autocompress.tasks import fashion_mnist, load_task
from autocompress.tasks.check import checked
from autocompress.tasks.fashion_mnist.files import find_files, read_images, read_labels
from autocompress.tasks.task import LoadedTask, Task

FOLDER = Path(tempfile.mkdtemp(prefix="autocompress-finetune-"))
RECIPE: dict[str, Any] = {}  # what the command changes
Choices = dict[str, LayerChoice]
# Kept weights of each layer: those of Deep Compression (arXiv 1510.00149, tables 2 and 3), less where most weights are.
KEPT = {"lenet-300-100": (0.06, 0.08, 0.26), "lenet-5": (0.66, 0.12, 0.06, 0.19)}
PUBLISHED = {
    "lenet-300-100": "40x on MNIST, error 1.64 -> 1.58 % (counting indexes and codebooks)",
    "lenet-5": "39x on MNIST, error 0.80 -> 0.74 %",
}


def bench_of(task: LoadedTask, seed: int) -> Workbench:
    """A workbench that measures no latency; fully connected layers may be stored with 4 bits, which the runtime has
    kernels for."""
    nothing = Measurement(latency_ms=1.0, latency_source="modelled")
    device = load_device("local")
    kernels = {op: (*pairs, (4, "float32")) if op == "FULLY_CONNECTED" else pairs
               for op, pairs in device.kernels.items()}  # fmt: skip
    profile = dataclasses.replace(device, kernels=kernels)
    return Workbench(task, profile, lambda file, processes: nothing, runs=FOLDER, artifacts=FOLDER / "artifacts",
                     seed=seed, threads=len(os.sched_getaffinity(0)))  # fmt: skip


def tuned(task: LoadedTask, choices: Choices, recipe: Recipe) -> dict[str, Any]:
    """A configuration before and after fine-tuning: sizes, validation and test accuracy, the paired interval."""
    bench, recipe = bench_of(task, recipe.seed), dataclasses.replace(recipe, **RECIPE)
    asked = Configuration(layers={layer.name: choices[layer.name] for layer in bench.layers}).normalised()
    begun = time.perf_counter()
    material = bench.material(asked)
    before = bench.evaluate_trained(asked, material.solved)
    assert task.train is not None
    x, y = task.train()
    found = finetune(
        material.network, material.layers, asked, material.solved, Lesson(x=x, y=y), task.metric, recipe, ranges=None,
        path=FOLDER / "state.npz", watch=Printer(),
    )  # fmt: skip
    after = bench.evaluate_trained(asked, found.layers)
    seconds = time.perf_counter() - begun
    # Test data: here for the first time, when nothing is left to be chosen.
    test = Split(task.x_test, task.y_test, task.metric, task.network, threads=len(os.sched_getaffinity(0)), seed=0)
    outputs = {
        name: test.outputs((FOLDER / e.artifact).read_bytes()) for name, e in (("before", before), ("after", after))
    }
    tested = {name: test.judged(values) for name, values in outputs.items()}
    scores = test.scores(test.baseline_outputs), test.scores(outputs["after"])
    return {
        "float_test": test.baseline().value, "float_bytes": len(task.original), "seconds": round(seconds, 1),
        "training_seconds": round(found.seconds, 1), "epochs": round(found.epochs, 2), "steps": found.steps,
        "download_before": before.download_bytes, "download_after": after.download_bytes,
        "validation_before": before.accuracy, "validation_after": after.accuracy,
        "test_before": tested["before"].value, "test_after": tested["after"].value,
        "delta_ci": tested["after"].delta_interval, "_scores": scores,
    }  # fmt: skip


class Printer:
    """A line about every half minute."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, now: Progress) -> None:
        if time.monotonic() - self._said > 30:
            self._said = time.monotonic()
            losses = f"{now.first_loss:.4f} -> {'(pruning)' if now.best_loss is None else f'{now.best_loss:.4f}'}"
            print(f"  {100 * now.share:3.0f} % step {now.steps} held-out loss {losses}", flush=True)


def told(result: dict[str, Any]) -> dict[str, Any]:
    """The result for people, without the scores."""
    plain = {key: value for key, value in result.items() if not key.startswith("_")}
    print(json.dumps(plain, default=float), flush=True)
    return plain


def uniform(layers: Any, **choice: Any) -> Choices:
    """The same choice for every layer."""
    return {layer.name: LayerChoice(**choice) for layer in layers}


# --- ResNet-8 ------------------------------------------------------------------------------------------------------


def minutes(budget_s: float) -> None:
    """80 % zeros and 16 clusters everywhere, three minutes: at least half of what was lost."""
    task = load_task("fashion-mnist")
    choices = uniform(bench_of(task, 0).layers, sparsity=0.8, bits=8, clusters=16)
    result = told(tuned(task, choices, Recipe(budget_s=budget_s)))
    lost, left = (result["float_test"] - result[f"test_{when}"] for when in ("before", "after"))
    print(f"lost before {lost:.4f}, after {left:.4f}: {100 * (1 - left / lost):.0f} % came back (goal: 50 %)")


def resnet(budget_s: float) -> None:
    """Two goals of size and accuracy. The first and the last layer and the two shortcuts keep more."""
    task = load_task("fashion-mnist")
    for name, most_bytes, most_lost, sparsity in (("a", 14_000, 0.0036, 0.86), ("b", 10_000, 0.0136, 0.93)):
        choices = {}
        for layer in bench_of(task, 0).layers:
            large = layer.weights > 8_000
            kept = sparsity if large else 0.7 if layer.weights > 1_000 else 0.3
            choices[layer.name] = LayerChoice(sparsity=kept, bits=8, clusters=8 if large else 12)
        result = told(tuned(task, choices, Recipe(budget_s=budget_s)))
        lost = result["float_test"] - result["test_after"]
        met = result["download_after"] <= most_bytes and lost <= most_lost
        print(f"goal {name}: {result['download_after']:,} B of {most_bytes:,}, lost {lost:.4f} of {most_lost}: "
              f"{'met' if met else 'NOT met'}")  # fmt: skip


# --- the LeNets ----------------------------------------------------------------------------------------------------


def lenet(name: str, budget_s: float, seeds: int) -> None:
    """A LeNet trained here, compressed with about the layers' shares of Deep Compression, fine-tuned; three seeds."""
    base, scores, ratios = [], [], []
    for seed in range(seeds):
        task = lenet_task(name, seed)
        layers = bench_of(task, seed).layers
        kept = KEPT[name]
        choices = {
            layer.name: LayerChoice(sparsity=round(1 - share, 4), bits=4 if layer.op == "FULLY_CONNECTED" else 8,
                                    clusters=None if layer.op == "FULLY_CONNECTED" else 32)
            for layer, share in zip(layers, kept, strict=True)
        }  # fmt: skip
        result = tuned(task, choices, Recipe(budget_s=budget_s, seed=seed, batch=128))
        told(result)
        base.append(result["_scores"][0])
        scores.append(result["_scores"][1])
        ratios.append(result["float_bytes"] / result["download_after"])
    low, high = stats.paired_interval(np.concatenate(base), np.concatenate(scores), 0)
    met = min(ratios) >= 40 and high >= 0
    print(f"{name}: float file / download {', '.join(f'{r:.1f}' for r in ratios)} (goal 40); test accuracy "
          f"{np.mean(base):.4f} -> {np.mean(scores):.4f}, paired 95 % [{low:+.4f}, {high:+.4f}]: "
          f"{'met' if met else 'NOT met'}. Deep Compression: {PUBLISHED[name]}")  # fmt: skip


def lenet_task(name: str, seed: int) -> LoadedTask:
    """A LeNet of Caffe's sizes, 15 epochs on the first 50,000 images, as a task."""
    import tensorflow as tf
    import tf_keras

    folder = find_files()
    images, labels = read_images(folder, "train")[..., None] / np.float32(255), read_labels(folder, "train")
    few = fashion_mnist.TRAINING_IMAGES
    tf_keras.utils.set_random_seed(seed)
    model = lenet_5(tf_keras.layers) if name == "lenet-5" else lenet_300_100(tf_keras.layers)
    steps = 15 * few // 128
    model.compile(tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(1e-3, steps)),
                  "sparse_categorical_crossentropy")  # fmt: skip
    model.fit(images[:few], labels[:few], 128, 15, verbose=0)
    network = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    calibration, validation = fashion_mnist.chosen()
    made = Task(
        name=name, network=network, metric="accuracy", x_calibration=images[calibration],
        x_validation=images[validation], y_validation=labels[validation],
        x_test=read_images(folder, "t10k")[..., None] / np.float32(255), y_test=read_labels(folder, "t10k"),
        x_train=images[:few], y_train=labels[:few],
    )  # fmt: skip
    from autocompress.metrics import get_metric

    return checked(made, network, get_metric("accuracy"), f"{name}: ", name)


def lenet_300_100(layers: Any) -> Any:
    import tf_keras

    return tf_keras.Sequential([
        layers.Input((28, 28, 1)), layers.Flatten(), layers.Dense(300, "relu"), layers.Dense(100, "relu"),
        layers.Dense(10, "softmax"),
    ])  # fmt: skip


def lenet_5(layers: Any) -> Any:
    """Caffe's: 20 and 50 filters of 5x5, 500 units; 431,080 weights."""
    import tf_keras

    return tf_keras.Sequential([
        layers.Input((28, 28, 1)), layers.Conv2D(20, 5), layers.MaxPooling2D(), layers.Conv2D(50, 5),
        layers.MaxPooling2D(), layers.Flatten(), layers.Dense(500, "relu"), layers.Dense(10, "softmax"),
    ])  # fmt: skip


# --- tfmot ---------------------------------------------------------------------------------------------------------


def tfmot(budget_s: float) -> None:
    """The recipe of its guides on the rebuilt ResNet-8, each of three stages for a third of the time."""
    from tfmot_recipe import run

    run(load_task("fashion-mnist"), budget_s, download_bytes)


def main() -> None:
    parts = {"minutes": 180.0, "resnet": 1800.0, "lenet-300-100": 300.0, "lenet-5": 600.0, "tfmot": 180.0}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--seconds", type=float, help="training time of each network")
    parser.add_argument("--recipe", type=json.loads, default={}, help="changes of the recipe, as JSON")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    RECIPE.update(asked.recipe)
    budget_s = asked.seconds or parts[asked.part]
    if asked.part.startswith("lenet"):
        lenet(asked.part, budget_s, asked.seeds)
    else:
        {"minutes": minutes, "resnet": resnet, "tfmot": tfmot}[asked.part](budget_s)


if __name__ == "__main__":
    main()
