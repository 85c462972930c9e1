"""What fine-tuning wins back, against the numbers it was asked for: python -m benchmarks.finetune.resnet_and_lenets
PART

What trains is what the command `finetune` calls; each result says which options. Test data are looked at once, after
all choices. Parts:
  minutes   one ResNet-8 candidate, three minutes: how much of the lost accuracy comes back
  a, b, c   Fashion-MNIST, ResNet-8: (a) <= 14,000 B download at >= .9150, (b) <= 10,000 B at >= .9050, (c) latency on
            `local` <= half of the plain int8 file's at >= .9100
  lenet-300-100, lenet-5   <= 1/40 of the float file at no loss, over three seeds (paired 95 % interval reaches 0)
  tfmot     the recipe of tensorflow_model_optimization (prune, cluster with the zeros kept, PCQAT) on the same network
Sizes are downloads (gzip) of the exported files; only (c) measures a latency."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the first import of TensorFlow

import numpy as np

from autocompress import stats
from autocompress.cli.finetune import trainer
from autocompress.compression.download import download_bytes
from autocompress.compression.template import quantize_plainly
from autocompress.evaluate.evaluator import Evaluator
from autocompress.finetune.recipe import Progress, Recipe
from autocompress.latency.source import FRONT_PROCESSES, Unscreened, latency_on
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.measurement import Measurement
from autocompress.specs import load_device
from autocompress.tasks import fashion_mnist, load_task
from autocompress.tasks.check import checked
from autocompress.tasks.fashion_mnist.files import find_files, read_images, read_labels
from autocompress.tasks.task import LoadedTask, Task
from benchmarks.task_splits import test_split

_OWN = tempfile.TemporaryDirectory(prefix="autocompress-finetune-")  # gone when the process ends
FOLDER = Path(_OWN.name)
RECIPE: dict[str, Any] = {}  # what the command changes
Choices = dict[str, LayerChoice]
Widths = dict[str, int]
LENETS: dict[str, tuple[float, int, int, tuple[str, ...]]] = {
    # --sparsity (Deep Compression prunes 92 % of both), --batch, --epochs, --augment
    "lenet-300-100": (0.89, 128, 100, ()),
    "lenet-5": (0.894, 32, 32, ("mirror", "shift")),
}
FINER = 6_000  # weights; a smaller layer has 5 bits, the others 3
PUBLISHED = {
    "lenet-300-100": "40x on MNIST, error 1.64 -> 1.58 % (counting indexes and codebooks)",
    "lenet-5": "39x on MNIST, error 0.80 -> 0.74 %",
}


def bench_of(task: LoadedTask, seed: int) -> Evaluator:
    """An evaluator that measures no latency; fully connected layers may be stored with 4 bits, which the runtime has
    kernels for."""
    nothing = Measurement(latency_ms=1.0, latency_source="modelled")
    device = load_device("local")
    kernels = {
        op: (*pairs, (4, "float32")) if op == "FULLY_CONNECTED" else pairs for op, pairs in device.kernels.items()
    }
    profile = dataclasses.replace(device, kernels=kernels)
    return Evaluator(
        task,
        profile,
        Unscreened(lambda file, processes: nothing),
        runs=FOLDER,
        artifacts=FOLDER / "artifacts",
        seed=seed,
        threads=len(os.sched_getaffinity(0)),
    )


def tuned(
    task: LoadedTask, choices: Choices, recipe: Recipe, *, widths: Widths | None = None, sparsity: float | None = None
) -> dict[str, Any]:
    """A configuration before and after fine-tuning: sizes, validation and test accuracy, the paired interval.
    `sparsity`: what the command's option of that name says."""
    bench, recipe = bench_of(task, recipe.seed), dataclasses.replace(recipe, **RECIPE)
    asked = Configuration(
        layers={layer.name: choices[layer.name] for layer in bench.layers}, channels=dict(widths or {})
    ).normalised()
    begun = time.perf_counter()
    material = bench.material(asked)
    before = bench.evaluate_trained(asked, material.solved)
    trained = trainer(task, recipe, Printer(), sparsity)(asked, material, FOLDER / "state.npz")
    after = bench.evaluate_trained(trained.configuration, trained.layers)
    seconds = time.perf_counter() - begun
    # Test data: here for the first time, when nothing is left to be chosen.
    test = test_split(task)
    files = {name: (FOLDER / e.artifact).read_bytes() for name, e in (("before", before), ("after", after))}
    outputs = {name: test.outputs(file) for name, file in files.items()}
    tested = {name: test.quality_of(values) for name, values in outputs.items()}
    scores = test.scores(test.baseline_outputs), test.scores(outputs["after"])
    facts = trained.facts
    return {
        "float_test": test.baseline().value,
        "float_bytes": len(task.original),
        "seconds": round(seconds, 1),
        "loss": recipe.loss,
        "batch": recipe.batch,
        "sparsity": sparsity,
        "training_seconds": round(facts["seconds"], 1),
        "epochs": round(facts["epochs"], 2),
        "steps": facts["steps"],
        "held_out_loss": [round(facts["loss_before"], 4), round(facts["loss_after"], 4)],
        "download_before": before.download_bytes,
        "download_after": after.download_bytes,
        "file_bytes": after.file_bytes,
        "sha256": after.sha256[:12],
        "validation_before": before.accuracy,
        "validation_after": after.accuracy,
        "test_before": tested["before"].value,
        "test_after": tested["after"].value,
        "delta_ci": tested["after"].delta_interval,
        "_scores": scores,
        "_file": files["after"],
        "_bench": bench,
    }


class Printer:
    """A line about every half minute."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, now: Progress) -> None:
        if time.monotonic() - self._said > 30:
            self._said = time.monotonic()
            losses = f"{now.first_loss:.4f} -> {'(pruning)' if now.best_loss is None else f'{now.best_loss:.4f}'}"
            print(f"  {100 * now.share:3.0f} % step {now.steps} held-out loss {losses}", flush=True)


def told(result: dict[str, Any]) -> None:
    """Print the result for people, without scores and files."""
    plain = {key: value for key, value in result.items() if not key.startswith("_")}
    print(json.dumps(plain, default=float), flush=True)


def uniform(layers: Any, **choice: Any) -> Choices:
    """The same choice for every layer."""
    return {layer.name: LayerChoice(**choice) for layer in layers}


# --- ResNet-8 ------------------------------------------------------------------------------------------------------


def minutes(budget_s: float) -> int:
    """80 % zeros and 16 clusters everywhere, three minutes: at least half of what was lost."""
    task = load_task("fashion-mnist")
    choices = uniform(bench_of(task, 0).layers, sparsity=0.8, bits=8, clusters=16)
    result = tuned(task, choices, Recipe(budget_s=budget_s))
    told(result)
    lost, left = (result["float_test"] - result[f"test_{when}"] for when in ("before", "after"))
    print(f"lost before {lost:.4f}, after {left:.4f}: {100 * (1 - left / lost):.0f} % came back (goal: 50 %)")
    return int(left > lost / 2)


# Widths that the space `channels` offers. Most weights are where most channels are, so those layers give most.
NARROW = {"conv_2d_1": 8, "conv_2d_3": 24, "conv_2d_4": 24, "conv_2d_6": 48, "conv_2d_7": 48}
NARROWER = NARROW | {"conv_2d_6": 32, "conv_2d_7": 32}
GOALS = {  # most bytes, least accuracy, widths, sparsities of large and other layers, bits, epochs at most
    "a": (14_000, 0.9150, NARROW, (0.63, 0.53), 3, 16),
    "b": (10_000, 0.9050, NARROWER, (0.70, 0.60), 3, 6),
    "c": (None, 0.9100, NARROWER | {"conv_2d_3": 16}, (0.0, 0.0), 16, 60),
}


def resnet(goal: str, budget_s: float) -> bool:
    """One of the goals of size, latency and accuracy. The first and the last layer are few weights and stay finer."""
    task = load_task("fashion-mnist")
    most_bytes, least, widths, (large, other), bits, epochs = GOALS[goal]
    choices = {}
    for layer in bench_of(task, 0).layers:
        few = layer.weights < 256 or layer.op == "FULLY_CONNECTED"
        kept = 0.0 if few else large if layer.weights > 8_000 else other
        choices[layer.name] = LayerChoice(sparsity=kept, bits=max(bits, 4) if few else bits)
    result = tuned(task, choices, Recipe(budget_s=budget_s, loss="both", epochs=epochs), widths=widths)
    told(result)
    if most_bytes is None:
        ratio, text = against_int8(task, result["_bench"], result["_file"])
        small = ratio <= 0.5
    else:
        small, text = result["download_after"] <= most_bytes, f"{result['download_after']:,} B of {most_bytes:,}"
    met = small and result["test_after"] >= least
    print(
        f"goal {goal}: {text}, test accuracy {result['test_after']:.4f} (float {result['float_test']:.4f}), wanted "
        f"{least:.4f}: {'met' if met else 'NOT met'}"
    )
    return bool(met)


def against_int8(task: LoadedTask, bench: Evaluator, file: bytes) -> tuple[float, str]:
    """The latency on this machine of a file over that of the plain static int8 file, each measured in turn with the
    float network."""
    plain = quantize_plainly(task.network, bench.layers, bench.base_networks.whole.ranges)
    with latency_on(load_device("local")) as source:
        latency = source.bind(task.original)
        ours, theirs = latency(file, FRONT_PROCESSES), latency(plain, FRONT_PROCESSES)
    assert ours.ratio_to_baseline is not None
    assert theirs.ratio_to_baseline is not None
    ratio = ours.ratio_to_baseline / theirs.ratio_to_baseline
    return ratio, (
        f"{ours.latency_ms:.4f} ms, plain int8 {theirs.latency_ms:.4f} ms: {ratio:.3f} of it (each against the float "
        f"network in turn: {ours.ratio_to_baseline:.3f}, {theirs.ratio_to_baseline:.3f})"
    )


# --- the LeNets ----------------------------------------------------------------------------------------------------


def lenet(name: str, budget_s: float, seeds: Sequence[int], runs: Path | None) -> bool:
    """A LeNet trained here, pruned gradually while it is fine-tuned; one network a seed."""
    how = "-".join(map(str, (*LENETS[name][:3], *LENETS[name][3], f"{budget_s:g}")))
    found = [kept(runs, f"{name}-{seed}-{how}", partial(one_lenet, name, budget_s, seed)) for seed in seeds]
    base, scores = (np.concatenate([each[part] for each in found]) for part in ("base", "scores"))
    ratios = [float(each["ratio"]) for each in found]
    low, high = stats.paired_interval(base, scores, 0)
    met = min(ratios) >= 40 and high >= 0
    print(
        f"{name}: float file / download {', '.join(f'{r:.1f}' for r in ratios)} (goal 40, stretch 60); test accuracy "
        f"{np.mean(base):.4f} -> {np.mean(scores):.4f}, paired 95 % [{low:+.4f}, {high:+.4f}], {len(found)} seed(s): "
        f"{'met' if met else 'NOT met'}. Deep Compression: {PUBLISHED[name]}"
    )
    return met


def one_lenet(name: str, budget_s: float, seed: int) -> dict[str, Any]:
    """Whether each test image is right, before and after, and how many times smaller the download is."""
    task, (sparsity, batch, epochs, augment) = lenet_task(name, seed), LENETS[name]
    layers = bench_of(task, seed).layers
    choices = {layer.name: LayerChoice(bits=5 if layer.weights < FINER else 3) for layer in layers}
    recipe = Recipe(
        budget_s=budget_s, seed=seed, loss="both", learning_rate=0.003, batch=batch, epochs=epochs, augment=augment
    )
    result = tuned(task, choices, recipe, sparsity=sparsity)
    told(result)
    base, scores = result["_scores"]
    return {"base": base, "scores": scores, "ratio": result["float_bytes"] / result["download_after"]}


def kept(runs: Path | None, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run that was cut off has found, or what `make` finds now."""
    path = None if runs is None else runs / f"{name}.npz"
    if path is not None and path.exists():
        print(f"{name}: from {path}", flush=True)
        with np.load(path) as archive:
            return dict(archive)
    found = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **found)
    return found


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
    model.compile(
        tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(1e-3, steps)),
        "sparse_categorical_crossentropy",
    )
    model.fit(images[:few], labels[:few], 128, 15, verbose=0)
    network = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    made = Task(
        name=name,
        network=network,
        metric="accuracy",
        x_calibration=images[fashion_mnist.for_calibration()],
        x_validation=images[few:],
        y_validation=labels[few:],
        x_test=read_images(folder, "t10k")[..., None] / np.float32(255),
        y_test=read_labels(folder, "t10k"),
        x_train=images[:few],
        y_train=labels[:few],
    )
    from autocompress.metrics import get_metric

    return checked(made, network, get_metric("accuracy"), f"{name}: ", name)


def lenet_300_100(layers: Any) -> Any:
    import tf_keras

    return tf_keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(300, "relu"),
            layers.Dense(100, "relu"),
            layers.Dense(10, "softmax"),
        ]
    )


def lenet_5(layers: Any) -> Any:
    """Caffe's: 20 and 50 filters of 5x5, 500 units; 431,080 weights."""
    import tf_keras

    return tf_keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(20, 5),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(500, "relu"),
            layers.Dense(10, "softmax"),
        ]
    )


# --- tfmot ---------------------------------------------------------------------------------------------------------


def tfmot(budget_s: float) -> int:
    """The recipe of its guides on the rebuilt ResNet-8, each of three stages for a third of the time."""
    from benchmarks.finetune.tfmot_recipe import run

    run(load_task("fashion-mnist"), budget_s, download_bytes)
    return 0


def main() -> int:
    parts = {
        "minutes": 180.0,
        "a": 3000.0,
        "b": 3000.0,
        "c": 300.0,
        "lenet-300-100": 600.0,
        "lenet-5": 6000.0,
        "tfmot": 180.0,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--seconds", type=float, help="training time of each network")
    parser.add_argument("--recipe", type=json.loads, default={}, help="changes of the recipe, as JSON")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the LeNets")
    parser.add_argument("--runs", type=Path, help="where what the LeNets gave stays, for a run that is cut off")
    asked = parser.parse_args()
    RECIPE.update(asked.recipe)
    budget_s = asked.seconds or parts[asked.part]
    if asked.part.startswith("lenet"):
        return int(not lenet(asked.part, budget_s, asked.seeds, asked.runs))
    if asked.part in GOALS:
        return int(not resnet(asked.part, budget_s))
    return {"minutes": minutes, "tfmot": tfmot}[asked.part](budget_s)


if __name__ == "__main__":
    raise SystemExit(main())
