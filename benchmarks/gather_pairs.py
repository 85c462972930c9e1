"""Measure pairs of fresh processes (the int8 ResNet-8 and its float network in turn) on this machine and store them for
benchmarks/verdicts.py: python benchmarks/gather_pairs.py [PAIRS]"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from autocompress.compress.skeleton import quantize_plainly
from autocompress.files import write_whole
from autocompress.measure.host import Host, profile_host
from autocompress.network import flatbuffer, trace
from autocompress.network.layers import layers_of
from autocompress.network.run import Runner
from autocompress.specs import load_device
from autocompress.tasks import load_task

OUT = Path(__file__).with_name("pairs.json")


def plain_int8(network: bytes, x: Any) -> bytes:
    """The static int8 file that ai-edge-quantizer makes."""
    runner = Runner(network, 1)
    inputs = {index: x[name][:256] for name, index in runner.input_indices.items()}
    return quantize_plainly(
        network, layers_of(flatbuffer.read(network)), trace.activation_ranges(network, inputs, 64, 1)
    )


def pair(host: Host, model: bytes, baseline: bytes, began_s: float) -> dict[str, float]:
    """One process of each, one after the other."""
    found = host.measure(model, baseline=baseline, processes=1)
    assert found.ratio_to_baseline is not None
    assert found.peak_memory_bytes is not None
    return {
        "at_s": round(time.perf_counter() - began_s, 2),
        "int8_ms": found.latency_ms,
        "float_ms": found.latency_ms / found.ratio_to_baseline,
        "memory_bytes": found.peak_memory_bytes,
    }


def main(pairs: int) -> None:
    task = load_task("fashion-mnist")
    model = plain_int8(task.network, task.x_calibration)
    with profile_host(load_device("local")) as host:
        began_s = time.perf_counter()
        rows = [pair(host, model, task.original, began_s) for _ in range(pairs)]
        about = {"machine": host.facts["cpu"], "runtime": f"{host.runtime} {host.runtime_version}", "task": task.name}
    write_whole(OUT, (json.dumps(about | {"pairs": rows}, indent=1) + "\n").encode())
    print(f"{len(rows)} pairs in {rows[-1]['at_s']:.0f} s: {OUT}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
