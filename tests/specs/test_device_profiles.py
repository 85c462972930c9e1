"""The device profiles that come with the package: complete, honest about what they lack, and repeatable."""

from __future__ import annotations

import re

import pytest

from autocompress.latency.model import predict
from autocompress.specs import FIGURES, LatencyModel, device_names, load_device, load_space
from autocompress.specs.legality import allowed_activations, allowed_choices

NAMES = device_names()
LAYER_OPS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}


def test_the_devices_of_the_design_are_there() -> None:
    wanted = {"local", "local-tflite-runtime", "rpi4", "rpi4-32bit", "rpi3", "rpi5", "rpi-zero2w"}
    assert wanted | {"jetson-nano-cpu", "coral-dev-cpu", "pixel-class-a76"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_complete(name: str) -> None:
    profile = load_device(name)
    assert profile.name == name
    if profile.compiler is not None:
        assert set(profile.kernels) == LAYER_OPS
        assert {pair for pairs in profile.kernels.values() for pair in pairs} == {(8, "int8"), (8, "int16")}
        return
    if profile.runtime.name == "tflite-micro":
        assert set(profile.kernels) == LAYER_OPS
        assert profile.memory_bytes is not None
        assert profile.flash_bytes is not None
        assert profile.memory_bytes < profile.flash_bytes
        return
    assert set(profile.kernels) == LAYER_OPS | {"DENSIFY"}
    assert all((32, "float32") in pairs for pairs in profile.kernels.values())
    if profile.host is None:
        assert profile.runtime.threads == profile.cores == 4  # of every board here
        assert profile.clock_mhz in [1000 * float(ghz) for ghz in re.findall(r"([\d.]+) GHz", profile.description)]
        assert (profile.latency_model is None) == ("measure with --host" in profile.description)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source_and_a_missing_one_a_reason(name: str) -> None:
    profile = load_device(name)
    optional = {name for name in ("compiler", "flash_bytes") if getattr(profile, name) is None}
    figures = set(FIGURES) - optional
    assert set(profile.sources) == figures
    for figure in figures:
        missing = getattr(profile, figure) is None
        assert profile.sources[figure].startswith("none: ") == missing, figure
    assert profile.power_w is None or profile.power_w.source


def test_the_local_profiles_have_one_thread_each() -> None:
    for name, runtime in (("local", "ai-edge-litert"), ("local-tflite-runtime", "tflite-runtime")):
        profile = load_device(name)
        assert (profile.host, profile.runtime.name, profile.runtime.threads) == ("local", runtime, 1)


def test_tflite_runtime_is_not_offered_what_it_computes_wrongly() -> None:
    kernels = load_device("local-tflite-runtime").kernels
    assert (8, "float32") not in kernels["FULLY_CONNECTED"]
    assert (8, "float32") not in kernels["TRANSPOSE_CONV"]
    assert (8, "int8") in kernels["FULLY_CONNECTED"]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_space_has_choices_on_every_device(name: str) -> None:
    profile, space = load_device(name), load_space("default")
    integer = profile.compiler is not None  # an NPU runs no float, a microcontroller no integer weights on float
    expected = ("int8",) if profile.tells_flash else ("float32", "int8", "weight_only")
    assert allowed_activations(space, profile) == expected
    choices = allowed_choices(space, profile, name="conv_2d_0", tensor_name="x", op="CONV_2D")
    offered = space.choices(name="conv_2d_0", tensor_name="x", op="CONV_2D")
    assert choices == tuple(choice for choice in offered if not integer or choice.is_integer)


@pytest.mark.parametrize("name", [name for name in NAMES if load_device(name).latency_model])
def test_the_carried_points_give_the_carried_coefficients(name: str) -> None:
    model = load_device(name).latency_model
    assert isinstance(model, LatencyModel)
    for dtype, each in predict.fit_by_dtype(model.fitted_to).items():
        assert vars(model.coefficients[dtype]) == pytest.approx(vars(each), rel=1e-5)
    assert set(model.coefficients) == {point.dtype for point in model.fitted_to}
    for dtype, largest in model.leave_one_out.items():
        points = [point for point in model.fitted_to if point.dtype == dtype]
        errors = predict.leave_one_out(points, model.coefficients["float32"] if len(points) < 4 else None)
        assert largest == pytest.approx(max(map(abs, errors)), rel=5e-3)
    assert all(point.source for point in model.fitted_to)


def test_rpi4_leaves_one_out_within_five_percent_and_int8_has_a_larger_error_of_its_own() -> None:
    model = load_device("rpi4").latency_model
    assert isinstance(model, LatencyModel)
    assert set(model.leave_one_out) == {"float32", "int8"}
    assert model.leave_one_out["float32"] <= 0.05 < model.leave_one_out["int8"] <= 0.12
    float32, int8 = model.coefficients["float32"], model.coefficients["int8"]
    assert (int8.ms_per_mb, int8.ms_per_op) == (float32.ms_per_mb, float32.ms_per_op)
    assert int8.ms_per_mmac < float32.ms_per_mmac


def test_energy_is_latency_times_busy_power() -> None:
    assert predict.energy_mj(10.0, load_device("rpi4")) == pytest.approx(60.0)
    assert predict.energy_mj(10.0, load_device("local")) is None
