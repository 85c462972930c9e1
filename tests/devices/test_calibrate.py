"""Calibration: the designed set, what is counted of an operator, the fit, and the profile that comes of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.compression.template import make_template
from autocompress.devices import calibrate, designs
from autocompress.errors import AutocompressError
from autocompress.latency.model import fit as fitting
from autocompress.latency.model.fit import Sample, calibrated_model, cross_validate, fit
from autocompress.latency.model.operators import Operator, Tensor, operators
from autocompress.latency.model.predict import predict
from autocompress.latency.model.terms import terms_of
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.measurement import Measurement
from autocompress.specs import (
    CalibratedModel,
    CalibratedRuntime,
    device_names,
    load_device,
    own_device_names,
    save_device,
)
from tests.builders.optional import present

RUNTIME = CalibratedRuntime(name="ai-edge-litert", version="2.3.0", threads=1, os_bits=64)
SET = designs.designed_set()
FEW = tuple(design for design in SET if design.name in ("network-1", "network-5", "network-23"))


def small_network() -> bytes:
    net = NetworkBuilder((1, 6, 6, 3))
    x = net.convolution(net.input, 5, (3, 3), 2)
    x = net.depthwise(x)
    x = net.convolution(x, 9, (1, 1))
    x = net.dense(net.reshape(net.pool(x, "AVERAGE_POOL_2D", 3, 3), (1, 9)), 4, relu=False)
    return net.finish(net.softmax(x))


def quantized(model: bytes, bits: int, activations: str) -> bytes:
    layers = layers_of(read_graph(model))
    names = [present(t.name).decode() for t in flatbuffer.read(model).subgraphs[0].tensors]
    ranges = dict.fromkeys(names, (-1.0, 1.0))
    return make_template(model, layers, [bits] * len(layers), activations, ranges).patch.snapshot()


# The designed set


@pytest.mark.parametrize("design", SET, ids=lambda design: design.name)
def test_every_design_runs_and_keeps_its_values_in_range(design: designs.Design) -> None:
    runner = Runner(design.model)
    shape = runner.inputs[0].shape
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    output = runner.run({runner.inputs[0].name: x})
    assert np.isfinite(output).all()
    assert np.abs(output).max() < 1e4


def test_the_set_is_the_same_every_time_and_a_share_is_its_start() -> None:
    again = {design.name: design.model for design in designs.designed_set()}
    assert again == {design.name: design.model for design in SET}
    part = designs.designed_set(0.2)
    assert 0 < len(part) < len(SET)
    assert all(again[design.name] == design.model for design in part)
    assert {design.kind for design in part} == {design.kind for design in SET}


def test_a_blueprint_computes_what_it_says() -> None:
    net = NetworkBuilder((1, 7))
    model = net.finish(net.dense(net.input, 3))
    x = np.arange(7, dtype=np.float32)[None] - 3
    tree = flatbuffer.read(model)
    weight, bias = present(flatbuffer.constant(tree, 1)), present(flatbuffer.constant(tree, 2))
    np.testing.assert_allclose(Runner(model).run({"x": x}), np.maximum(x @ weight.T + bias, 0), rtol=1e-5)


def test_every_class_that_a_profile_can_name_is_measured() -> None:
    from autocompress.specs.device import CALIBRATED_DTYPES, NETWORK_TERMS, OPERATOR_CLASSES, OPERATOR_TERMS

    found = [terms_of(operators(file.model)) for file in calibrate.specimens(SET[::3] + FEW)]
    keys = {key for each in found for key in each.total}
    assert {key[1] for key in keys} - {"network"} <= set(OPERATOR_CLASSES)
    assert {key[2] for key in keys if key[1] == "network"} == set(NETWORK_TERMS)
    assert {key[2] for key in keys if key[1] != "network"} <= set(OPERATOR_TERMS)
    assert {key[0] for key in keys if key[0]} == set(CALIBRATED_DTYPES)
    assert not any(each.unknown or each.uncalibrated for each in found)


def test_specimens_are_what_candidates_are() -> None:
    made = {file.dtype: file for file in calibrate.specimens(FEW[1:2])}
    assert list(made) == ["float32", "dynamic", "int8"]
    dtypes = {dtype: {key[0] for key in terms_of(operators(file.model)).total} - {""} for dtype, file in made.items()}
    assert dtypes == {"float32": {"float32"}, "dynamic": {"dynamic"}, "int8": {"int8"}}


# What is counted


sides = st.integers(1, 7)
channels = st.integers(1, 20)


@settings(max_examples=40, deadline=None)
@given(side=sides, depth=channels, outputs=channels, kernel=st.sampled_from([1, 2, 3]), integer=st.booleans())
def test_a_convolution_is_counted_as_slow_loops_count_it(
    side: int, depth: int, outputs: int, kernel: int, integer: bool
) -> None:
    kind = "INT8" if integer else "FLOAT32"
    operator = Operator(
        "CONV_2D",
        (Tensor(kind, (1, side, side, depth)), Tensor(kind, (outputs, kernel, kernel, depth))),
        Tensor(kind, (1, side, side, outputs)),
    )
    macs = {8: 0, 16: 0}
    taps = 0
    for _ in itertools.product(range(side), range(side)):
        for _ in itertools.product(range(kernel), range(kernel)):
            taps += sum(1 for first in range(0, outputs, 8))
            for tile in macs:
                lanes = sum(tile for first in range(0, outputs, tile))
                step = 8 if integer else 1
                macs[tile] += lanes * sum(step for first in range(0, depth, step))
    name = "pointwise" if kernel == 1 else "spatial"
    found = {key[2]: value for key, value in terms_of([operator]).total.items() if key[1] == name}
    wanted = {"inputs": side * side * depth, "outputs": side * side * outputs, "rows": side * side}
    wanted |= {"taps": taps} if kernel > 1 else {}
    if integer:
        ragged = side * side * kernel * kernel * -(-depth // 8) * 8 if outputs % 8 else 0
        wanted |= {"mmac_by_8": macs[8], "mmac_by_16": macs[16], "ragged": ragged}
    else:
        in_8 = macs[8] if macs[8] < macs[16] else 0  # the tile that is padded less
        wanted |= {"mmac_in_8": in_8, "mmac_in_16": 0 if in_8 else macs[16]}
    assert found == pytest.approx({"ops": 1.0} | {term: count / 1e6 for term, count in wanted.items()})


def test_the_terms_of_a_small_network() -> None:
    total = terms_of(operators(small_network())).total
    million = 1e6
    assert total["float32", "spatial", "mmac_in_8"] * million == pytest.approx(9 * 9 * 3 * 8)
    assert total["float32", "depthwise", "mmac_by_8"] * million == pytest.approx(9 * 9 * 8)
    assert total["float32", "depthwise", "taps"] * million == pytest.approx(9 * 9)
    assert total["float32", "pointwise", "mmac_in_16"] * million == pytest.approx(9 * 5 * 16)
    assert total["float32", "average_pool", "reads"] * million == pytest.approx(9 * 9)
    assert total["float32", "dense", "mmac_in_8"] * million == pytest.approx(9 * 8)
    assert total["float32", "softmax", "elements"] * million == pytest.approx(4)
    assert total["float32", "reshape", "ops"] == 1
    assert total["", "network", "once"] == 1


@pytest.mark.parametrize("activations", ["float32", "int8"])
def test_quantized_layers_are_counted_in_their_own_dtype(activations: str) -> None:
    total = terms_of(operators(quantized(small_network(), 8, activations))).total
    dtype = "dynamic" if activations == "float32" else "int8"
    assert {key[:2] for key in total if key[1] in ("spatial", "depthwise", "pointwise", "dense")} == {
        (dtype, name) for name in ("spatial", "depthwise", "pointwise", "dense")
    }
    assert (("int8", "quantize", "ops") in total) == (activations == "int8")


# The fit


def sample(design: int, terms: dict[str, float], latency_ms: float) -> Sample:
    keyed = {("float32", "dense", term): value for term, value in terms.items()}
    return Sample(
        design=f"network-{design}", kind="network", dtype="float32", terms=keyed, largest=keyed, latency_ms=latency_ms
    )


planted = st.lists(st.floats(0.01, 10), min_size=3, max_size=3)


@settings(max_examples=40, deadline=None)
@given(costs=planted, seed=st.integers(0, 1000))
def test_a_fit_recovers_planted_costs(costs: list[float], seed: int) -> None:
    rows = np.exp(np.random.default_rng(seed).uniform(-3, 3, (12, 3)))
    made = [sample(n, dict(zip("abc", row, strict=True)), float(row @ costs)) for n, row in enumerate(rows)]
    fitted = fit(made)
    assert [fitted["float32", "dense", term] for term in "abc"] == pytest.approx(costs, rel=1e-5)
    assert cross_validate(made) == pytest.approx(np.zeros(12), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), left_out=st.integers(0, 6), factor=st.floats(1.5, 20))
def test_cross_validation_never_sees_the_design_it_predicts(seed: int, left_out: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    rows = np.exp(rng.uniform(-2, 2, (14, 3)))
    latencies = rows @ [1, 2, 3] * rng.uniform(0.8, 1.25, 14)
    made = [
        sample(n % 7, dict(zip("abc", row, strict=True)), float(ms))
        for n, (row, ms) in enumerate(zip(rows, latencies, strict=True))
    ]
    own = np.array([each.design == f"network-{left_out}" for each in made])
    other = [replace(s, latency_ms=s.latency_ms * factor) if mine else s for s, mine in zip(made, own, strict=True)]
    before = (cross_validate(made) + 1) * latencies
    after = (cross_validate(other) + 1) * [each.latency_ms for each in other]
    assert after[own] == pytest.approx(before[own], rel=1e-9)
    assert after[~own] != pytest.approx(before[~own], rel=1e-9)


def test_no_cost_is_negative() -> None:
    rows = np.exp(np.random.default_rng(0).uniform(-2, 2, (20, 3)))
    made = [sample(n, dict(zip("abc", row, strict=True)), float(row @ [3, 2, -0.1])) for n, row in enumerate(rows)]
    assert min(fit(made).values()) >= 0


def test_too_few_files_are_refused() -> None:
    with pytest.raises(AutocompressError, match="no file was measured"):
        fit([])
    with pytest.raises(AutocompressError, match="1 designs cannot be cross-validated"):
        cross_validate([sample(0, {"a": 1.0}, 1.0)])


# A model made of planted costs, and what it predicts


def planted_model(set_of: Any = SET[::2] + FEW) -> CalibratedModel:
    """Fitted to latencies that follow from the terms by a rule."""
    samples = []
    for file in calibrate.specimens(set_of):
        found = terms_of(operators(file.model))
        samples.append(
            Sample(
                design=file.design,
                kind=file.kind,
                dtype=file.dtype,
                terms=found.total,
                largest=found.largest,
                latency_ms=math.fsum(rule(key) * value for key, value in found.total.items()),
            )
        )
    return calibrated_model(samples, cross_validate(samples), RUNTIME, "2026-01-31")


def rule(key: tuple[str, str, str]) -> float:
    return 0.001 if key[2] in ("ops", "once") else 0.1 + len(key[0]) / 100


@pytest.fixture(scope="module")
def model() -> CalibratedModel:
    return planted_model()


def test_a_prediction_sums_the_costs_of_its_terms(model: CalibratedModel) -> None:
    file = small_network()
    found = predict(file, model)
    by_hand = math.fsum(rule(key) * value for key, value in terms_of(operators(file)).total.items())
    assert found.latency_ms == pytest.approx(by_hand, rel=0.05)
    assert found.latency_source == "modelled"
    assert found.latency_error == model.cross_validation["float32"].p90
    assert (found.runtime_version, found.threads, found.os_bits) == ("2.3.0", 1, 64)
    assert not found.extrapolated


def test_the_error_is_that_of_the_dtype_of_the_layers(model: CalibratedModel) -> None:
    worse = {
        d: replace(each, p90=p90)
        for (d, each), p90 in zip(model.cross_validation.items(), (0.3, 0.1, 0.2), strict=True)
    }
    model = replace(model, cross_validation=worse)
    assert predict(small_network(), model).latency_error == worse["float32"].p90
    assert predict(quantized(small_network(), 8, "float32"), model).latency_error == worse["dynamic"].p90
    assert predict(quantized(small_network(), 8, "int8"), model).latency_error == worse["int8"].p90


def test_what_is_larger_than_anything_measured_is_extrapolated(model: CalibratedModel) -> None:
    net = NetworkBuilder((1, 5000))
    assert predict(net.finish(net.dense(net.input, 5000)), model).extrapolated
    assert predict(small_network(), replace(model, longest_ms=1e-6)).extrapolated


def test_operators_that_were_never_measured_are_extrapolated(model: CalibratedModel) -> None:
    net = NetworkBuilder((1, 4, 4, 8))
    x = net.convolution(net.input, 8, (1, 1))
    assert predict(net.finish(net.unary(x, "ABS")), model).extrapolated


@pytest.mark.parametrize(("bits", "activations"), [(4, "float32"), (8, "int16")])
def test_layers_in_a_dtype_that_was_not_calibrated_are_refused(
    model: CalibratedModel, bits: int, activations: str
) -> None:
    net = NetworkBuilder((1, 4, 4, 8))
    file = quantized(net.finish(net.convolution(net.input, 8, (1, 1))), bits, activations)
    with pytest.raises(AutocompressError, match=r"no costs for .*measure with --host"):
        predict(file, model)


@settings(max_examples=150, deadline=None)
@given(
    length=st.integers(8, 3000),
    changes=st.lists(st.tuples(st.integers(8, 2999), st.integers(0, 255)), max_size=6),
    integer=st.booleans(),
)
def test_a_damaged_file_is_predicted_or_refused(
    model: CalibratedModel, length: int, changes: list[tuple[int, int]], integer: bool
) -> None:
    whole = bytearray(quantized(small_network(), 8, "int8") if integer else small_network())
    for position, value in changes:
        whole[min(position, len(whole) - 1)] = value
    with contextlib.suppress(AutocompressError):
        assert present(predict(bytes(whole[: max(length, 8)]), model).latency_ms) >= 0


# The profile


def test_a_calibrated_profile_comes_back_as_it_was_saved(model: CalibratedModel) -> None:
    profile = replace(load_device("rpi4"), name="mine", host={"ssh": "pi@board"}, latency_model=model)
    path = save_device(profile)
    assert path == Path(os.environ["XDG_CONFIG_HOME"], "autocompress", "device_profiles", "mine.yaml")
    assert load_device("mine") == profile
    assert "mine" in own_device_names()
    assert "mine" in device_names()
    save_device(replace(profile, description="another"))
    assert load_device("mine").description == "another"
    assert load_device(path.rename(path.with_name("former.yaml"))).description == "another"
    assert "Raspberry Pi 4" in path.with_name("mine.yaml.bak").read_text()
    assert sorted(each.name for each in path.parent.iterdir()) == ["former.yaml", "mine.yaml.bak"]


@pytest.mark.parametrize("name", ["local", "rpi4", "rpi3"])
def test_any_profile_can_be_saved(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    profile = load_device(name)
    assert load_device(save_device(profile)) == profile


def test_the_own_profile_is_found_before_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    save_device(replace(load_device("rpi5"), description="on my desk"))
    assert load_device("rpi5").description == "on my desk"
    listed = CliRunner().invoke(app, ["device", "list"]).stdout.splitlines()
    assert [line for line in listed if "yours" in line] == [line for line in listed if line.startswith("rpi5 ")]


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "autocompress").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(AutocompressError, match=r"cannot write .*set XDG_CONFIG_HOME to another"):
        save_device(load_device("rpi5"))


def test_a_relative_config_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    from autocompress.specs import user_profiles

    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert user_profiles.folder() == Path.home() / ".config" / "autocompress" / "device_profiles"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("form: calibrated", "form: calibratd", "'calibratd' is not one of published, calibrated"),
        ("os_bits: 64", "os_bits: 48", "$.latency_model.runtime.os_bits"),
        ("  spatial:", "  spatil:", "did you mean spatial?"),
        ("once:", "onse:", "did you mean once?"),
        ("longest_ms:", "longst_ms:", "did you mean 'longest_ms'?"),
        ("measured_on: '2026-01-31'", "measured_on: yesterday", "$.latency_model.measured_on"),
    ],
)
def test_faults_of_a_calibrated_model_are_found(
    model: CalibratedModel, tmp_path: Path, old: str, new: str, fault: str
) -> None:
    from autocompress.specs.user_profiles import as_yaml

    text = as_yaml(replace(load_device("rpi5"), latency_model=model))
    assert old in text
    path = tmp_path / "faulty.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(AutocompressError) as caught:
        load_device(path)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1e6), st.floats(1e-9, 1e3))
def test_numbers_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, model: CalibratedModel, cost: float, longest: float
) -> None:
    from autocompress.specs.user_profiles import as_yaml

    changed = replace(model, longest_ms=longest, network=dict(model.network, once=cost))
    profile = replace(load_device("rpi5"), latency_model=changed)
    path = tmp_path_factory.mktemp("profile") / "x.yaml"
    path.write_text(as_yaml(profile))
    assert load_device(path) == profile


# The command


@pytest.fixture
def few_designs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Three designs instead of all, and a folder for the profile. All else is as the user has it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(calibrate, "designed_set", lambda share: FEW)
    return tmp_path / "autocompress" / "device_profiles"


def test_a_calibration_of_this_machine_from_command_to_prediction(few_designs: Path) -> None:
    done = CliRunner().invoke(app, ["device", "calibrate", "local", "--as", "mine", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["files"] == 9
    assert document["refused"] == []
    assert document["runtime"]["threads"] == 1
    profile = load_device("mine")
    assert profile.host == "local"
    assert isinstance(profile.latency_model, CalibratedModel)
    assert profile.sources["latency_model"] == "measured there with `device calibrate`, 9 files"
    assert document["cross_validation"]["int8"] == asdict(profile.latency_model.cross_validation["int8"])
    found = predict(FEW[0].model, profile.latency_model)
    assert present(found.latency_ms) > 0
    assert document["profile"] == str(few_designs / "mine.yaml")
    shown = json.loads(CliRunner().invoke(app, ["device", "show", "mine", "--json"]).stdout)
    assert shown["latency_model"]["form"] == "calibrated"


def test_the_table_names_kinds_and_dtypes(few_designs: Path) -> None:
    done = CliRunner().invoke(app, ["device", "calibrate", "local", "--host", "local"], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    for word in ("network", "float32", "dynamic", "int8", str(few_designs / "local.yaml")):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["locl"], "did you mean 'local'?"),
        (["rpi4"], "device 'rpi4' has no host to measure on"),
        (["local", "--host", ""], "host '' is no destination"),
        (["local", "--share", "0"], "share 0 of the designed set is not in (0, 1]"),
        (["local", "--share", "nan"], "share nan of the designed set"),
        (["local", "--as", "a/b"], "profile name 'a/b'"),
    ],
)
def test_faults_of_the_command_come_before_any_measurement(few_designs: Path, arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["device", "calibrate", *arguments])
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not few_designs.exists()


def test_a_file_that_the_device_refuses_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from autocompress.errors import CandidateError

    class Refusing:
        def measure(self, model: bytes, *, processes: int) -> Any:
            raise CandidateError("no kernel")

    file = next(iter(calibrate.specimens(FEW)))
    samples, refused = calibrate._Passes(Refusing(), [file], None).run()  # type: ignore[arg-type]
    assert samples == []
    assert refused == ["network-1 float32: no kernel"]


def test_files_whose_two_passes_disagree_are_measured_again() -> None:
    class Unsteady:
        def __init__(self) -> None:
            self.asked = {b"calm": 0, b"wild": 0}

        def measure(self, model: bytes, *, processes: int) -> Any:
            self.asked[model] += 1
            return Measurement(
                latency_ms=1.0 if model == b"calm" else 2.0 ** self.asked[model], latency_source="measured"
            )

    host = Unsteady()
    files = [calibrate.Specimen(design="a", kind="dense", dtype="float32", model=name) for name in (b"calm", b"wild")]
    passes = calibrate._Passes(host, files, None)  # type: ignore[arg-type]
    with pytest.raises(AutocompressError, match="not a TFLite file"):
        passes.run()
    assert host.asked == {b"calm": 2, b"wild": 5}
    assert np.median(passes._medians[1]) == 8


def test_the_fit_module_names_what_it_claims_errors_for() -> None:
    assert fitting.WHOLE in {design.kind for design in SET}
