"""Which kernels of the runtimes here leave XNNPACK, and what each takes against the float kernel of the same layer.

Single layers of two sizes an op, one thread. What the delegate took is read from the execution plan: a layer whose
weight (or what unpacks it) is an input of a DELEGATE node. Compares with `autocompress/specs/delegation.py` and exits
with 1 where they differ. About two minutes: `python -m benchmarks.latency.delegation`."""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from autocompress.compression.template import make_template
from autocompress.devices.probe import PAIRS
from autocompress.errors import CandidateError
from autocompress.latency.host.client import Host, local_host
from autocompress.network.graph import trace
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import read_graph
from autocompress.specs.delegation import NOT_DELEGATED, PROBED

MODULES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
# Runs where a runtime may crash: prints whether a DELEGATE node reads the layer's weight, or makes its output.
_PLAN = """
import base64, importlib, json, sys
runtime = importlib.import_module(sys.argv[1] + ".interpreter")

def delegated(model):
    interpreter = runtime.Interpreter(model_content=base64.b64decode(model), num_threads=1)
    interpreter.allocate_tensors()
    ops = interpreter._get_ops_details()
    (layer,) = [op for op in ops if op["op_name"] == sys.argv[2]]
    made, read = set(map(int, layer["outputs"])), set(map(int, layer["inputs"])) - {-1}
    taken = [op for op in ops if op["op_name"] == "DELEGATE"]
    return any(made & set(map(int, op["outputs"])) or len(read & set(map(int, op["inputs"]))) > 1 for op in taken)

print(json.dumps([delegated(model) for model in json.load(sys.stdin)]))
"""


def networks() -> Iterator[tuple[str, bytes]]:
    """(size, float network) of one layer."""
    for size, side, channels in (("small", 16, 12), ("large", 32, 64)):
        net = NetworkBuilder((1, side, side, channels))
        kernel = (3, 3) if size == "small" else (1, 1)
        yield size, net.finish(net.convolution(net.input, channels, kernel, relu=False))
        net = NetworkBuilder((1, side, side, channels))
        yield size, net.finish(net.depthwise(net.input, relu=False))
        net = NetworkBuilder((1, 8 * channels))
        yield size, net.finish(net.dense(net.input, 8 * channels, relu=False))
        net = NetworkBuilder((1, side, side, min(channels, 32)))
        yield size, net.finish(net.upsample(net.input, min(channels, 32), 3, 2))


def are_delegated(runtime: str, files: Sequence[bytes], op: str) -> list[bool]:
    """Whether XNNPACK takes the one layer of each file, by the runtime's execution plan after it was made."""
    words = [sys.executable, "-c", _PLAN, MODULES[runtime], op]
    asked = json.dumps([base64.b64encode(file).decode() for file in files])
    done = subprocess.run(words, input=asked, capture_output=True, check=True, timeout=60, text=True)
    return [bool(found) for found in json.loads(done.stdout.splitlines()[-1])]


def candidate(network: bytes, layers: tuple[Layer, ...], bits: int, activations: str) -> bytes:
    """The network with its layer in this kernel; CandidateError where there is none."""
    rng = np.random.default_rng(0)
    inputs = {layers[0].input: rng.standard_normal((4, *layers[0].input_shape[1:]), dtype=np.float32)}
    ranges = trace.activation_ranges(network, inputs, chunk=1, threads=1)
    return make_template(network, layers, [bits], activations, ranges).patch.snapshot()


def table_of(runtime: str, host: Host) -> dict[str, dict[tuple[int, str], bool]]:
    """Op -> kernel -> whether it is delegated, of all that run; prints each with its time."""
    found: dict[str, dict[tuple[int, str], bool]] = {}
    for size, network in networks():
        layers = layers_of(read_graph(network))
        for bits, activations in PAIRS:
            try:
                file = candidate(network, layers, bits, activations)
                taken = host.measure(file, baseline=network, processes=1)
            except CandidateError as fault:
                print(f"{runtime} {size} {layers[0].op} [{bits}, {activations}]: {str(fault)[:80]}")
                continue
            op, delegated = layers[0].op, are_delegated(runtime, [file], layers[0].op)[0]
            found.setdefault(op, {})[bits, activations] = delegated
            where = "XNNPACK" if delegated else "built-in"
            print(f"{runtime} {size} {op} [{bits}, {activations}]: {where}, {taken.ratio_to_baseline:.2f} times float")
    return found


def differences(runtime: str, found: Mapping[str, Mapping[tuple[int, str], bool]]) -> list[str]:
    """Where what was found is not what the table says."""
    table: Mapping[str, Any] = NOT_DELEGATED[runtime]
    return [
        f"{op} {kernel}: the table says {'built-in' if kernel in table.get(op, ()) else 'XNNPACK'}"
        for op, kernels in found.items()
        for kernel, delegated in kernels.items()
        if delegated == (kernel in table.get(op, ()))
    ]


def main() -> None:
    """Print what each runtime does and compare it with the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    wrong = []
    for runtime, version in PROBED.items():
        with local_host(runtime, 1) as host:
            print(f"\n{runtime} {host.runtime_version} (the table is of {version})")
            wrong += differences(runtime, table_of(runtime, host))
    print("\n".join(wrong) if wrong else "\nas the table says")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
