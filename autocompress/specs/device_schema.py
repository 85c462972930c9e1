"""The YAML of a device profile, strictly checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PlainValidator, Tag, WithJsonSchema, field_validator
from pydantic_core.core_schema import ValidationInfo

from autocompress.records.configuration import ACTIVATIONS
from autocompress.records.kernels import CONTAINERS
from autocompress.specs.device import (
    CALIBRATED_DTYPES,
    ETHOS_U,
    FIGURES,
    NETWORK_TERMS,
    OPERATOR_CLASSES,
    OPERATOR_TERMS,
    CalibratedModel,
    CalibratedRuntime,
    Coefficients,
    CompilerTarget,
    Cost,
    CrossValidation,
    DeviceProfile,
    FittedPoint,
    LatencyModel,
    LatencyRuntime,
    PowerDraw,
    Runtime,
    is_ssh_word,
)
from autocompress.specs.faults import not_one_of, shown
from autocompress.specs.space_schema import Dtype, KernelOp, Name, SchemaOne, Strict

# Ops whose weights the builder (ai-edge-quantizer) stores in no narrower container; all others go down to 4.
NARROWEST = {"DEPTHWISE_CONV_2D": 8, "TRANSPOSE_CONV": 8, "DENSIFY": 8}
_REMOTE = "{ssh: user@name}, {ssh: user@name, python: venv/bin/python3} or {command: [argv, ...]}"


def _kernel(value: object) -> tuple[int, str]:
    pair = isinstance(value, list) and len(value) == 2 and value[1] in ACTIVATIONS
    if not isinstance(value, list) or not pair or isinstance(value[0], bool) or value[0] not in CONTAINERS:
        sizes, kinds = ", ".join(map(str, CONTAINERS)), ", ".join(ACTIVATIONS)
        raise ValueError(f"{shown(value)} is not a pair [weight bits, activations] of {sizes} and {kinds}")
    if value[0] > 8 and value[1] != "float32":
        raise ValueError(f"{shown(value)}: float weights run with float32 activations only")
    return int(value[0]), str(value[1])


def _host(value: object) -> str | dict[str, Any] | None:
    if value is None or value == "local":
        return "local" if value else None
    if isinstance(value, dict) and {"ssh"} <= set(value) <= {"ssh", "python"}:
        for word in value.values():
            if not isinstance(word, str) or not is_ssh_word(word):
                raise ValueError(f"{shown(word)} is empty or begins with '-'; write {_REMOTE}")
        return dict(value)
    if isinstance(value, dict) and set(value) == {"command"}:
        command = value["command"]
        if isinstance(command, list) and command and all(isinstance(part, str) and part for part in command):
            return {"command": command}
    if isinstance(value, str):
        raise ValueError(f"{not_one_of(value, ('null', 'local'))}; or write {_REMOTE}")
    raise ValueError(f"{shown(value)} is not null, local, {_REMOTE}")


def _keys(required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [required], "additionalProperties": False}


_WORD_JSON = {"type": "string", "pattern": r"^[^-\s]"}
_HOST_JSON = {
    "anyOf": [
        {"enum": ["local", None]},
        _keys("ssh", ssh=_WORD_JSON, python=_WORD_JSON),
        _keys("command", command={"type": "array", "items": {"type": "string"}, "minItems": 1}),
    ]
}
_KERNEL_JSON = {
    "type": "array",
    "prefixItems": [{"enum": list(CONTAINERS)}, {"enum": list(ACTIVATIONS)}],
    "minItems": 2,
    "maxItems": 2,
}

Kernel = Annotated[Any, PlainValidator(_kernel), WithJsonSchema(_KERNEL_JSON)]
Host = Annotated[Any, PlainValidator(_host), WithJsonSchema(_HOST_JSON)]
Threads = Annotated[int, Field(ge=1, le=256)]
AtLeastZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


def _one_of(names: tuple[str, ...]) -> Any:
    """Takes one of these names."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(not_one_of(value, names))
        return value

    return PlainValidator(check)


def _enum(names: tuple[str, ...]) -> Any:
    return WithJsonSchema({"type": "string", "enum": list(names)})


CalibratedDtype = Annotated[str, _one_of(CALIBRATED_DTYPES), _enum(CALIBRATED_DTYPES)]
OperatorClass = Annotated[str, _one_of(OPERATOR_CLASSES), _enum(OPERATOR_CLASSES)]
TermName = Annotated[str, _one_of(OPERATOR_TERMS), _enum(OPERATOR_TERMS)]
Accelerator = Annotated[str, _one_of(tuple(ETHOS_U)), _enum(tuple(ETHOS_U))]
Figure = Annotated[str, _one_of(FIGURES), _enum(FIGURES)]
NetworkTerm = Annotated[str, _one_of(NETWORK_TERMS), _enum(NETWORK_TERMS)]


class RuntimeFile(Strict):
    """What runs the file on the device."""

    name: Literal["ai-edge-litert", "tflite-runtime", "tflite-micro"]
    threads: Threads


class PowerFile(Strict):
    """Watts of the whole board; null where no figure is known."""

    idle: AtLeastZero | None = None
    busy: Positive | None = None
    source: Text


class CompilerFile(Strict):
    """The compiler whose estimate stands for the device."""

    name: Literal["ethos-u-vela"]
    version: Text
    accelerator: Accelerator
    system_config: Text = Field(description="clocks and bandwidths, by the name of a section of Arm's vela.ini")
    memory_mode: Text = Field(description="where weights and activations lie, by the name of a section of vela.ini")
    arena_bytes: Annotated[int, Field(gt=0)] = Field(description="the most that activations may take")


class LatencyRuntimeFile(Strict):
    """What the points were measured with."""

    name: Text
    version: Text
    threads: Threads


class PointFile(Strict):
    """One published or measured latency and the features of its network."""

    model: Text
    dtype: Dtype
    mmac: AtLeastZero = Field(description="millions of multiply-accumulates")
    mb: AtLeastZero = Field(description="megabytes moved: first inputs, first outputs, weights")
    ops: Annotated[int, Field(ge=1)]
    latency_ms: Positive
    source: Text


class CoefficientsFile(Strict):
    """latency = ms_per_mmac * MMAC + ms_per_mb * MB + ms_per_op * ops."""

    ms_per_mmac: AtLeastZero
    ms_per_mb: AtLeastZero
    ms_per_op: AtLeastZero


class LatencyModelFile(Strict):
    """The latency model and what it was fitted to."""

    form: Literal["published", "calibrated"] = "published"
    runtime: LatencyRuntimeFile
    fitted_to: list[PointFile] = Field(min_length=1)
    coefficients: dict[Dtype, CoefficientsFile]
    leave_one_out: dict[Dtype, AtLeastZero] = Field(description="largest relative error per dtype")

    @field_validator("coefficients")
    @classmethod
    def _float_and_fitted(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "float32" not in value:
            raise ValueError("float32 is missing: float and dynamic range layers take its coefficients")
        for dtype in value:
            if "fitted_to" in info.data and all(point.dtype != dtype for point in info.data["fitted_to"]):
                raise ValueError(f"{dtype} has no point in fitted_to")
        return value

    @field_validator("leave_one_out")
    @classmethod
    def _of_coefficients(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        for dtype in value:
            if dtype not in info.data.get("coefficients", value):
                raise ValueError(f"{dtype} has no coefficients")
        if "float32" not in value:
            raise ValueError("float32 is missing: a modelled latency is shown with its error")
        return value


class CalibratedRuntimeFile(LatencyRuntimeFile):
    """What the device was calibrated with."""

    os_bits: Literal[32, 64]


class CrossValidationFile(Strict):
    """Relative errors on designs left out of the fit."""

    files: Annotated[int, Field(ge=1)]
    median: AtLeastZero
    p90: AtLeastZero
    largest: AtLeastZero


class CostFile(Strict):
    """Milliseconds per unit of each term, and the largest value of each that was measured."""

    ms_per: dict[TermName, AtLeastZero]
    largest: dict[TermName, AtLeastZero]


class CalibratedModelFile(Strict):
    """A latency model that `device calibrate` fitted."""

    form: Literal["calibrated"]
    runtime: CalibratedRuntimeFile
    measured_on: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$", description="ISO date, in quotes")]
    longest_ms: Positive
    network: dict[NetworkTerm, AtLeastZero]
    costs: dict[CalibratedDtype, dict[OperatorClass, CostFile]]
    cross_validation: dict[CalibratedDtype, CrossValidationFile]

    @field_validator("cross_validation")
    @classmethod
    def _of_costs(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for dtype in info.data.get("costs", ("float32",)):
            if dtype not in value:
                raise ValueError(f"{dtype} is missing: a modelled latency is shown with its error")
        return value


def _form(value: object) -> str:
    form = value.get("form") if isinstance(value, dict) else getattr(value, "form", None)
    return "calibrated" if form == "calibrated" else "published"


AnyLatencyModel = Annotated[
    Annotated[LatencyModelFile, Tag("published")] | Annotated[CalibratedModelFile, Tag("calibrated")],
    Discriminator(_form),
]


class DeviceFile(Strict):
    """A device profile, schema 1."""

    schema_: SchemaOne = Field(alias="schema")
    name: Name
    description: Text
    runtime: RuntimeFile
    host: Host = Field(
        None, description="null: modelled; local; {ssh: user@name, python: path}; {command: [argv, ...]}"
    )
    kind: Name | None = Field(
        None, description="a device kind that a Python program registers; null: the host measures, else the model tells"
    )
    cores: Annotated[int, Field(ge=1)] | None = None
    clock_mhz: Positive | None = None
    memory_bytes: Annotated[int, Field(gt=0)] | None = None
    flash_bytes: Annotated[int, Field(gt=0)] | None = None
    power_w: PowerFile | None = None
    kernels: dict[KernelOp, list[Kernel]] = Field(
        description="op: pairs [weight container bits, activations]; DENSIFY: of weights that may be stored sparse"
    )
    not_delegated: dict[KernelOp, list[Kernel]] | None = Field(
        None, description="kernels that XNNPACK does not take there; null: as probed of the runtime"
    )
    latency_model: AnyLatencyModel | None = None
    compiler: CompilerFile | None = Field(None, description="estimates latency, flash and RAM of a file; no host then")
    sources: dict[Figure, Text] = Field(
        default_factory=dict, description="figure: where it comes from, or why there is none"
    )

    @field_validator("kernels")
    @classmethod
    def _storable(cls, value: dict[str, list[tuple[int, str]]]) -> dict[str, list[tuple[int, str]]]:
        for op, pairs in value.items():
            for bits, activations in pairs:
                if bits < (least := NARROWEST.get(op, bits)):
                    kind = f"[{bits}, {activations}]"
                    raise ValueError(f"{op} {kind}: its weights are stored in {least} bits at least; leave {kind} out")
        return value

    @field_validator("compiler")
    @classmethod
    def _alone(cls, value: CompilerFile | None, info: ValidationInfo) -> CompilerFile | None:
        for other in ("host", "kind", "latency_model"):
            if value is not None and info.data.get(other) is not None:
                raise ValueError(f"a latency is either compiled or had by {other}; leave one of the two out")
        return value

    @field_validator("cores")
    @classmethod
    def _enough_for_the_threads(cls, value: int | None, info: ValidationInfo) -> int | None:
        runtime = info.data.get("runtime")
        if value is not None and runtime is not None and runtime.threads > value:
            raise ValueError(f"{value} cores are fewer than the {runtime.threads} threads of the runtime")
        return value


def to_device(file: DeviceFile) -> DeviceProfile:
    """The checked file as frozen data."""
    return DeviceProfile(
        name=file.name,
        description=file.description,
        runtime=Runtime(name=file.runtime.name, threads=file.runtime.threads),
        host=file.host,
        kind=file.kind,
        cores=file.cores,
        clock_mhz=file.clock_mhz,
        memory_bytes=file.memory_bytes,
        flash_bytes=file.flash_bytes,
        power_w=None if file.power_w is None else PowerDraw(**file.power_w.model_dump()),
        kernels=_kernels(file.kernels),
        not_delegated=None if file.not_delegated is None else _kernels(file.not_delegated),
        latency_model=None if file.latency_model is None else _latency_model(file.latency_model),
        compiler=None if file.compiler is None else CompilerTarget(**file.compiler.model_dump()),
        sources={str(figure): text for figure, text in file.sources.items()},
    )


def _kernels(table: dict[KernelOp, list[Any]]) -> dict[str, tuple[tuple[int, str], ...]]:
    return {str(op): tuple(dict.fromkeys(pairs)) for op, pairs in table.items()}


def _latency_model(file: LatencyModelFile | CalibratedModelFile) -> LatencyModel | CalibratedModel:
    if isinstance(file, CalibratedModelFile):
        return _calibrated(file)
    return LatencyModel(
        runtime=LatencyRuntime(**file.runtime.model_dump()),
        fitted_to=tuple(FittedPoint(**point.model_dump()) for point in file.fitted_to),
        coefficients={dtype: Coefficients(**each.model_dump()) for dtype, each in file.coefficients.items()},
        leave_one_out={str(dtype): error for dtype, error in file.leave_one_out.items()},
    )


def _calibrated(file: CalibratedModelFile) -> CalibratedModel:
    return CalibratedModel(
        runtime=CalibratedRuntime(**file.runtime.model_dump()),
        measured_on=file.measured_on,
        longest_ms=file.longest_ms,
        network={str(term): ms for term, ms in file.network.items()},
        costs={
            str(dtype): {str(name): Cost(**cost.model_dump()) for name, cost in classes.items()}
            for dtype, classes in file.costs.items()
        },
        cross_validation={
            str(dtype): CrossValidation(**each.model_dump()) for dtype, each in file.cross_validation.items()
        },
    )
