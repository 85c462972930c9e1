"""Which choices of a space a device can run.

A float layer runs in float32 whatever the activations are (in a static network it stands between DEQUANTIZE
and QUANTIZE); an integer layer needs the kernel (container bits, activations)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from autocompress.errors import AutocompressError
from autocompress.records.configuration import LayerChoice
from autocompress.records.kernels import Kernels, kernel_of
from autocompress.specs.delegation import offered_kernels
from autocompress.specs.device import DeviceProfile, LatencyModel
from autocompress.specs.space import SearchSpace, unique


def container_bits(kernels: Kernels, op: str, bits: int, activations: str) -> int | None:
    """The bits that weights of `bits` are stored in on the device (`kernel_of`), None where it cannot run them."""
    kernel = kernel_of(kernels, op, bits, activations)
    return None if kernel is None else kernel[0]


def is_unpacked(kernels: Kernels, op: str, bits: int, activations: str) -> bool:
    """Whether a network of these activations, which are none that unpack weights, unpacks this layer's."""
    kernel = kernel_of(kernels, op, bits, activations)
    return activations != "weight_only" and kernel is not None and kernel[1] == "weight_only"


def sparse_containers(kernels: Kernels, activations: str) -> frozenset[int]:
    """The bits of the containers in which weights may be stored sparse under these activations of the network: those
    that the device runs DENSIFY for; float weights whatever the activations are."""
    pairs = kernels.get("DENSIFY", ())
    return frozenset(bits for bits, kind in pairs if kind == ("float32" if bits > 8 else activations))


def allowed_activations(space: SearchSpace, profile: DeviceProfile, *, modelled: bool = False) -> tuple[str, ...]:
    """The activations of the space that some op of the profile has an integer kernel for, in their order.

    `modelled`: the latency will come from the profile's model; then activations without coefficients are
    dropped too, because their latency could not be told; so is weight_only where the model's points are of whole
    float and static networks, which cannot tell it from dynamic range. A device without any integer kernel leaves
    float32.
    AutocompressError where nothing of the space remains."""
    kernels = offered_kernels(profile, modelled=modelled)
    runs = {kind for op, pairs in kernels.items() for bits, kind in pairs if bits <= 8 and op != "DENSIFY"}
    if not runs:
        return ("float32",)
    if modelled and "weight_only" in runs and isinstance(profile.latency_model, LatencyModel):
        runs.add("float32")  # where XNNPACK takes no dynamic range, all weights are unpacked
    kept = tuple(kind for kind in dict.fromkeys(space.activations) if kind in runs)
    if not kept:
        raise _nothing_left(space, profile, f"runs {_listed(runs)}")
    if not modelled or profile.latency_model is None:
        return kept
    model = profile.latency_model
    priced = {"float32", *(model.coefficients if isinstance(model, LatencyModel) else (*model.costs, "weight_only"))}
    if not priced.intersection(kept):
        raise _nothing_left(space, profile, f"has a latency model for {_listed(priced)} (else --host)")
    return tuple(kind for kind in kept if kind in priced)


def allowed_choices(
    space: SearchSpace,
    profile: DeviceProfile,
    *,
    name: str,
    tensor_name: str,
    op: str,
    modelled: bool = False,
    sparse_kernels: bool = False,
) -> tuple[LayerChoice, ...]:
    """The choices of one layer that the device can run under every one of `allowed_activations`.

    Every one, because activations are one value for the network and layer choices are drawn independently of
    it: each combination must be runnable. Where no choice is, the layer stays float32 and keeps its
    sparsities; AutocompressError where the device does not run it in float32 either."""
    activations = allowed_activations(space, profile, modelled=modelled)
    kernels = offered_kernels(profile, modelled=modelled)
    offered = space.choices(name=name, tensor_name=tensor_name, op=op, sparse_kernels=sparse_kernels)
    runnable = [
        choice
        for choice in offered
        if all(container_bits(kernels, op, choice.bits, kind) is not None for kind in activations)
    ]
    if not runnable and container_bits(kernels, op, 32, "float32") is None:
        raise AutocompressError(
            f"device '{profile.name}' runs no choice of space '{space.name}' for layer '{name}' ({op}) with "
            f"{_listed(activations)} activations, nor the float layer; add [32, float32] to its kernels for {op}, or "
            "choices that it has kernels for to the space"
        )
    return tuple(runnable) or unique(replace(choice, bits=32) for choice in offered)


def _nothing_left(space: SearchSpace, profile: DeviceProfile, what: str) -> AutocompressError:
    return AutocompressError(
        f"space '{space.name}' offers activations {_listed(space.activations)} only, but device "
        f"'{profile.name}' {what}; add one of these to the space or choose another device"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
