"""Which kernel runs a layer: the container that its weights lie in, and what they are multiplied by.

A kernel is a pair (container bits, activations), as in a device profile: (32, float32) and (16, float32) are float
kernels, (8, float32) is dynamic range (integer weights, activations rounded as they come), (8, int8) and (8, int16) are
static, (8, weight_only) is a float kernel whose weights are unpacked when the file is loaded. XNNPACK, the delegate of
the TensorFlow Lite runtimes, takes the operators that it has a fast kernel for; the others stay with the runtime's own
built-in kernels, which take up to a hundred times as long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autocompress.records.configuration import Configuration

Kernel = tuple[int, str]
Kernels = Mapping[str, Sequence[Kernel]]
# Bits that a weight can be stored in. Not 2: ai-edge-litert 2.3.0 runs a dynamic-range CONV_2D of 2-bit weights
# without a word, and its outputs are no numbers (4-bit ones are right); no other op but FULLY_CONNECTED takes them.
CONTAINERS = (32, 16, 8, 4)
DELEGATED, BUILT_IN = "XNNPACK", "built-in kernel (not delegated)"


def kernel_of(kernels: Kernels, op: str, bits: int, activations: str) -> Kernel | None:
    """The kernel that runs an op's weights of `bits` in a network of these activations, None where the device has none.

    Integers go into the smallest integer container (<= 8 bits) that holds them and that the op has a kernel for under
    these activations. Where there is none, they are unpacked when the file is loaded, if the op has a kernel for that:
    the layer is computed in float, as one of 32 bits is. 16 and 32 bits need (16, float32) and (32, float32). An op
    that is absent from `kernels` runs in float32 only."""
    if op not in kernels:
        return (32, "float32") if bits == 32 else None
    if bits > 8:
        return (bits, "float32") if (bits, "float32") in kernels[op] else None
    for kind in (activations, "weight_only"):
        fitting = [size for size, each in kernels[op] if bits <= size <= 8 and each == kind and size in CONTAINERS]
        if fitting:
            return min(fitting), kind
    return None


def is_delegated(kernel: Kernel, op: str, not_delegated: Kernels) -> bool:
    """Whether XNNPACK takes an op with this kernel, by the table of a runtime (`specs.delegation`)."""
    return kernel not in not_delegated.get(op, ())


def op_of(layer: str) -> str:
    """The op of a layer by its name: CONV_2D of conv_2d_0."""
    return layer.rsplit("_", 1)[0].upper()


def runs_where(configuration: Configuration, kernels: Kernels, not_delegated: Kernels) -> dict[str, str]:
    """Layer -> DELEGATED or BUILT_IN; a layer that no kernel runs is absent."""
    chosen = _kernels_of(configuration, kernels)
    return {
        layer: DELEGATED if is_delegated(kernel, op_of(layer), not_delegated) else BUILT_IN
        for layer, kernel in chosen.items()
    }


def kernel_risk(configuration: Configuration, kernels: Kernels, not_delegated: Kernels) -> tuple[int, int]:
    """How likely a device surprises with this configuration, to be ordered by: the layers outside the delegate, then
    those whose kernel is no float one. Of files that are level in all else the one with the least is the safest."""
    chosen = _kernels_of(configuration, kernels)
    outside = sum(not is_delegated(kernel, op_of(layer), not_delegated) for layer, kernel in chosen.items())
    return outside, sum(bits <= 8 and kind != "weight_only" for bits, kind in chosen.values())


def without(kernels: Kernels, left_out: Kernels) -> dict[str, tuple[Kernel, ...]]:
    """`kernels` without those of `left_out`."""
    return {op: tuple(k for k in pairs if k not in left_out.get(op, ())) for op, pairs in kernels.items()}


def _kernels_of(configuration: Configuration, kernels: Kernels) -> dict[str, Kernel]:
    found = configuration.normalised()
    chosen = {
        layer: kernel_of(kernels, op_of(layer), choice.bits, found.activations)
        for layer, choice in found.layers.items()
    }
    return {layer: kernel for layer, kernel in chosen.items() if kernel is not None}
