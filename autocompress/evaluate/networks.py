"""The float networks that candidates are made of: the task's own, and those that lost channels.

A configuration first says which channels stay, then what is done to each layer of what is left. A network without
channels is reconstructed once and kept for the next configuration of the same widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autocompress.compression.build import Builder, Unpacks
from autocompress.compression.channel_pruning import (
    INPUT_AXIS,
    Elimination,
    eliminate,
    prunable_groups,
    prune_channels,
    width_sensitivities,
)
from autocompress.compression.reconstruct import Reconstruction, SolvedLayer
from autocompress.compression.sparse_storage import SparseStorage
from autocompress.compression.tables import Run
from autocompress.compression.template import Ranges
from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate.calibration import of_float
from autocompress.network.graph import trace
from autocompress.network.graph.channels import ChannelGroup, Channels
from autocompress.network.graph.layers import Layer
from autocompress.network.graph.segments import Segments
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.isolated import in_child
from autocompress.network.tflite.outputs import FIRST, Signature
from autocompress.records.configuration import STATIC_ACTIVATIONS, Configuration
from autocompress.specs import SearchSpace, Widths

Array = np.ndarray[Any, Any]
ContainerOf = Callable[[str, int, str], int | None]
Calibration = tuple[Mapping[int, Array], int]  # inputs by tensor index, and how many samples run at once
_MOST_KEPT = 6  # networks without channels that are kept at once


@dataclass(frozen=True, kw_only=True)
class WidthEffects:
    """What widths do: the counts that each of G groups may keep (all first), the divergence of the outputs with that
    group alone at each count, and what share of each layer's rows (`made`) and columns (`read`) are the group's
    channels, (L, G) each."""

    widths: Mapping[str, tuple[int, ...]]
    sensitivity: Mapping[str, tuple[float, ...]]
    made: Array
    read: Array


class BaseNetwork:
    """A float network and what makes candidates of it: solver, activation ranges, builder."""

    def __init__(
        self,
        network: bytes,
        layers: Sequence[Layer],
        calibration: Callable[[], Calibration],
        container: ContainerOf,
        threads: int,
        reconstruction: Reconstruction | None = None,
        storage: SparseStorage | None = None,
        unpacks: Unpacks = lambda *_: False,
    ) -> None:
        self.network, self.layers = network, tuple(layers)
        self._calibration, self._threads, self._given = calibration, threads, reconstruction
        self.builder = Builder(network, self.layers, container, lambda: self.ranges, storage, unpacks)

    @cached_property
    def reconstruction(self) -> Reconstruction:
        """The solver on this network's calibration inputs. AutocompressError where the runtime is ended by a piece of
        the network: it will run all of them in this process."""
        if self._given is not None:
            return self._given
        inputs, chunk = self._calibration()
        tree = flatbuffer.read(self.network)
        first = {index: values[:chunk] for index, values in inputs.items()}
        of_float(lambda: in_child(lambda: Segments(tree, self.layers, first, chunk, 1).run_through()))
        return Reconstruction(tree, self.layers, inputs, chunk=chunk, threads=self._threads)

    @cached_property
    def ranges(self) -> Ranges:
        """Smallest and largest value of every tensor on the calibration inputs. CandidateError where the runtime is
        ended by it."""
        inputs, chunk = self._calibration()
        return in_child(lambda: trace.activation_ranges(self.network, inputs, chunk, self._threads))

    @property
    def unbounded(self) -> tuple[str, ...]:
        """The tensors whose values were not all finite, once the ranges are known."""
        return tuple(name for name in self.__dict__.get("ranges", ()) if not trace.is_bounded(self.ranges, name))

    def solve(self, configuration: Configuration, tier: str) -> Sequence[SolvedLayer]:
        """All layers under a configuration. CandidateError where the solver cannot."""
        try:
            if tier == "independent":
                return self.reconstruction.independent_all(configuration)
            static = configuration.activations in STATIC_ACTIVATIONS
            quantize = self._quantizer(configuration.activations) if static else None
            return self.reconstruction.sequential(configuration, quantize)
        except np.linalg.LinAlgError as fault:
            raise CandidateError(f"the layer solver fails on this configuration: {fault}") from fault

    def _quantizer(self, activations: str) -> Callable[[int, Array], Array]:
        names = [tensor.name for tensor in read_graph(self.network).tensors]

        def quantize(tensor: int, values: Array) -> Array:
            if values.dtype != np.float32 or not trace.is_bounded(self.ranges, names[tensor]):
                return values
            return trace.static_quantizer(*self.ranges[names[tensor]], activations)(values)

        return quantize


class BaseNetworks:
    """The whole network, and any of it with fewer channels."""

    def __init__(
        self,
        whole: BaseNetwork,
        calibration: Callable[[], Calibration],
        container: ContainerOf,
        threads: int,
        storage: SparseStorage | None = None,
        unpacks: Unpacks = lambda *_: False,
    ) -> None:
        self.whole, self._storage, self._unpacks = whole, storage, unpacks
        self._calibration, self._container, self._threads = calibration, container, threads
        self._pruned: dict[tuple[tuple[str, int], ...], BaseNetwork] = {}
        self._eliminations: dict[str, Elimination] = {}
        self._offered: dict[str, tuple[int, ...]] = {}
        self.staying: dict[str, str] = {}  # layers that keep all channels although fewer are asked for -> why

    @cached_property
    def channels(self) -> Channels:
        """The groups of channels of the whole network."""
        return Channels(read_graph(self.whole.network))

    def widths(self, space: SearchSpace) -> dict[str, tuple[int, ...]]:
        """How many channels each group may keep, all first; groups that keep all anyway are left out.

        AutocompressError where the space asks for widths and no group can be made narrower."""
        if space.widths is None:
            return {}
        groups, reasons = prunable_groups(self.channels)
        offered = {group.name: space.widths.counts(group.channels) for group in groups}
        found = {name: counts for name, counts in offered.items() if len(counts) > 1}
        if not found:
            raise _nothing_to_prune(space, groups, reasons)
        self._offered, self.staying = found, dict(reasons)
        for group in groups:
            if group.name not in found:
                self.staying |= dict.fromkeys(group.layers, _why_whole(space.widths, group.channels))
        return found

    @property
    def widened(self) -> frozenset[str]:
        """Layers whose output scale was too fine for static int8 kernels, in the networks that are kept."""
        return frozenset[str]().union(*(each.builder.widened for each in (self.whole, *self._pruned.values())))

    def _elimination(self, group: ChannelGroup) -> Elimination:
        if group.name not in self._eliminations:
            counts = self._offered.get(group.name, ())
            self._eliminations[group.name] = eliminate(
                self.channels, group, self.whole.reconstruction.floats, counts[1:]
            )
        return self._eliminations[group.name]

    def width_effects(self, run: Run, signature: Signature = FIRST) -> WidthEffects | None:
        """What the offered widths do to layers and to the outputs of `signature`, the latter on the inputs of `run`;
        None where all channels stay."""
        if not self._offered:
            return None
        floats = self.whole.reconstruction.floats
        sensitivity = {}
        for name, counts in self._offered.items():
            found = width_sensitivities(
                self._elimination(self.channels.group(name)), floats, self.whole.network, run, signature
            )
            sensitivity[name] = tuple(found.get(count, 0.0) for count in counts)
        groups = [self.channels.group(name) for name in self._offered]
        made, read = (
            np.array([[self._share(layer, group, axis) for group in groups] for layer in self.whole.layers])
            for axis in ("made", "read")
        )
        return WidthEffects(widths=dict(self._offered), sensitivity=sensitivity, made=made, read=read)

    def _share(self, layer: Layer, group: ChannelGroup, axis: str) -> float:
        """The share of a layer's rows (made) or columns (read) that a group's channels are."""
        at = layer.output_axis if axis == "made" else INPUT_AXIS.get(layer.op)
        index = self.channels.index(group, (layer.weight, at)) if at is not None else np.zeros(0)
        return float((index >= 0).mean()) if len(index) else 0.0

    def kept(self, widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Which channels stay of each group, `widths` of them."""
        found = {}
        for name, count in widths.items():
            group = self.channels.group(name)
            if not 1 <= count <= group.channels:
                raise AutocompressError(f"channel group '{name}' has {group.channels} channels; it cannot keep {count}")
            found[name] = tuple(sorted(self._elimination(group).order[group.channels - count :].tolist()))
        return found

    def of(self, widths: Mapping[str, int]) -> BaseNetwork:
        """The network with so many channels in these groups; the whole one where nothing goes."""
        key = tuple(sorted(widths.items()))
        if not key:
            return self.whole
        base_network = self._pruned.pop(key, None) or self._made(widths)
        self._pruned[key] = base_network  # the latest stands last
        if len(self._pruned) > _MOST_KEPT:
            del self._pruned[next(iter(self._pruned))]
        return base_network

    def _made(self, widths: Mapping[str, int]) -> BaseNetwork:
        made = prune_channels(self.whole.reconstruction, self.whole.network, self.channels, self.kept(widths))
        return BaseNetwork(
            made.network,
            made.layers,
            self._calibration,
            self._container,
            self._threads,
            made.reconstruction,
            self._storage,
            self._unpacks,
        )


def _why_whole(widths: Widths, channels: int) -> str:
    if channels <= widths.divisor:
        return f"no more channels than the divisor {widths.divisor}"
    return "keep leaves them whole"


def _nothing_to_prune(
    space: SearchSpace, groups: Sequence[ChannelGroup], reasons: Mapping[str, str]
) -> AutocompressError:
    assert space.widths is not None
    asked = f"space '{space.name}' asks for fewer channels, but"
    if not groups:
        first = ", ".join(f"{name} ({reason})" for name, reason in list(reasons.items())[:4])
        return AutocompressError(f"{asked} all of this network's must stay: {first}; leave the key channels out")
    most = max(group.channels for group in groups)
    if space.widths.divisor >= most:
        return AutocompressError(
            f"{asked} its divisor {space.widths.divisor} is not smaller than the widest group of channels ({most}); "
            "choose a smaller one"
        )
    return AutocompressError(f"{asked} keep leaves every group whole; add a share below 1")
