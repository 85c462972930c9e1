"""What a search is asked for, and whether that can be met at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autocompress.errors import AutocompressError, unknown_name
from autocompress.metrics import Metric
from autocompress.network.graph.layers import Layer
from autocompress.records.configuration import LayerChoice
from autocompress.records.study import OBJECTIVES, Constraint
from autocompress.search.sampler.stock import Choices
from autocompress.specs import DeviceProfile, SearchSpace, allowed_activations, allowed_choices
from autocompress.tasks import LoadedTask


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a search is asked for. `name` None: TASK-DEVICE-SPACE-SAMPLER-sSEED. `trials`: complete trials that the
    study shall hold, earlier runs included; None with a `time_budget_s`. `until_flat`: end where the hypervolume
    stands still. `words`: how the command named task, device and space, so that
    the study can be opened by its name alone."""

    task: LoadedTask
    profile: DeviceProfile
    space: SearchSpace
    latency_source: str
    runs: Path
    sampler: str = "guided"
    seed: int = 0
    name: str | None = None
    storage: str | None = None
    trials: int | None = None
    time_budget_s: float | None = None
    until_flat: bool = False
    objectives: tuple[str, ...] = ("metric", "latency", "size")
    size: str = "download"
    constraints: tuple[Constraint, ...] = ()
    threads: int = 1
    tier: str = "sequential"
    notes: tuple[str, ...] = field(default=())
    command: tuple[str, ...] = ()  # the words that started it, for the record
    words: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def study_name(self) -> str:
        """The study's name, given or made of what it is about."""
        made = f"{self.task.name}-{self.profile.name}-{self.space.name}-{self.sampler}-s{self.seed}"
        return self.name or "".join(c if c.isalnum() or c in "._-" else "_" for c in made)


def resolved(
    request: Request, layers: Sequence[Layer], sparse: Collection[str] = ()
) -> tuple[tuple[str, ...], Choices]:
    """The activations and each layer's choices that the device can run; AutocompressError where nothing is left.
    `sparse`: the names of the layers that XNNPACK has sparse kernels for."""
    modelled = request.latency_source == "modelled"
    activations = allowed_activations(request.space, request.profile, modelled=modelled)
    named = [
        layer
        for layer in layers
        if request.space.names_layer(
            name=layer.name, tensor_name=layer.tensor_name, op=layer.op, sparse_kernels=layer.name in sparse
        )
    ]
    if not named:
        names = ", ".join(layer.name for layer in layers[:8])
        raise AutocompressError(f"space '{request.space.name}' matches no layer of the network; its layers: {names}")
    choices = {
        layer.name: allowed_choices(
            request.space,
            request.profile,
            name=layer.name,
            tensor_name=layer.tensor_name,
            op=layer.op,
            modelled=modelled,
            sparse_kernels=layer.name in sparse,
        )
        for layer in layers
    }
    if all(row == (LayerChoice(),) for row in choices.values()):
        raise AutocompressError(
            f"space '{request.space.name}' leaves no choice on device '{request.profile.name}': every layer "
            "stays float; widen the space or choose another device"
        )
    return activations, choices


def check_request(request: Request) -> None:
    """AutocompressError for objectives, constraints or budgets that cannot be met by anything."""
    for name in request.objectives:
        if name not in OBJECTIVES:
            raise unknown_name("objective", name, OBJECTIVES)
    if len(set(request.objectives)) != len(request.objectives):
        raise AutocompressError(f"an objective is given twice: {', '.join(request.objectives)}; give each once")
    if request.trials is not None and request.trials < 1:
        raise AutocompressError(f"--trials must be at least 1, got {request.trials}")
    if request.time_budget_s is not None and request.time_budget_s <= 0:
        raise AutocompressError(f"--time-budget must be more than 0 s, got {request.time_budget_s:g} s")
    wanted = {*request.objectives, *(constraint.name for constraint in request.constraints)}
    if request.latency_source == "modelled" and wanted & {"memory", "peak_memory_bytes"}:
        raise AutocompressError(
            f"memory is not modelled for '{request.profile.name}'; leave it out or use a device that is measured"
        )
    if wanted & {"energy", "energy_mj"} and (request.profile.power_w is None or request.profile.power_w.busy is None):
        raise AutocompressError(f"device '{request.profile.name}' has no busy power; add power_w or leave energy out")
    _check_constraints(request.constraints, request.task.metric)


def _check_constraints(constraints: Sequence[Constraint], metric: Metric) -> None:
    lowest, highest = metric.bounds
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


def with_limits(request: Request) -> Request:
    """The request with the default of 100 trials where no budget is given; 1,000 where it ends by itself before."""
    if request.trials is None and request.time_budget_s is None:
        return replace(request, trials=1000 if request.until_flat else 100)
    return request
