"""How long the builder takes for a ResNet-8: file and verification, beside ai-edge-quantizer's own call.

For patterns of containers and activations: the first build of a pattern (ai-edge-quantizer makes its
template), the next ones (our values written into it), and in the same first build the time inside
ai-edge-quantizer, from its constructor to the end of `quantize()`. Repeated with fresh builders,
patterns in turn.
Under a minute: `python -m benchmarks.compress.builder`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from autocompress.compression.build import Builder
from autocompress.compression.reconstruct import Reconstruction, SolvedLayer
from autocompress.network.graph import trace
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.tasks import load_task
from benchmarks.goals import Goal, judge, print_run, print_table

GOAL_MS = 50.0
CHUNK = 64
CONTAINERS = {32: 32, 16: 16, 8: 8, 6: 8, 4: 4, 3: 4}  # 4-bit containers too, so that every kind is built

# Bits of the layers (in turn, over and over) and activations. Half of the weights are zeros; 16 clusters.
PATTERNS = {
    "dynamic range, 8 bit": ((8,), "float32"),
    "static int8, 8 bit": ((8,), "int8"),
    "dynamic range, 4-bit containers": ((4,), "float32"),
    "mixed float and static int8": ((8, 32, 6), "int8"),
    "mixed float, float16, 8 and 4 bit": ((32, 8, 16, 3), "float32"),
}


@dataclass(kw_only=True)
class Times:
    """Milliseconds of one pattern: first builds, later ones, and ai-edge-quantizer's share of the first."""

    first: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    quantizer: list[float] = field(default_factory=list)


class Bench:
    """The network, solved once for each pattern; `run` times one round of all patterns."""

    def __init__(self, calibration: int, threads: int) -> None:
        task = load_task("fashion-mnist")
        tree = flatbuffer.read(task.network)
        self._model, self._layers = task.network, layers_of(graph_of(tree))
        indices = Runner(task.network).input_indices
        inputs = {index: task.x_calibration[name][:calibration] for name, index in indices.items()}
        self._ranges = trace.activation_ranges(task.network, inputs, CHUNK, threads)
        solver = Reconstruction(tree, self._layers, inputs, chunk=CHUNK, threads=threads)
        self._asked = {name: self._configuration(*pattern) for name, pattern in PATTERNS.items()}
        self._solved = {name: solver.independent_all(asked) for name, asked in self._asked.items()}
        self.times = {name: Times() for name in PATTERNS}

    def _configuration(self, bits: Sequence[int], activations: str) -> Configuration:
        choices = [
            LayerChoice(sparsity=0.5, bits=bits[n % len(bits)], clusters=16).normalised()
            for n in range(len(self._layers))
        ]
        names = [layer.name for layer in self._layers]
        return Configuration(activations=activations, layers=dict(zip(names, choices, strict=True)))

    def run(self, warm: int) -> None:
        """One first build and `warm` more of every pattern."""
        for name, times in self.times.items():
            builder = Builder(
                self._model,
                self._layers,
                lambda op, bits, activations: CONTAINERS[bits],
                lambda: self._ranges,
            )
            asked, solved = self._asked[name], self._solved[name]
            with timed_quantizer() as inside:
                times.first.append(build_ms(builder, asked, solved))
            times.quantizer.append(sum(inside))
            times.warm += [build_ms(builder, asked, solved) for _ in range(warm)]


def build_ms(builder: Builder, asked: Configuration, solved: Sequence[SolvedLayer]) -> float:
    """Milliseconds to build and verify one file."""
    start = time.perf_counter()
    builder.build(asked, solved)
    return (time.perf_counter() - start) * 1e3


@contextlib.contextmanager
def timed_quantizer() -> Iterator[list[float]]:
    """Milliseconds from ai-edge-quantizer's constructor to the end of `quantize()`, one number a call."""
    from ai_edge_quantizer import quantizer

    found: list[float] = []

    class Timed(quantizer.Quantizer):  # type: ignore[misc]
        def __init__(self, *args: object, **kwargs: object) -> None:
            self.start = time.perf_counter()
            super().__init__(*args, **kwargs)

        def quantize(self, *args: object, **kwargs: object) -> object:
            result = super().quantize(*args, **kwargs)
            found.append((time.perf_counter() - self.start) * 1e3)
            return result

    original = quantizer.Quantizer
    quantizer.Quantizer = Timed
    try:
        yield found
    finally:
        quantizer.Quantizer = original


def print_times(times: dict[str, Times]) -> None:
    """Medians of each pattern, and ours against ai-edge-quantizer's."""
    table = []
    for name, each in times.items():
        first, warm, quantizer = (float(np.median(values)) for values in (each.first, each.warm, each.quantizer))
        low, high = np.quantile(each.warm, (0.25, 0.75))
        cells = [name, f"{quantizer / warm:.1f}", f"{quantizer / first:.2f}", f"{warm:.1f}"]
        table.append([*cells, f"{low:.1f}-{high:.1f}", f"{first:.1f}", f"{max(each.first):.1f}", f"{quantizer:.1f}"])
    header = (
        "pattern",
        "theirs/warm",
        "theirs/first",
        "warm ms",
        "quartiles",
        "first ms",
        "most",
        "quantize() ms",
    )
    print_table("Build and verification against ai-edge-quantizer's own call (medians)", header, table)


def goals_of(times: dict[str, Times]) -> list[Goal]:
    """A goal for the first and for later builds of each pattern."""
    goals = []
    for name, each in times.items():
        for kind, values in (("warm", each.warm), ("first of the pattern", each.first)):
            median = float(np.median(values))
            wanted = f"{name}, {kind}: median <= {GOAL_MS:g} ms"
            goals.append(Goal(wanted=wanted, got=f"{median:.1f} ms", met=median <= GOAL_MS))
    return goals


def main() -> int:
    """Time all patterns; exit code 1 where one takes too long."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--repeats", type=int, default=9, help="fresh builders (default 9)")
    parser.add_argument("--warm", type=int, default=10, help="further builds of each (default 10)")
    parser.add_argument("--calibration", type=int, default=128, help="calibration images (default 128)")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    print_run("Building a ResNet-8", ("ai-edge-quantizer", "ai-edge-litert", "numpy"))
    bench = Bench(asked.calibration, asked.threads)
    bench.run(warm=0)  # imports and first calls of everything: not counted
    bench.times = {name: Times() for name in PATTERNS}
    for _ in range(asked.repeats):
        bench.run(asked.warm)
    print(f"  {asked.repeats} fresh builders, each with {asked.warm} further builds of every pattern")
    print_times(bench.times)
    return judge(goals_of(bench.times))


if __name__ == "__main__":
    sys.exit(main())
