"""Which kernels of a runtime leave XNNPACK: a table, probed with single layers of two sizes an op.

`benchmarks/latency/delegation.py` prints it again and what each kernel takes against the float one of the same shape.
By ai-edge-litert's profiler (whose kernel ran) and by the DELEGATE nodes of the execution plan (tflite-runtime has no
profiler). On x86-64; which ops and types XNNPACK takes is decided where the runtime builds its graph, not by
processor."""

from __future__ import annotations

from collections.abc import Mapping

from autocompress.records.kernels import Kernel, Kernels, kernel_of, without
from autocompress.specs.device import DeviceProfile, LatencyModel

PROBED = {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"}  # the version that the table was made with
# Times of 1 x 1 and 3 x 3 layers of 12 to 64 channels against float ones, one thread.
NOT_DELEGATED: dict[str, Kernels] = {
    "ai-edge-litert": {
        "CONV_2D": ((4, "float32"), (4, "int8"), (8, "int16"), (4, "weight_only")),  # int16: 7 to 22 times
        "DEPTHWISE_CONV_2D": ((8, "float32"), (8, "int16")),  # 2.3 times; int16: 6 to 56 times
        "FULLY_CONNECTED": ((8, "int16"), (4, "weight_only")),  # 2 to 4 times; 1.2 times
        "TRANSPOSE_CONV": ((8, "int16"),),  # 7 to 8 times
    },
    # Float kernels alone: int8 takes 2 to 35 times as long, dynamic range 1.6 to 25 times, int16 3 to 32 times.
    "tflite-runtime": {
        "CONV_2D": ((8, "float32"), (4, "float32"), (8, "int8"), (4, "int8"), (8, "int16"), (4, "weight_only")),
        "DEPTHWISE_CONV_2D": ((8, "float32"), (8, "int8"), (8, "int16")),
        "FULLY_CONNECTED": ((8, "float32"), (4, "float32"), (8, "int8"), (4, "int8"), (8, "int16"), (4, "weight_only")),
        "TRANSPOSE_CONV": ((8, "float32"), (8, "int8"), (8, "int16")),
    },
}
_SAID = {"float32": "float (dynamic range)", "weight_only": "float (weight-only)"}


def not_delegated(profile: DeviceProfile) -> Kernels:
    """The kernels that XNNPACK does not take on a device: the profile's own, else those of its runtime's table."""
    if profile.not_delegated is not None:
        return profile.not_delegated
    return NOT_DELEGATED.get(profile.runtime.name, {})


def offered_kernels(profile: DeviceProfile, *, modelled: bool) -> Mapping[str, tuple[Kernel, ...]]:
    """The kernels that a search may use. Measured: all that the device has, measuring tells what they take. Modelled by
    published points: those that XNNPACK takes, for the points are of networks that it ran whole. A calibrated model was
    fitted to the device's own kernels and prices them."""
    if not modelled or not isinstance(profile.latency_model, LatencyModel):
        return profile.kernels
    return without(profile.kernels, not_delegated(profile))


def left_out_line(profile: DeviceProfile, ops: frozenset[str], activations: tuple[str, ...]) -> str | None:
    """What a search on a device that is modelled by published points leaves out for a network of these ops, and why, in
    one line; None where that is nothing. `activations`: those that it offers."""
    offered = offered_kernels(profile, modelled=True)
    gone = [
        (op, bits, kind)
        for op, pairs in profile.kernels.items()
        for bits, kind in pairs
        if op in ops and kind in activations and (bits, kind) not in offered[op]
    ]
    if not gone:
        return None
    said = ", ".join(f"{bits}-bit {op} with {_SAID.get(kind, kind)} activations" for op, bits, kind in gone)
    unpacked = all(kernel_of(offered, op, bits, kind) is not None for op, bits, kind in gone)
    instead = "its weights are unpacked when the file is loaded and run in float" if unpacked else "not offered"
    probed = f"{profile.runtime.name} {PROBED.get(profile.runtime.name, '')}".strip()
    return f"{said}: not taken by XNNPACK ({probed}), so the latency model has no price for it; {instead}"
