"""Measure what benchmarks/sweep/verdicts.py draws its nights from, on this machine, and store it beside it: pairs of
fresh processes (the int8 ResNet-8 and its float network in turn), and how many validation samples a compressed network
gains and loses that is one point worse.

python -m benchmarks.sweep.gather_pairs [PAIRS]"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from autocompress.compression.template import quantize_plainly
from autocompress.evaluate.evaluator import Evaluator
from autocompress.files import write_whole
from autocompress.latency.host.client import Host, profile_host
from autocompress.latency.source import Unscreened, latency_on
from autocompress.network.graph import trace
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.specs import load_device
from autocompress.tasks import LoadedTask, load_task

OUT = Path(__file__).with_name("pairs.json")
ONE_POINT = LayerChoice(sparsity=0.6, bits=8, clusters=8)  # of every layer: .931 -> .921


def plain_int8(network: bytes, x: Any) -> bytes:
    """The static int8 file that ai-edge-quantizer makes."""
    runner = Runner(network, 1)
    inputs = {index: x[name][:256] for name, index in runner.input_indices.items()}
    ranges = trace.activation_ranges(network, inputs, 64, 1)
    return quantize_plainly(network, layers_of(read_graph(network)), ranges)


def pair(host: Host, model: bytes, baseline: bytes, began_s: float) -> dict[str, float]:
    """One process of each, one after the other."""
    found = host.measure(model, baseline=baseline, processes=1)
    assert found.ratio_to_baseline is not None
    assert found.peak_memory_bytes is not None
    return {
        "at_s": round(time.perf_counter() - began_s, 2),
        "int8_ms": round(found.known_latency_ms, 7),
        "float_ms": round(found.known_latency_ms / found.ratio_to_baseline, 7),
        "memory_bytes": found.peak_memory_bytes,
    }


def paired_samples(task: LoadedTask) -> dict[str, int]:
    """Validation samples by who has them right: both, neither, only the worse network, only the float one."""
    profile = load_device("rpi4")
    with tempfile.TemporaryDirectory() as folder, latency_on(profile) as latency:
        runs = Path(folder)
        bench = Evaluator(
            task, profile, Unscreened(latency.bind(task.original)), runs=runs, artifacts=runs, seed=0, threads=2
        )
        layers = {layer.name: ONE_POINT for layer in bench.layers}
        worse, _ = bench.evaluate(Configuration(activations="int8", layers=layers).normalised())
        was, now = bench.validation_scores(bench.baseline), bench.validation_scores(worse)
    assert was is not None
    assert now is not None
    return {
        "both": int(((was == 1) & (now == 1)).sum()),
        "neither": int(((was == 0) & (now == 0)).sum()),
        "gained": int((now > was).sum()),
        "lost": int((now < was).sum()),
    }


def main(pairs: int) -> None:
    task = load_task("fashion-mnist")
    model = plain_int8(task.network, task.x_calibration)
    with profile_host(load_device("local")) as host:
        began_s = time.perf_counter()
        rows = [pair(host, model, task.original, began_s) for _ in range(pairs)]
        about = {"machine": host.facts["cpu"], "runtime": f"{host.runtime} {host.runtime_version}", "task": task.name}
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    head = json.dumps(about | {"samples": paired_samples(task)})[:-1]
    write_whole(OUT, f'{head},\n "pairs": [\n{lines}\n ]}}\n'.encode())
    print(f"{len(rows)} pairs in {rows[-1]['at_s']:.0f} s: {OUT}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 240)
