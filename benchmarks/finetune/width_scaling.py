"""Channels taken out of a trained network against the same network made narrower as a whole and trained from scratch
as long: test accuracy at equal latency on `local`, three points.

    python -m benchmarks.finetune.width_scaling [--images N] [--base-epochs N] [--epochs N] [--seconds S] [--latency
    SHARE...]
                                       [--seeds N...] [--runs DIR]

Ours: the ResNet-8 of fashion-mnist, its groups of channels narrowed to a share of its latency (`--widths chosen`: the
widths that the layer tables say cost least of those measured within the share, `uniform`: the same share of every
group), the layers behind fitted again, then fine-tuned; the state is chosen on the last 10 % of the training images.
Each training image may be mirrored (`--augment mirror`), as in the recipe of the network.
The other side: `train.py`'s network with all blocks scaled by one factor, the recipe of `train.py` for as many epochs
as the original took plus what the fine-tuning looked at, rounded up, on all training images, the last state. The
factor: the largest whose file takes at most 3 % longer than ours, but none that is faster.
Both float networks become files of each kind in the same way (int8: static, by the sequential reconstruction, without
training). Latencies: `local`, ours and the other in turn, in fresh processes. With several seeds both sides are trained
with each, and their test images count together. Test data are looked at last.
With `--runs DIR` the trained networks stay there, and a run that was cut off trains what is missing."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the first import of TensorFlow

import numpy as np

from autocompress import stats
from autocompress.evaluate.evaluator import Evaluator
from autocompress.finetune.recipe import Lesson, Progress, Recipe
from autocompress.finetune.train import finetune
from autocompress.latency.host.client import Host
from autocompress.latency.source import FRONT_PROCESSES, SEARCH_PROCESSES, LatencySource, Unscreened, latency_on
from autocompress.network.graph.channels import prune
from autocompress.network.graph.kernel_pattern import kernel_pattern
from autocompress.network.graph.layers import layers_of
from autocompress.network.keras import model as keras_model
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.measurement import Measurement
from autocompress.specs import SearchSpace, Widths, load_device
from autocompress.tasks import load_task
from autocompress.tasks.fashion_mnist import TRAINING_IMAGES
from autocompress.tasks.fashion_mnist import train as recipe_of_the_network
from autocompress.tasks.task import LoadedTask
from benchmarks.goals import Goal, judge, print_run, print_table

Array = np.ndarray[Any, Any]
KINDS = {"float32": LayerChoice(), "int8": LayerChoice(bits=8)}  # activations -> choice of all layers
LONGER, NOISE = 1.03, 1.02
MEASURED = 16  # of the offered widths
HELD_OUT = 0.1
_OWN = tempfile.TemporaryDirectory(prefix="autocompress-widths-")  # gone when the process ends
FOLDER = Path(_OWN.name)


@dataclass(kw_only=True)
class Side:
    """A trained float network (normalised), its channels in words, and the epochs it was trained for, the original's
    included."""

    network: bytes
    channels: str
    epochs: float

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in layers_of(read_graph(self.network)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A point in one kind of file: both sides (of the first seed), who has which test image right (with all seeds), and
    the latencies."""

    share: float
    kind: str
    ours: Side
    other: Side
    scores: tuple[Array, Array]
    ours_ms: float
    ratio: float  # the other's latency over ours
    ratio_interval: tuple[float, float]

    @property
    def gain(self) -> float:
        """Accuracy of ours less the other's."""
        return float(self.scores[0].mean() - self.scores[1].mean())


# --- files


def bench_of(task: LoadedTask, network: bytes) -> Evaluator:
    """An evaluator for a network on the data of the task; it measures nothing."""
    nothing = Measurement(latency_ms=1.0, latency_source="modelled")
    changed = dataclasses.replace(task, network=network, original=network)
    return Evaluator(
        changed,
        load_device("local"),
        Unscreened(lambda file, processes: nothing),
        runs=FOLDER,
        artifacts=FOLDER / "artifacts",
        seed=0,
        threads=len(os.sched_getaffinity(0)),
    )


def file_of(task: LoadedTask, network: bytes, kind: str) -> bytes:
    """A float network as a file of this kind."""
    if kind == "float32":
        return network
    bench = bench_of(task, network)
    asked = Configuration(activations=kind, layers={layer.name: KINDS[kind] for layer in bench.layers})
    whole = bench.base_networks.whole
    return whole.builder.build(asked, whole.solve(asked, "sequential"))


# --- ours


def layer_times(host: Host, bench: Evaluator, network: bytes) -> dict[str, float]:
    """Microseconds of each layer of a network on the device, and of all else as "rest"."""
    found = host.profile(network)
    if found.ops is None or found.reason is not None:
        raise SystemExit(f"no layer's time is known: {found.reason}; choose with --widths uniform")
    times = {layer.name: 0.0 for layer in bench.layers} | {"rest": 0.0}
    for op in found.ops:
        times[op.layer or "rest"] += op.median_us
    return times


def offered_widths(bench: Evaluator, times: dict[str, float]) -> tuple[list[dict[str, int]], Array]:
    """Widths of all groups, those alone that nothing else beats in both sensitivity by the layer tables (each group
    alone, added up) and expected latency (a layer's time goes with its multiply-accumulates), the least sensitivity
    first; and their expected latencies."""
    found = bench.width_effects()
    assert found is not None
    names, counts = list(found.widths), [np.array(row) for row in found.widths.values()]
    grids = [grid.reshape(-1) for grid in np.meshgrid(*map(range, map(len, counts)), indexing="ij")]
    left = np.array([row[at] / row[0] for row, at in zip(counts, grids, strict=True)])
    sensitivity = sum(np.array(found.sensitivity[name])[at] for name, at in zip(names, grids, strict=True))
    rows, columns = (1 - share_of @ (1 - left) for share_of in (found.made, found.read))
    expected = times["rest"] + np.array([times[layer.name] for layer in bench.layers]) @ (rows * columns)
    order = np.lexsort((expected, sensitivity))
    fastest = np.minimum.accumulate(expected[order])
    front = order[np.flatnonzero(np.diff(fastest, prepend=np.inf) < 0)][1:]  # but the whole network
    widths = [
        {name: int(row[at[n]]) for name, row, at in zip(names, counts, grids, strict=True) if at[n]} for n in front
    ]
    return widths, expected[front]


def chosen_widths(
    bench: Evaluator, base: bytes, shares: Sequence[float], source: LatencySource
) -> dict[float, dict[str, int]]:
    """For each share of the base's latency the first of the offered widths that keeps within it by a line through
    measured latencies over the expected ones: a measurement alone is off by a tenth, and the first that seems fast
    enough would be an outlier."""
    assert source.host is not None
    measure, whole = source.bind(base), bench.float_configuration()
    offers, expected = offered_widths(bench, layer_times(source.host.host, bench, base))
    ratios = np.full(len(offers), math.nan)
    for n in np.unique(np.linspace(0, len(offers) - 1, MEASURED).round().astype(int)):
        network = bench.material(Configuration(layers=whole.layers, channels=offers[n])).network
        ratios[n] = measure(network, SEARCH_PROCESSES).ratio_to_baseline
    known = np.isfinite(ratios)
    line = np.polyval(np.polyfit(expected[known], ratios[known], 1), expected)
    for n in np.flatnonzero(known):
        counts = " ".join(map(str, offers[n].values()))
        print(f"  {counts}: {line[n]:.3f} of the latency by the line, {ratios[n]:.3f} measured", flush=True)
    if line.min() > min(shares):
        raise SystemExit(f"no widths have {min(shares):.0%} of the latency; give a larger share or a smaller --divisor")
    return {share: offers[int(np.argmax(line <= share))] for share in shares}


def uniform_widths(bench: Evaluator, share: float) -> dict[str, int]:
    """About the same share of every group, so that the multiply-accumulates are `share`, which the latency need not
    be."""
    factor = math.sqrt(share)
    groups = bench.base_networks.channels.groups
    return {group.name: max(1, round(factor * group.channels)) for group in groups}


def plans(
    task: LoadedTask, base: Side, source: LatencySource, asked: argparse.Namespace
) -> dict[float, dict[str, int]]:
    """The widths of each share of the base's latency, before anything is trained; of a former run what it chose, for
    latencies differ a little each time."""
    path = None if asked.runs is None else asked.runs / f"{asked.widths}-by-{asked.divisor}.json"
    known = {} if path is None or not path.exists() else json.loads(path.read_text())
    if missing := [share for share in asked.latency if f"{share:g}" not in known]:
        bench = bench_of(task, base.network)
        keep = tuple(n / 64 for n in range(1, 65))
        bench.base_networks.widths(SearchSpace(name="widths", widths=Widths(keep=keep, divisor=asked.divisor)))
        if asked.widths == "uniform":
            found = {share: uniform_widths(bench, share) for share in missing}
        else:
            found = chosen_widths(bench, base.network, missing, source)
        known |= {f"{share:g}": widths for share, widths in found.items()}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(known))
    return {share: known[f"{share:g}"] for share in asked.latency}


def ours(
    task: LoadedTask, base: Side, share: float, widths: dict[str, int], asked: argparse.Namespace, seed: int
) -> Side:
    """The base with these widths, fine-tuned."""
    bench = bench_of(task, base.network)
    configuration = Configuration(layers=bench.float_configuration().layers, channels=widths)
    material, lesson = bench.material(configuration), lesson_of(task, asked.images)
    recipe = Recipe(
        loss=asked.loss,
        learning_rate=asked.learning_rate,
        batch=asked.batch,
        budget_s=asked.seconds,
        epochs=asked.epochs,
        seed=seed,
        augment=("mirror",),
    )
    found = finetune(
        material.network,
        material.layers,
        configuration,
        material.solved,
        lesson,
        task.metric,
        recipe,
        ranges=None,
        path=FOLDER / "state.npz",
        watch=Printer(f"ours, {share:.0%}, seed {seed}"),
        teacher=material.teacher,
    )
    weights = [(solved.weight, solved.bias) for solved in found.layers]
    losses = f"{found.loss_before:.4f} -> {found.loss_after:.4f}"
    print(
        f"  ours, {share:.0%}, seed {seed}: {found.steps} steps in {found.seconds:.0f} s, held-out loss {losses}",
        flush=True,
    )
    whole = {group.name: group.channels for group in bench.base_networks.channels.groups}
    return Side(
        network=keras_model.with_weights(material.network, material.layers, weights),
        channels=" ".join(str(count) for count in (whole | widths).values()),
        epochs=base.epochs + found.epochs * (1 - HELD_OUT),
    )


def kept(name: str, runs: Path | None, how: list[Any], make: Callable[[], Side]) -> Side:
    """What a former run has trained in the same way, or what `make` trains now."""
    if runs is None:
        return make()
    facts = runs / f"{name}.json"
    if facts.exists():
        known = json.loads(facts.read_text())
        if known["how"] == how:
            print(f"  {name}: trained before", flush=True)
            return Side(
                network=facts.with_suffix(".tflite").read_bytes(), channels=known["channels"], epochs=known["epochs"]
            )
    made = make()
    runs.mkdir(parents=True, exist_ok=True)
    facts.with_suffix(".tflite").write_bytes(made.network)
    facts.write_text(json.dumps({"how": how, "channels": made.channels, "epochs": made.epochs}))
    return made


def lesson_of(task: LoadedTask, images: int) -> Lesson:
    """The first images."""
    assert task.train is not None
    x, y = task.train()
    assert y is not None
    return Lesson(x={name: values[:images] for name, values in x.items()}, y=y[:images])


class Printer:
    """A line at every tenth of a training."""

    def __init__(self, name: str) -> None:
        self._name, self._tenth = name, 0

    def __call__(self, now: Progress) -> None:
        if int(10 * now.share) > self._tenth:
            self._tenth = int(10 * now.share)
            best = math.nan if now.best_loss is None else now.best_loss
            print(f"  {self._name}: {now.share:.0%}, held-out loss {best:.4f}", file=sys.stderr, flush=True)


# --- the other side


def from_scratch(task: LoadedTask, widths: Sequence[int], epochs: int, asked: argparse.Namespace, seed: int) -> Side:
    """A network of these widths by the recipe of `train.py`."""
    import keras as keras_3
    import tensorflow as tf

    assert task.train is not None
    x, y = next(iter(task.train()[0].values())), task.train()[1]
    assert y is not None
    keras_3.backend.clear_session()  # numbers its names anew: the input is called as in the task's network
    keras_3.utils.set_random_seed(seed)
    network = recipe_of_the_network.build(widths)
    recipe_of_the_network.fit(network, x[: asked.images], y[: asked.images], epochs, verbose=0)
    model = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    return Side(network=flatbuffer.normalise(model), channels=" ".join(map(str, widths)), epochs=epochs)


def scaled(factor: float) -> tuple[int, ...]:
    """The widths of the blocks at this factor."""
    return tuple(max(1, round(factor * width)) for width in recipe_of_the_network.WIDTHS)


def equal_factor(
    task: LoadedTask, base: Side, measured: Callable[[bytes], float], kind: str, start: float, steps: int
) -> tuple[int, ...]:
    """Widths of the largest factor, a multiple of 1 / `steps`, at which the file takes at most LONGER x ours, of those
    that do not take less; the smallest that takes longer where there is none. `measured`: a file's latency over
    ours."""
    ratios: dict[int, float] = {}

    def ratio(step: int) -> float:
        if step not in ratios:
            ratios[step] = measured(file_of(task, narrowed_as_a_whole(base, step / steps), kind))
            print(f"  factor {step}/{steps}: {ratios[step]:.3f} x ours", file=sys.stderr, flush=True)
        return ratios[step]

    step = max(1, min(steps, round(start * steps)))
    while step > 1 and ratio(step) >= 1:
        step -= 1
    beyond = 0
    for larger in range(step, steps + 1):
        beyond = beyond + 1 if ratio(larger) > LONGER else 0
        if beyond == 2:
            break
    slower = {n: value for n, value in ratios.items() if value >= 1} or {max(ratios): ratios[max(ratios)]}
    near = [n for n, value in slower.items() if value <= LONGER]
    return scaled((max(near) if near else min(slower)) / steps)


def narrowed_as_a_whole(base: Side, factor: float) -> bytes:
    """The base with the first channels of each group only: it runs what a network of this factor runs."""
    from autocompress.network.graph.channels import Channels

    groups = Channels(read_graph(base.network)).groups
    kept = {group.name: range(max(1, round(factor * group.channels))) for group in groups}
    return prune(base.network, kept)


# --- both


def point(
    task: LoadedTask,
    base: Side,
    share: float,
    widths_of_ours: dict[str, int],
    source: LatencySource,
    asked: argparse.Namespace,
) -> list[Row]:
    """One point in each kind of file."""
    own = [trained_ours(task, base, share, widths_of_ours, asked, seed) for seed in asked.seeds]
    rows = []
    for kind in asked.kinds:
        files = [file_of(task, side.network, kind) for side in own]
        file = files[0]
        measure = source.bind(file)

        def over_ours(
            other: bytes, processes: int = SEARCH_PROCESSES, measure: Any = measure, file: bytes = file
        ) -> float:
            if kernel_pattern(other) == kernel_pattern(file):  # the same kernels on the same sizes
                return 1.0
            return float(measure(other, processes).ratio_to_baseline)

        widths = equal_factor(task, base, over_ours, kind, math.sqrt(share), asked.steps)
        epochs = math.ceil(own[0].epochs - 1e-6)
        others = [trained_from_scratch(task, widths, epochs, asked, seed) for seed in asked.seeds]
        against = [file_of(task, side.network, kind) for side in others]
        found = measure(against[0], FRONT_PROCESSES)
        assert found.ratio_to_baseline is not None
        rows.append(
            Row(
                share=share,
                kind=kind,
                ours=own[0],
                other=others[0],
                scores=(scores(task, files), scores(task, against)),
                ours_ms=found.known_latency_ms / found.ratio_to_baseline,
                ratio=found.ratio_to_baseline,
                ratio_interval=found.ratio_ci or (math.nan, math.nan),
            )
        )
    return rows


def trained_ours(
    task: LoadedTask, base: Side, share: float, widths: dict[str, int], asked: argparse.Namespace, seed: int
) -> Side:
    """Ours with this seed, now or by a former run."""
    how = [
        asked.images,
        asked.base_epochs,
        seed,
        asked.epochs,
        asked.seconds,
        asked.loss,
        asked.learning_rate,
        asked.batch,
        widths,
    ]
    return kept(f"ours-{share:g}-seed-{seed}", asked.runs, how, lambda: ours(task, base, share, widths, asked, seed))


def trained_from_scratch(
    task: LoadedTask, widths: tuple[int, ...], epochs: int, asked: argparse.Namespace, seed: int
) -> Side:
    """The other side with this seed, now, by a former run, or for another kind of file."""
    print(f"  the other side: widths {widths}, {epochs} epochs from scratch, seed {seed}", flush=True)
    name = "-".join(map(str, ("scaled", *widths, "epochs", epochs, "seed", seed)))
    how = [asked.images, asked.base_epochs, seed]
    return kept(name, asked.runs or FOLDER, how, lambda: from_scratch(task, widths, epochs, asked, seed))


def scores(task: LoadedTask, files: Sequence[bytes]) -> Array:
    """Which test images the files have right, one file behind the other."""
    threads = len(os.sched_getaffinity(0))
    outputs = [Runner(file, threads).run(task.x_test) for file in files]
    found: Array = np.concatenate([each.argmax(1) == task.y_test for each in outputs]).astype(float)
    return found


def shown(row: Row) -> list[str]:
    """A row of the table."""
    low, high = row.ratio_interval
    own, other = row.ours, row.other
    return [
        f"{row.share:.0%}",
        row.kind,
        own.channels,
        f"{own.macs / 1e6:.2f}",
        f"{own.epochs:.1f}",
        f"{row.scores[0].mean():.4f}",
        f"{row.ours_ms:.4f}",
        other.channels,
        f"{other.macs / 1e6:.2f}",
        f"{other.epochs:.0f}",
        f"{row.scores[1].mean():.4f}",
        f"{row.ratio:.3f} [{low:.3f}, {high:.3f}]",
    ]


def goal_of(row: Row) -> Goal:
    """Better accuracy, and a latency that is no longer but for noise."""
    low, high = stats.paired_interval(row.scores[1], row.scores[0], 0)
    return Goal(
        wanted=f"{row.kind}, {row.share:.0%} of the latency: more accurate than scaled widths at equal latency",
        got=f"{row.gain:+.4f} (paired 95 % {low:+.4f} to {high:+.4f}), the other's latency {row.ratio:.3f} x ours",
        met=row.gain > 0 and row.ratio >= 1 / NOISE,
    )


def base_of(task: LoadedTask, asked: argparse.Namespace) -> Side:
    """The network of the task; with fewer images or epochs one of its own."""
    if (asked.images, asked.base_epochs) == (TRAINING_IMAGES, recipe_of_the_network.EPOCHS):
        widths = " ".join(map(str, recipe_of_the_network.WIDTHS))
        return Side(network=task.network, channels=widths, epochs=asked.base_epochs)
    print(f"  the original: {asked.base_epochs} epochs of {asked.images:,} images", flush=True)
    return from_scratch(task, recipe_of_the_network.WIDTHS, asked.base_epochs, asked, asked.seeds[0])


def arguments() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--images", type=int, default=TRAINING_IMAGES, help="training images, for both sides")
    parser.add_argument("--base-epochs", type=int, default=recipe_of_the_network.EPOCHS)
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning, at most")
    parser.add_argument("--seconds", type=float, default=1800.0, help="of fine-tuning a point, at most")
    parser.add_argument("--latency", type=float, nargs="+", default=[0.65, 0.55, 0.45], help="shares of the base's")
    parser.add_argument("--widths", choices=("chosen", "uniform"), default="chosen")
    parser.add_argument("--steps", type=int, default=32, help="factors of the other side are whole shares of it")
    parser.add_argument("--divisor", type=int, default=8, help="chosen widths are multiples of it")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--loss", choices=("distillation", "labels", "both"), default="both")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, help="where trained networks stay")
    return parser.parse_args()


def main() -> int:
    """Print the points; exit code 1 where one is not better."""
    asked = arguments()
    print_run("Fewer channels against scaled widths", ("ai-edge-litert", "tensorflow", "keras"))
    print(
        f"  fashion-mnist on local; {asked.images:,} training images, {asked.base_epochs} + at most {asked.epochs} "
        f"epochs, widths {asked.widths}, loss {asked.loss}, seeds {asked.seeds}",
        flush=True,
    )
    task = load_task("fashion-mnist")
    base = base_of(task, asked)
    print(f"  float network: test accuracy {scores(task, [base.network]).mean():.4f}, {base.macs / 1e6:.2f} MMAC")
    with latency_on(load_device("local")) as source:
        widths = plans(task, base, source, asked)
        points = (point(task, base, share, widths[share], source, asked) for share in asked.latency)
        rows = list(itertools.chain.from_iterable(points))
    header = (
        "share",
        "kind",
        "channels",
        "MMAC",
        "epochs",
        "accuracy",
        "ms",
        "scaled to",
        "MMAC",
        "epochs",
        "accuracy",
        "its latency / ours",
    )
    print_table("Ours, and the same network scaled as a whole (test accuracy)", header, [shown(row) for row in rows])
    return judge([goal_of(row) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
