"""Probing a device: what it is, and which kernels its runtime really has, each tried in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autocompress.compression.build import read_layers
from autocompress.compression.sparse_storage import with_sparse_weights
from autocompress.compression.template import make_template
from autocompress.errors import AutocompressError, CandidateError, DeviceError
from autocompress.latency.host.agent import RUNTIMES
from autocompress.latency.host.client import Host, profile_host
from autocompress.network.graph import trace
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.graph.xnnpack_sparse import stores_sparse
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import LAYER_OPS, graph_of, read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.specs import DeviceProfile, Runtime

Array = np.ndarray[Any, Any]
PAIRS = (
    (32, "float32"),
    (16, "float32"),
    (8, "float32"),
    (4, "float32"),
    (8, "int8"),
    (4, "int8"),
    (8, "int16"),
    (8, "weight_only"),
    (4, "weight_only"),
)
# Relative to the outputs' root mean square: float kernels sum in another order, 8-bit activations round.
MOST_ERROR = {"float": 0.01, "integer": 0.05}
MOST_SLOWDOWN = 1.5  # of a narrow container against 8 bits: else the search would pay time for bytes unasked
# Of any kernel against the float one of the same layer. What XNNPACK takes never took 2 times as long, built-in kernels
# take up to 56 times (`specs.delegation`): beyond this a kernel is slow, and no reason to compress makes up for it.
MOST_TIMES_FLOAT = 3.0
SPARSE = "DENSIFY"  # the operator of weights that are stored sparse
_SPARSE_PAIRS = ((32, "float32"), (16, "float32"), (8, "float32"), (8, "int8"))
_SAMPLES = 16


@dataclass(frozen=True, kw_only=True)
class KernelTrial:
    """One kernel tried on the device. `error`: of its outputs against a float network with the very weights of the
    file, relative to their root mean square; `latency_ms` of a small layer, `times_float` the same against its float
    kernel, interleaved; `delegated`: whether XNNPACK took it, None where the runtime has no profiler to tell; `fault`
    says why it is left out."""

    op: str
    bits: int
    activations: str
    error: float | None = None
    latency_ms: float | None = None
    times_float: float | None = None
    delegated: bool | None = None
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a probe found: a profile to measure with, what the agent said of its host, and each kernel's trial."""

    profile: DeviceProfile
    facts: Mapping[str, Any]
    kernels: tuple[KernelTrial, ...]


def probe(
    name: str,
    host: Any,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    on_kernel: Callable[[KernelTrial], None] = lambda _: None,
) -> Probed:
    """Try every kernel on a host (as a profile's `host`). `runtime`: by default the first that loads there;
    `threads`: by default all available cores. DeviceError where the host or every runtime fails."""
    profile = DeviceProfile(
        name=name,
        description="",
        runtime=Runtime(name=runtime or next(iter(RUNTIMES)), threads=1),
        host=host,
        memory_bytes=None,
        power_w=None,
        kernels={},
        latency_model=None,
    )
    loads, cores = _loading(profile, (runtime,) if runtime else tuple(RUNTIMES))
    profile = replace(profile, runtime=Runtime(name=loads, threads=threads or cores))
    with profile_host(profile) as there:
        trials = tuple(trial for op in (*LAYER_OPS, SPARSE) for trial in _tried(op, there, on_kernel))
        described = replace(
            profile,
            description=_description(there),
            cores=there.facts["cores"],
            clock_mhz=there.facts["clock_mhz"] or None,
            memory_bytes=there.facts["memory_bytes"],
            sources=_sources(there, trials),
            kernels=_table(trials),
            not_delegated=_left_by_xnnpack(trials),
        )
        return Probed(profile=described, facts=there.facts, kernels=trials)


def _loading(profile: DeviceProfile, runtimes: Sequence[str]) -> tuple[str, int]:
    """The first of the runtimes that loads there, and the cores available."""
    faults = []
    for name in runtimes:
        try:
            with profile_host(replace(profile, runtime=Runtime(name=name, threads=1))) as host:
                return name, int(host.facts["cores"])
        except DeviceError as fault:
            if "does not load" not in str(fault):
                raise
            faults.append(fault)
    raise faults[0]


def _description(there: Host) -> str:
    facts = there.facts
    what = facts["board"] or facts["cpu"] or facts["machine"]
    return (
        f"{what}, {facts['cores']} cores, {facts['os_bits']}-bit, probed with {there.runtime} {there.runtime_version}"
    )


def _sources(there: Host, trials: Sequence[KernelTrial]) -> dict[str, str]:
    told = {"cores": "available to a process there", "clock_mhz": "of the first core while it was probed"}
    slow = [f"{t.op} [{t.bits}, {t.activations}] {t.times_float:.3g}" for t in trials if _is_slow(t)]
    named = f"{there.runtime} {there.runtime_version}"
    left = f"; left out as slow, times the float kernel: {', '.join(slow)}" if slow else ""
    missing = [name for name in told if not there.facts[name]]
    return (
        {name: f"told by the device: {words}" for name, words in told.items()}
        | dict.fromkeys(missing, "the device does not tell it")
        | {"memory_bytes": "told by the device", "power_w": "never measured: write in what your board takes"}
        | {"kernels": f"each pair was run there with {named} against the float layer{left}"}
    )


def _is_slow(trial: KernelTrial) -> bool:
    """Whether an integer kernel takes much longer than the float one; float ones are what it is compared with."""
    return trial.bits <= 8 and trial.times_float is not None and trial.times_float > MOST_TIMES_FLOAT


def _tried(op: str, there: Host, on_kernel: Callable[[KernelTrial], None]) -> list[KernelTrial]:
    """All kernels of one op, the narrow containers with their time against 8 bits."""
    network = _network(op)
    trials: list[KernelTrial] = []
    layers = layers_of(read_graph(network))
    for bits, activations in _SPARSE_PAIRS if op == SPARSE else PAIRS:
        trial = replace(_trial(network, layers, bits, activations, there, sparse=op == SPARSE), op=op)
        wide = [t for t in trials if (t.bits, t.activations) == (8, activations) and t.latency_ms is not None]
        if trial.fault is None and bits < 8 and wide:
            slower = (trial.latency_ms or 0.0) / (wide[0].latency_ms or 1.0)
            if slower > MOST_SLOWDOWN:
                trial = replace(trial, fault=f"takes {slower:.1f} times as long as 8 bits")
        trials.append(trial)
        on_kernel(trial)
    return trials


def _trial(
    network: bytes, layers: Sequence[Layer], bits: int, activations: str, there: Host, *, sparse: bool
) -> KernelTrial:
    trial = KernelTrial(op=layers[0].op, bits=bits, activations=activations)
    inputs = np.random.default_rng(0).standard_normal((_SAMPLES, *layers[0].input_shape[1:]), dtype=np.float32)
    try:
        ranges = trace.activation_ranges(network, {layers[0].input: inputs}, chunk=1, threads=1)
        file = make_template(network, layers, [bits], activations, ranges).patch.snapshot()
        if sparse:
            file = with_sparse_weights(file, layers, ("FLOAT32", "FLOAT16", "INT8"), "file")
            assert stores_sparse(read_graph(file))
        outputs = there.outputs(file, [inputs])[0]
        error = _error(outputs, _reference(network, file, layers, inputs))
        trial = replace(trial, error=error)
        if not error <= MOST_ERROR["float" if bits > 8 else "integer"]:
            what = f"are off by {error:.0%}" if np.isfinite(error) else "are no numbers"
            return replace(trial, fault=f"computes something else: its outputs {what}")
        taken = there.measure(file, baseline=network, processes=1)
        trial = replace(trial, latency_ms=taken.latency_ms, times_float=taken.ratio_to_baseline)
        trial = replace(trial, delegated=_is_delegated(there, file, layers[0].op))
        slow = f"slow: takes {trial.times_float:.3g} times as long as the float kernel" if _is_slow(trial) else None
        return replace(trial, fault=slow)
    except CandidateError as fault:
        return replace(trial, fault=str(fault).split(". Error:")[0])  # the quantizer goes on for a screen


def _is_delegated(there: Host, file: bytes, op: str) -> bool | None:
    """Whether the delegate ran the layer; None where no profiler tells."""
    ops = there.profile(file).ops
    return None if ops is None else all(each.kind != "builtin" or each.kernel != op for each in ops)


def _network(op: str) -> bytes:
    """One layer with a ragged number of channels."""
    if op == SPARSE:
        net = NetworkBuilder((1, 96))
        return _with_zeros(net.finish(net.dense(net.input, 256, relu=False)))
    if op == "FULLY_CONNECTED":
        net = NetworkBuilder((1, 96))
        return net.finish(net.dense(net.input, 72, relu=False))
    net = NetworkBuilder((1, 16, 16, 12))
    made = {
        "CONV_2D": lambda: net.convolution(net.input, 20, (3, 3), relu=False),
        "DEPTHWISE_CONV_2D": lambda: net.depthwise(net.input, relu=False),
        "TRANSPOSE_CONV": lambda: net.upsample(net.input, 20, 3, 2),
    }
    return net.finish(made[op]())


def _with_zeros(network: bytes) -> bytes:
    """The network with nine tenths of its one layer's weights zero."""
    tree = flatbuffer.read(network)
    (layer,) = layers_of(graph_of(tree))
    weight = flatbuffer.constant(tree, layer.weight)
    assert weight is not None
    kept = np.random.default_rng(0).random(weight.shape) < 0.1
    flatbuffer.set_constant(tree, layer.weight, np.where(kept, weight, np.float32(0)))
    return flatbuffer.write(tree)


def _reference(network: bytes, file: bytes, layers: Sequence[Layer], inputs: Array) -> Array:
    """The outputs of the float network with the weights as they lie in `file`, on this machine's float kernels."""
    (stored,), (layer,) = read_layers(file, layers), layers
    tree = flatbuffer.read(network)
    flatbuffer.set_constant(tree, layer.weight, stored.weights(layer).astype(np.float32))
    return _run(flatbuffer.write(tree), inputs)


def _run(network: bytes, inputs: Array) -> Array:
    runner = Runner(network)
    return runner.run({runner.inputs[0].name: inputs})


def _error(outputs: Array, wanted: Array) -> float:
    """Root mean square of the difference over that of what is wanted; infinite where an output is no number."""
    if outputs.shape != wanted.shape or not np.isfinite(outputs).all():
        return float("inf")
    return float(np.sqrt(np.mean((outputs - wanted) ** 2) / np.mean(wanted**2)))


def _left_by_xnnpack(trials: Sequence[KernelTrial]) -> dict[str, tuple[tuple[int, str], ...]] | None:
    """The working kernels that stay with the runtime; None where nothing told, then the runtime's table holds."""
    told = [trial for trial in trials if trial.fault is None and trial.delegated is not None]
    left = [trial for trial in told if not trial.delegated and trial.op != SPARSE]
    ops = dict.fromkeys(trial.op for trial in left)
    return {op: tuple((t.bits, t.activations) for t in left if t.op == op) for op in ops} if told else None


def _table(trials: Sequence[KernelTrial]) -> dict[str, tuple[tuple[int, str], ...]]:
    working = [trial for trial in trials if trial.fault is None]
    table = {op: tuple((t.bits, t.activations) for t in working if t.op == op) for op in (*LAYER_OPS, SPARSE)}
    if not any(table[op] for op in LAYER_OPS):
        raise AutocompressError("no kernel works there: " + (trials[0].fault or "") + "; install another runtime")
    return {op: pairs for op, pairs in table.items() if pairs}
