"""What a download is against one that a general compressor makes: python -m benchmarks.compress.downloads [--task NAME]

Files of the task's network, all layers under the same choice (independent tier, static int8), as `download_bytes`
counts them, and as zlib's best single stream (level 9, what `gzip -9` writes) and zopfli's (15 iterations, its own
blocks) make them. Sizes in bytes, times in processor time of one core."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zopfli.zlib

from autocompress.compression import download
from autocompress.evaluate.evaluator import Evaluator
from autocompress.latency.source import Unscreened
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.measurement import Measurement
from autocompress.specs import load_device
from autocompress.tasks import load_task
from benchmarks.goals import Goal, judge, print_run, print_table

CHOICES = (
    LayerChoice(bits=8),
    LayerChoice(bits=4),
    LayerChoice(bits=3),
    LayerChoice(bits=8, sparsity=0.8, clusters=16),
    LayerChoice(bits=4, sparsity=0.8),
    LayerChoice(bits=3, sparsity=0.9),
    LayerChoice(bits=3, sparsity=0.95),
)


def files_of(task_name: str) -> list[bytes]:
    """The network under each choice."""
    task, found = load_task(task_name), []
    nothing = Measurement(latency_ms=1.0, latency_source="modelled")
    with tempfile.TemporaryDirectory() as name:
        bench = Evaluator(
            task,
            load_device("local"),
            Unscreened(lambda file, processes: nothing),
            runs=Path(name),
            artifacts=Path(name),
            seed=0,
            threads=len(os.sched_getaffinity(0)),
            tier="independent",
        )
        whole = bench.base_networks.whole
        for choice in CHOICES:
            asked = Configuration(activations="int8", layers={each.name: choice for each in bench.layers}).normalised()
            found.append(whole.builder.build(asked, whole.solve(asked, "independent")))
    return found


def timed(size: Callable[[bytes], int], file: bytes) -> tuple[int, float]:
    """A size and the processor time that it took."""
    start = time.process_time()
    return size(file), time.process_time() - start


def without_parses(file: bytes) -> int:
    """The download with zlib's strategies alone."""
    most, download._MOST_PARSED = download._MOST_PARSED, 0
    try:
        return download.download_bytes(file)
    finally:
        download._MOST_PARSED = most


def main() -> int:
    """Print the sizes; exit code 1 where a general compressor makes a smaller file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="fashion-mnist")
    asked = parser.parse_args()
    print_run("Downloads", ("zopfli", "numpy"))
    ways: tuple[Callable[[bytes], int], ...] = (
        download.download_bytes,
        without_parses,
        lambda f: len(zlib.compress(f, 9)) + 12,
        lambda f: len(zopfli.zlib.compress(f)) + 12,
    )
    table, ratios = [], []
    for choice, file in zip(CHOICES, files_of(asked.task), strict=True):
        sizes, seconds = zip(*(timed(way, file) for way in ways), strict=True)
        ratios.append([sizes[0] / other for other in sizes[1:]])
        table.append(
            [
                f"{choice.bits} bits, {choice.sparsity:.0%} zeros, {choice.clusters or 'no'} clusters",
                *map(str, sizes),
                *(f"{ratio:.3f}" for ratio in ratios[-1]),
                f"{seconds[0]:.2f}",
                f"{seconds[-1]:.2f}",
            ]
        )
    header = (
        "choice",
        "ours",
        "ours, zlib",
        "zlib 9",
        "zopfli",
        "/ ours, zlib",
        "/ zlib 9",
        "/ zopfli",
        "s",
        "zopfli s",
    )
    print_table(f"{asked.task}: bytes of downloads", header, table)
    medians = np.median(ratios, axis=0)
    names = ("zlib's strategies alone", "zlib 9", "zopfli")
    return judge(
        [
            Goal(
                wanted=f"never larger than by {name}",
                got=f"median {median:.3f}, worst {max(column):.3f}",
                met=max(column) <= 1,
            )
            for name, median, column in zip(names, medians, zip(*ratios, strict=True), strict=True)
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
