"""What the layer solver is worth: test accuracy of a ResNet-8 under one constraint for all layers, four ways.

The network of the task `fashion-mnist`, weights only, no labels, no training:
- simple: magnitude pruning, round-to-nearest, plain k-means (8-bit scales per output channel);
- tfmot: one-shot pruning and clustering of tensorflow-model-optimization, its weights left in float32;
- ours, independent tier and sequential reconstruction, on 512 calibration images; several draws of them.

Ours is built into a file first; the integers and scales are read back from it. All four sets of weights are
then put into the float network, so that only the weights differ: a file with integer weights would run as
dynamic range, which quantizes activations too. About 5 minutes: `python -m benchmarks.compress.solver`."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.compression.build import Builder, read_layers
from autocompress.compression.reconstruct import Reconstruction, SolvedLayer
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.specs import container_bits, load_device
from autocompress.tasks import LoadedTask, load_task
from benchmarks.compress import one_shot
from benchmarks.compress.one_shot import Weights
from benchmarks.goals import Goal, judge, print_run, print_table

PUBLISHED_FLOAT = 0.9186
CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Case:
    """One constraint and the accuracies that prototypes reached under it (their float network: .9186); of the
    sequential tier the worst and the best of a range, None where none was published."""

    name: str
    choice: LayerChoice
    simple: float
    independent: float
    sequential: tuple[float, float] | None = None


def _case(
    name: str, simple: float, independent: float, sequential: tuple[float, float] | None = None, **choice: Any
) -> Case:
    asked = LayerChoice(**({"bits": 8} | choice))
    return Case(name=name, choice=asked, simple=simple, independent=independent, sequential=sequential)


CASES = (
    _case("4 bit", 0.9074, 0.9196, bits=4),
    _case("3 bit", 0.6964, 0.906, (0.915, 0.915), bits=3),
    _case("16 clusters", 0.8815, 0.9179, clusters=16),
    _case("8 clusters", 0.6085, 0.906, (0.918, 0.918), clusters=8),
    _case("half pruned", 0.7194, 0.845, (0.913, 0.913), sparsity=0.5),
    _case("half + 16 clusters", 0.7121, 0.836, (0.912, 0.912), sparsity=0.5, clusters=16),
    _case("60 % + 8 clusters", 0.3146, 0.514, (0.902, 0.906), sparsity=0.6, clusters=8),
    _case("70 % + 16 clusters", 0.13, 0.130, (0.86, 0.887), sparsity=0.7, clusters=16),
    _case("80 % + 16 clusters", 0.10, 0.104, (0.76, 0.82), sparsity=0.8, clusters=16),
)


class Network:
    """The float network with its layers and test images: weights in, accuracy out."""

    def __init__(self, task: LoadedTask, images: int, threads: int) -> None:
        assert task.y_test is not None
        self.model, self.tree = task.network, flatbuffer.read(task.network)
        self.layers = layers_of(graph_of(self.tree))
        self._x = {name: values[:images] for name, values in task.x_test.items()}
        self._y, self._threads = task.y_test[:images], threads
        self.images = len(self._y)
        self.weights: Weights = [(self._value(layer.weight), self._value(layer.bias)) for layer in self.layers]
        self.float_accuracy = self.accuracy(self.weights)
        self.standard_error = math.sqrt(self.float_accuracy * (1 - self.float_accuracy) / self.images)

    def _value(self, index: int | None) -> Any:
        return None if index is None else flatbuffer.constant(self.tree, index)

    def accuracy(self, weights: Weights) -> float:
        """Test accuracy of the float network with these weights."""
        tree = flatbuffer.read(self.model)
        for layer, (weight, bias) in zip(self.layers, weights, strict=True):
            flatbuffer.set_constant(tree, layer.weight, weight.astype(np.float32))
            if layer.bias is not None and bias is not None:
                flatbuffer.set_constant(tree, layer.bias, bias.astype(np.float32))
        outputs = Runner(flatbuffer.write(tree), self._threads).run(self._x)
        return float((outputs.argmax(-1) == self._y).mean())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One method under one constraint: accuracies, one a draw, mean drop, least share of zeros of a layer."""

    accuracies: tuple[float, ...]
    drop: float
    zeros: float

    @property
    def accuracy(self) -> float:
        """Mean over the draws."""
        return float(np.mean(self.accuracies))

    @property
    def shown(self) -> str:
        """Mean, and half the range where there are several draws."""
        spread = f" ±{np.ptp(self.accuracies) / 2:.4f}" if len(self.accuracies) > 1 else ""
        return f"{self.accuracy:.4f}{spread}"


def judged(network: Network, several: Sequence[Weights]) -> Outcome:
    """The outcome of one method: its weights, one set a draw."""
    accuracies = tuple(network.accuracy(weights) for weights in several)
    zeros = min(float((weight == 0).mean()) for weights in several for weight, _ in weights)
    drop = network.float_accuracy - float(np.mean(accuracies))
    return Outcome(accuracies=accuracies, drop=drop, zeros=zeros)


def draws(task: LoadedTask, network: Network, seeds: int, images: int, threads: int) -> Iterator[Reconstruction]:
    """One reconstruction a draw of calibration images out of the training images."""
    assert task.train is not None
    x_train, _ = task.train()
    samples = len(next(iter(x_train.values())))
    for seed in range(seeds):
        chosen = np.random.default_rng(seed).choice(samples, images, replace=False)
        indices = Runner(network.model).input_indices
        inputs = {index: x_train[name][chosen] for name, index in indices.items()}
        yield Reconstruction(network.tree, network.layers, inputs, chunk=CHUNK, threads=threads)


def builder_of(network: Network) -> Builder:
    """The builder of files with float activations."""
    kernels = load_device("local").kernels
    return Builder(network.model, network.layers, lambda *asked: container_bits(kernels, *asked), dict)


def exported(network: Network, builder: Builder, asked: Configuration, solved: Sequence[SolvedLayer]) -> Weights:
    """Build the file (which verifies it) and take the weights out of it again; the bias as it was solved."""
    stored = read_layers(builder.build(asked, solved), network.layers)
    rows = zip(network.layers, stored, solved, strict=True)
    return [(read.weights(layer), wanted.bias) for layer, read, wanted in rows]


@dataclass(frozen=True, kw_only=True)
class Row:
    """The outcomes of one case by method."""

    case: Case
    simple: Outcome
    tfmot: Outcome | None
    independent: Outcome
    sequential: Outcome

    @property
    def zeros(self) -> float:
        """The least share of zeros of any layer in either of our tiers."""
        return min(self.independent.zeros, self.sequential.zeros)


def rows_of(
    network: Network, several: Sequence[Reconstruction], cases: Sequence[Case], with_tfmot: bool
) -> Iterator[Row]:
    """Run every case; says on standard error how far it is."""
    builder = builder_of(network)
    for case in cases:
        print(f"  {case.name} ...", file=sys.stderr, flush=True)
        asked = Configuration(layers={layer.name: case.choice for layer in network.layers})
        tiers = [[r.independent_all(asked) for r in several], [r.sequential(asked) for r in several]]
        independent, sequential = (
            judged(network, [exported(network, builder, asked, solved) for solved in tier]) for tier in tiers
        )
        yield Row(
            case=case,
            simple=judged(network, [one_shot.simple(network.weights, case.choice)]),
            tfmot=best_of_tfmot(network, case.choice) if with_tfmot else None,
            independent=independent,
            sequential=sequential,
        )


def best_of_tfmot(network: Network, choice: LayerChoice) -> Outcome | None:
    """The better of what tfmot offers; None where it offers nothing."""
    offered = one_shot.tfmot(network.tree, network.layers, choice)
    outcomes = [judged(network, [weights]) for weights in offered]
    return max(outcomes, key=lambda outcome: outcome.accuracy, default=None)


def print_accuracies(rows: Sequence[Row], network: Network) -> None:
    """Accuracy and least share of zeros of each method."""
    header = (
        "constraint",
        "simple",
        "tfmot",
        "independent",
        "sequential",
        "asked",
        "simple",
        "tfmot",
        "ours",
    )
    table = []
    for row in rows:
        tfmot = row.tfmot
        accuracies = [row.simple.shown, tfmot.shown if tfmot else "-"]
        accuracies += [row.independent.shown, row.sequential.shown]
        shares = ["-"] * 4
        if row.case.choice.sparsity:
            shares = [f"{row.case.choice.sparsity:.1f}", f"{row.simple.zeros:.4f}"]
            shares += [f"{tfmot.zeros:.4f}" if tfmot else "-", f"{row.zeros:.4f}"]
        table.append([row.case.name, *accuracies, *shares])
    title = f"Test accuracy (float {network.float_accuracy:.4f}), then the least share of zeros of any layer"
    print_table(title, header, table)


def print_drops(rows: Sequence[Row], network: Network) -> None:
    """Drop of each method beside the drop wanted of ours."""
    header = (
        "constraint",
        "simple",
        "(then)",
        "tfmot",
        "independent",
        "wanted",
        "",
        "sequential",
        "wanted",
        "",
    )
    table = []
    for row in rows:
        case = row.case
        cells = [case.name, f"{row.simple.drop:.4f}", f"({PUBLISHED_FLOAT - case.simple:.4f})"]
        cells.append(f"{row.tfmot.drop:.4f}" if row.tfmot else "-")
        cells += cells_of(row.independent.drop, (case.independent,), network.standard_error)
        cells += cells_of(row.sequential.drop, case.sequential, network.standard_error)
        table.append(cells)
    title = "Drop against the float network; wanted: what prototypes reached, of a range the best end counts"
    print_table(title, header, table)


def cells_of(drop: float, published: Sequence[float] | None, error: float) -> list[str]:
    """A drop, the wanted one with its range, and the verdict."""
    if published is None:
        return [f"{drop:.4f}", "-", ""]
    wanted = [PUBLISHED_FLOAT - accuracy for accuracy in sorted(set(published), reverse=True)]
    return [f"{drop:.4f}", " to ".join(f"{value:.4f}" for value in wanted), verdict(drop, wanted[0], error)]


def verdict(drop: float, wanted: float, error: float) -> str:
    """Whether a drop is no larger than the wanted one, outright or within one standard error."""
    if drop <= wanted:
        return "beats"
    return "matches" if drop <= wanted + error else "MISSED"


def goals_of(rows: Sequence[Row], network: Network) -> Iterator[Goal]:
    """A goal for each published drop of each tier, and one for the zeros."""
    for row in rows:
        tiers = [("independent", row.independent.drop, row.case.independent)]
        if row.case.sequential is not None:
            tiers.append(("sequential", row.sequential.drop, max(row.case.sequential)))
        for tier, drop, published in tiers:
            wanted = PUBLISHED_FLOAT - published
            said = verdict(drop, wanted, network.standard_error)
            what = f"{row.case.name}, {tier}: drop <= {wanted:.4f}"
            yield Goal(wanted=what, got=f"{drop:.4f}, {said}", met=said != "MISSED")
    short = [row.case.name for row in rows if row.zeros < row.case.choice.sparsity]
    what = "at least the asked share of zeros in every layer"
    yield Goal(wanted=what, got=", ".join(short) or "yes", met=not short)


def print_notes(network: Network) -> None:
    """How to read the tables."""
    print(f"""
  ±: half the range over the draws. Binomial standard error of an accuracy on {network.images} images:
  {network.standard_error:.4f}; 'matches': no more than that above the wanted drop (it carries .0027 itself).
  (then): the drop of the simple methods on the prototypes' network. tfmot: pruned weights stay float32, of
  its two starts of clustering (k-means++, linear) the better; it offers no bit-widths without training.""")


def main() -> int:
    """Run the table; exit code 1 where a drop is missed."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--seeds", type=int, default=3, help="calibration draws (default 3)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default 10,000, all)")
    parser.add_argument("--calibration", type=int, default=512, help="calibration images (default 512)")
    parser.add_argument("--cases", nargs="*", help="only constraints whose name contains one of these")
    parser.add_argument("--no-tfmot", action="store_true", help="leave tensorflow-model-optimization out")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    packages = () if asked.no_tfmot else one_shot.TFMOT_PACKAGES
    print_run("The layer solver on a ResNet-8, weights only", ("numpy", "ai-edge-litert", *packages))
    task = load_task("fashion-mnist")
    network = Network(task, asked.images, asked.threads)
    print(f"  {asked.seeds} draws of {asked.calibration} training images, {network.images} test images")
    several = list(draws(task, network, asked.seeds, asked.calibration, asked.threads))
    cases = [case for case in CASES if not asked.cases or any(word in case.name for word in asked.cases)]
    rows = list(rows_of(network, several, cases, not asked.no_tfmot))
    print_accuracies(rows, network)
    print_drops(rows, network)
    print_notes(network)
    return judge(list(goals_of(rows, network)))


if __name__ == "__main__":
    sys.exit(main())
