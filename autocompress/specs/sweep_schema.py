"""The YAML of a sweep, strictly checked. Paths in it count from the file's own folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from autocompress.errors import AutocompressError, faulty_file
from autocompress.specs import packed, user_profiles
from autocompress.specs.duration import seconds
from autocompress.specs.faults import hint, shown
from autocompress.specs.space_schema import Name, SchemaOne, Strict
from autocompress.specs.sweep import Sweep, SweepBudget, SweepDevice, SweepSpace, SweepTask, VerdictRules


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{shown(value)} is no duration; write it as 90s, 10m or 1h30m{hint(value)}")
    try:
        found = seconds(str(value))
    except AutocompressError as fault:
        raise ValueError(f"{shown(value)} is no duration; write it as 90s, 10m or 1h30m") from fault
    if found <= 0:
        raise ValueError(f"{shown(value)} is no time at all; write it as 90s, 10m or 1h30m")
    return found


def _known(kind: str, word: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if isinstance(value, str) and not value.endswith((".yaml", ".yml")):
            own = user_profiles.folder() if kind == "device_profiles" else None
            try:
                packed.find(kind, word, value, own)
            except AutocompressError as fault:
                raise ValueError(str(fault)) from fault
        return value

    return check


def _as_mapping(key: str) -> Callable[[object], object]:
    """A bare word stands for a mapping that holds only it."""
    return lambda value: {key: value} if isinstance(value, str) else value


def _least_first(value: list[int]) -> list[int]:
    if value[0] > value[-1]:
        raise ValueError(f"{value} begins with the larger; write the fewest pairs first")
    return value


Pairs = Annotated[list[Annotated[int, Field(ge=2, le=200)]], AfterValidator(_least_first)]
Duration = Annotated[Any, PlainValidator(_seconds), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Profile = Annotated[str, BeforeValidator(_known("device_profiles", "device"))]
Space = Annotated[str, BeforeValidator(_known("search_spaces", "search space"))]


class TaskFile(Strict):
    """A task: `task`, or `model` with `data` and `metric`."""

    name: Name | None = Field(None, description="in reports; default: of the task or the model's file")
    task: str | None = Field(None, description="a built-in name or FILE.py[:ATTR]")
    model: str | None = Field(None, description=".tflite, .keras, .h5 or a SavedModel")
    data: str | None = Field(None, description=".npz with x_validation, y_validation, ...")
    metric: str | None = None
    output: str | None = Field(None, description="of several outputs the one that the metric judges")
    signature: str | None = Field(None, description="of several signatures the one that is meant")

    @model_validator(mode="after")
    def _one_way(self) -> TaskFile:
        files = (self.model, self.data, self.metric)
        if self.task is None and None in files:
            raise PydanticCustomError(
                "value_error", "", {"error": "names no task; give task, or model with data and metric"}
            )
        if self.task is not None and (self.model or self.data):
            raise PydanticCustomError("value_error", "", {"error": "gives both task and model; keep one"})
        return self


class SweepDeviceFile(Strict):
    """A device, and where it is reached."""

    name: Name | None = Field(None, description="in reports; default: of the profile")
    profile: Profile = Field(description="a device profile's name or a .yaml file")
    host: str | None = Field(None, description="local or user@name[:PYTHON], instead of the profile's")


class SweepSpaceFile(Strict):
    """A search space."""

    name: Name | None = Field(None, description="in reports; default: of the space")
    space: Space = Field(description="a search space's name or a .yaml file")


class BudgetFile(Strict):
    """How far a study is searched."""

    name: Name | None = Field(None, description="in reports; default: made of what it says")
    trials: int | None = Field(None, ge=1, description="complete trials of the study in all")
    trials_per_night: int | None = Field(None, ge=1, description="complete trials that a night adds")
    time: Duration | None = Field(None, description="of a night's search, as 20m")
    constraints: list[str] = Field(default_factory=list, description="as latency_ms<=8")

    @model_validator(mode="after")
    def _has_an_end(self) -> BudgetFile:
        if self.trials is None and self.trials_per_night is None and self.time is None:
            raise PydanticCustomError("value_error", "", {"error": "has no end; give trials, trials_per_night or time"})
        return self


class RulesFile(Strict):
    """When a difference counts."""

    latency: Share = Field(0.03, description="relative")
    metric: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(0.005, description="in the metric's unit")
    size: Share = Field(0.01, description="relative, file and download")
    memory: Share = Field(0.10, description="relative, peak")
    hypervolume: Share = Field(0.02, description="relative")
    alpha: Share = Field(0.01, description="chance of a false verdict in a night")
    pairs: Pairs = Field([5, 40], min_length=2, max_length=2, description="the fewest and the most")
    files: int = Field(6, ge=1, le=100, description="of each front that are judged")
    drift: Share = Field(0.05, description="of the canary, that turns worse into unknown")


class SweepFile(Strict):
    """A sweep, schema 1."""

    schema_: SchemaOne = Field(alias="schema")
    name: Name
    tasks: list[Annotated[TaskFile, BeforeValidator(_as_mapping("task"))]] = Field(min_length=1)
    devices: list[Annotated[SweepDeviceFile, BeforeValidator(_as_mapping("profile"))]] = Field(min_length=1)
    spaces: list[Annotated[SweepSpaceFile, BeforeValidator(_as_mapping("space"))]] = Field(
        default_factory=lambda: [SweepSpaceFile(name=None, space="default")], min_length=1
    )
    budgets: list[BudgetFile] = Field(
        default_factory=lambda: [BudgetFile(name=None, trials=100, trials_per_night=None, time=None)], min_length=1
    )
    time_budget: Duration | None = Field(None, description="of a night, shared out over a device's cells")
    host_wait: Duration = Field(900.0, description="wait so long for a device that is away")
    sampler: Literal["guided", "tpe", "nsga2", "random", "gp"] = "guided"
    seed: int = Field(0, ge=0)
    objectives: list[Literal["metric", "latency", "size", "memory", "energy"]] = Field(
        ["metric", "latency", "size"], min_length=1
    )
    size: Literal["download", "file"] = "download"
    verdicts: RulesFile = Field(default_factory=lambda: RulesFile.model_validate({}))


def to_sweep(file: SweepFile, path: Path) -> Sweep:
    """The checked file as frozen data; AutocompressError with all entries that have the name of another."""
    folder = path.resolve().parent
    rules = file.verdicts.model_dump() | {"pairs": (file.verdicts.pairs[0], file.verdicts.pairs[1])}
    sweep = Sweep(
        name=file.name,
        file=path.resolve(),
        tasks=tuple(_task(each, folder) for each in file.tasks),
        devices=tuple(_device(each, folder) for each in file.devices),
        spaces=tuple(_space(each, folder) for each in file.spaces),
        budgets=tuple(map(_budget, file.budgets)),
        time_budget_s=file.time_budget,
        host_wait_s=file.host_wait,
        sampler=file.sampler,
        seed=file.seed,
        objectives=tuple(file.objectives),
        size=file.size,
        rules=VerdictRules(**rules),
    )
    kinds = ("tasks", "devices", "spaces", "budgets")
    faults = [fault for kind in kinds for fault in _twins(kind, [each.name for each in getattr(sweep, kind)])]
    if faults:
        raise faulty_file(path, faults)
    return sweep


def _twins(kind: str, names: list[str]) -> list[str]:
    """What is said of the entries that are named like an earlier one."""
    return [
        f"$.{kind}[{index}]: is named '{name}' like $.{kind}[{names.index(name)}], give it a name of its own"
        for index, name in enumerate(names)
        if name in names[:index]
    ]


def _task(entry: TaskFile, folder: Path) -> SweepTask:
    task = entry.task
    if task is not None and ".py" in task:
        task = str(folder / task)
    model, data = (None if each is None else str(folder / each) for each in (entry.model, entry.data))
    stem = Path((task or model or "").rpartition(":")[0] or task or model or "").stem
    return SweepTask(
        name=entry.name or _plain(stem),
        task=task,
        model=model,
        data=data,
        metric=entry.metric,
        output=entry.output,
        signature=entry.signature,
    )


def _device(entry: SweepDeviceFile, folder: Path) -> SweepDevice:
    return SweepDevice(
        name=entry.name or _plain(Path(entry.profile).stem), profile=_placed(entry.profile, folder), host=entry.host
    )


def _space(entry: SweepSpaceFile, folder: Path) -> SweepSpace:
    return SweepSpace(name=entry.name or _plain(Path(entry.space).stem), space=_placed(entry.space, folder))


def _placed(name: str, folder: Path) -> str:
    return str(folder / name) if name.endswith((".yaml", ".yml")) else name


def _budget(entry: BudgetFile) -> SweepBudget:
    made = [
        f"{entry.trials}trials" if entry.trials else None,
        f"{entry.trials_per_night}more" if entry.trials_per_night else None,
        f"{entry.time:g}s" if entry.time else None,
        *entry.constraints,
    ]
    return SweepBudget(
        name=entry.name or _plain("-".join(filter(None, made))),
        trials=entry.trials,
        trials_per_night=entry.trials_per_night,
        time_s=entry.time,
        constraints=tuple(entry.constraints),
    )


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text) or "x"
