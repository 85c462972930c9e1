"""What a search is asked for — specification, budget, resources, provenance — and whether that can be met at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autocompress.errors import AutocompressError, unknown_name
from autocompress.metrics import Metric
from autocompress.network.graph.layers import Layer
from autocompress.records.configuration import TWO_OF_FOUR, LayerChoice
from autocompress.records.study import OBJECTIVES, ON_CHIP, Constraint, value_name
from autocompress.search.sampler.stock import Choices
from autocompress.specs import DeviceProfile, SearchSpace, allowed_activations, allowed_choices
from autocompress.tasks import LoadedTask

USUAL_OBJECTIVES = ("metric", "latency", "size")
_OF_LATENCY = {"latency", "latency_ms", "energy", "energy_mj"}


@dataclass(frozen=True, kw_only=True)
class Specification:
    """What is searched, on what, for what: all that decides a study's trials. `tier`: "sequential" (reconstruction of
    each candidate) or "independent" (screening). `size`: which size of a file counts, "download" or "file"."""

    task: LoadedTask
    profile: DeviceProfile
    space: SearchSpace
    latency_source: str  # "measured" | "modelled" | "compiled" | "none"
    sampler: str = "guided"
    seed: int = 0
    objectives: tuple[str, ...] = USUAL_OBJECTIVES
    size: str = "download"
    constraints: tuple[Constraint, ...] = ()
    tier: str = "sequential"

    @property
    def default_name(self) -> str:
        """TASK-DEVICE-SPACE-SAMPLER-sSEED, as a plain file name."""
        made = f"{self.task.name}-{self.profile.name}-{self.space.name}-{self.sampler}-s{self.seed}"
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in made)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a search ends. `trials`: complete trials that the study shall hold, earlier runs included; None with a
    `time_budget_s`. `until_flat`: where the hypervolume stands still."""

    trials: int | None = None
    time_budget_s: float | None = None
    until_flat: bool = False

    def limited(self) -> Budget:
        """With the default of 100 trials where no end is given; 1,000 where the search ends by itself before."""
        if self.trials is None and self.time_budget_s is None:
            return replace(self, trials=1000 if self.until_flat else 100)
        return self


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where a search keeps its study, and what it may use. `name` None: `Specification.default_name`. `storage`: the
    URL of Optuna's storage, None: SQLite in the study's folder. `threads` of this process."""

    runs: Path
    name: str | None = None
    storage: str | None = None
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who asked for it, and how: the words of the `command` (none from Python), `notes` for people, and how the device
    and the space were `named`."""

    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    named: Mapping[str, str | None] = field(default_factory=dict)


def resolved(
    specification: Specification, layers: Sequence[Layer], sparse: Collection[str] = ()
) -> tuple[tuple[str, ...], Choices]:
    """The activations and each layer's choices that the device can run; AutocompressError where nothing is left.
    `sparse`: the names of the layers that XNNPACK has sparse kernels for."""
    modelled = specification.latency_source == "modelled"
    activations = allowed_activations(specification.space, specification.profile, modelled=modelled)
    named = [
        layer
        for layer in layers
        if specification.space.names_layer(
            name=layer.name, tensor_name=layer.tensor_name, op=layer.op, sparse_kernels=layer.name in sparse
        )
    ]
    if not named:
        names = ", ".join(layer.name for layer in layers[:8])
        raise AutocompressError(
            f"space '{specification.space.name}' matches no layer of the network; its layers: {names}"
        )
    choices = {
        layer.name: allowed_choices(
            specification.space,
            specification.profile,
            name=layer.name,
            tensor_name=layer.tensor_name,
            op=layer.op,
            modelled=modelled,
            sparse_kernels=layer.name in sparse,
        )
        for layer in layers
    }
    for layer in layers:
        if not layer.takes_two_of_four:
            choices[layer.name] = tuple(choice for choice in choices[layer.name] if choice.granularity != TWO_OF_FOUR)
    if all(row == (LayerChoice(),) for row in choices.values()):
        raise AutocompressError(
            f"space '{specification.space.name}' leaves no choice on device '{specification.profile.name}': every "
            "layer stays float; widen the space or choose another device"
        )
    return activations, choices


def default_size(profile: DeviceProfile) -> str:
    """Which size counts where nobody says: flash where it is known, else the download."""
    return "flash" if profile.tells_flash else "download"


def objectives_for(source: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The objectives that were asked for, or else the usual ones: without latency where its `source` is "none"."""
    if asked:
        return tuple(asked)
    return tuple(name for name in USUAL_OBJECTIVES if name != "latency" or source != "none")


def latency_notes(specification: Specification) -> tuple[str, ...]:
    """That latency is left out, where it is."""
    if specification.latency_source != "none":
        return ()
    name = specification.profile.name
    if not specification.profile.tells_flash:
        return (f"latency is left out: '{name}' has neither a latency model nor a host; --host DEST measures it there",)
    left_out = f"latency is left out: '{name}' has no latency model"
    if specification.space.widths is not None or specification.size != "flash":
        return (left_out,)
    return (left_out, "flash holds the file as it is: narrow bits, clusters and zeros do not shrink it, channels do")


def check_budget(budget: Budget) -> None:
    """AutocompressError for a budget that nothing can meet."""
    if budget.trials is not None and budget.trials < 1:
        raise AutocompressError(f"--trials must be at least 1, got {budget.trials}")
    if budget.time_budget_s is not None and budget.time_budget_s <= 0:
        raise AutocompressError(f"--time-budget must be more than 0 s, got {budget.time_budget_s:g} s")


def check_specification(specification: Specification) -> None:
    """AutocompressError for objectives or constraints that cannot be met by anything."""
    for name in specification.objectives:
        if name not in OBJECTIVES:
            raise unknown_name("objective", name, OBJECTIVES)
    if len(set(specification.objectives)) != len(specification.objectives):
        raise AutocompressError(f"an objective is given twice: {', '.join(specification.objectives)}; give each once")
    wanted = {*specification.objectives, *(constraint.name for constraint in specification.constraints)}
    _check_device_values(specification, {*wanted, value_name("size", specification.size)})
    if wanted & {"energy", "energy_mj"} and (
        specification.profile.power_w is None or specification.profile.power_w.busy is None
    ):
        raise AutocompressError(
            f"device '{specification.profile.name}' has no busy power; add power_w or leave energy out"
        )
    _check_constraints(specification.constraints, specification.task.metric)


def _check_device_values(specification: Specification, wanted: Collection[str]) -> None:
    """AutocompressError for a value that the device's kind does not know: a process' memory is measured, or estimated
    where nothing else is known, flash and the arena are compiled."""
    name, source = specification.profile.name, specification.latency_source
    if source == "none" and (asked := sorted(_OF_LATENCY & set(wanted))):
        raise AutocompressError(
            f"device '{name}' has neither a latency model nor a host, so {asked[0]} is not known; add --host DEST to "
            "measure there, or leave it out"
        )
    tells_flash = specification.profile.tells_flash
    if (tells_flash or source not in ("measured", "none")) and {"memory", "peak_memory_bytes"} & set(wanted):
        instead = "ask for ram instead" if tells_flash else "use a device that is measured"
        raise AutocompressError(f"memory is that of a host's process, not that of '{name}'; leave it out or {instead}")
    if not tells_flash and {"ram", *ON_CHIP} & set(wanted):
        raise AutocompressError(
            f"flash and RAM are known of microcontrollers and of devices with a compiler, not of '{name}'; leave them "
            "out or ask for download_bytes and peak_memory_bytes"
        )


def _check_constraints(constraints: Sequence[Constraint], metric: Metric) -> None:
    lowest, highest = metric.bounds
    constraints = [each for each in constraints if each.factor is None]  # others are known with the baseline
    for constraint in constraints:
        low, high = (lowest, highest) if constraint.name == "accuracy" else (0.0, float("inf"))
        below = constraint.relation == "<=" and constraint.bound < low
        above = constraint.relation == ">=" and constraint.bound > high
        if below or above or constraint.bound != constraint.bound:
            raise AutocompressError(
                f"constraint '{constraint}' cannot be met: {constraint.name} lies in [{low:g}, {high:g}]"
            )
    for name in {constraint.name for constraint in constraints}:
        least = max([c.bound for c in constraints if (c.name, c.relation) == (name, ">=")], default=-float("inf"))
        most = min([c.bound for c in constraints if (c.name, c.relation) == (name, "<=")], default=float("inf"))
        if least > most:
            raise AutocompressError(f"constraints exclude each other: {name}>={least:g} and {name}<={most:g}")
