"""`device probe`: every kernel tried on the real runtimes, and a profile that the search can use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.devices import probe as probing
from autocompress.devices.probe import probe
from autocompress.latency.host.client import Host
from autocompress.specs import load_device
from tests.builders.arrays import Array

PAIRS = ((32, "float32"), (8, "float32"), (4, "float32"), (8, "int8"))


@pytest.fixture(autouse=True)
def own_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(probing, "PAIRS", PAIRS)
    monkeypatch.setattr(probing, "MOST_TIMES_FLOAT", float("inf"))  # what a busy machine takes is no test's business
    return tmp_path / "autocompress" / "device_profiles"


def test_litert_here_has_what_its_profile_says() -> None:
    found = probe("here", "local", runtime="ai-edge-litert", threads=1)
    known = load_device("local").kernels
    for op, pairs in found.profile.kernels.items():
        for pair in PAIRS:
            if pair[0] >= 8:
                assert (pair in pairs) == (pair in known[op]), (op, pair)
    assert found.profile.runtime.threads == 1
    assert found.profile.memory_bytes == found.facts["memory_bytes"]
    assert found.profile.cores == found.facts["cores"]
    assert found.profile.clock_mhz == found.facts["clock_mhz"]
    assert "ai-edge-litert" in found.profile.sources["kernels"]


def test_kernels_that_lie_or_fail_are_left_out_with_the_reason() -> None:
    pytest.importorskip("tflite_runtime", reason="tflite-runtime has no wheel for this Python")
    found = probe("here", "local", runtime="tflite-runtime")
    faults = {(t.op, t.bits, t.activations): t.fault for t in found.kernels}
    assert "computes something else" in (faults["FULLY_CONNECTED", 8, "float32"] or "")
    assert "transpose_conv.cc" in (faults["TRANSPOSE_CONV", 8, "float32"] or "")
    assert faults["CONV_2D", 8, "int8"] is None
    assert (8, "float32") not in found.profile.kernels["FULLY_CONNECTED"]
    assert found.profile.runtime.threads == found.facts["cores"]


@pytest.mark.parametrize(("scale", "said"), [(1.2, "off by 20%"), (float("nan"), "are no numbers")])
def test_outputs_that_are_wrong_are_seen(monkeypatch: pytest.MonkeyPatch, scale: float, said: str) -> None:
    monkeypatch.setattr(probing, "LAYER_OPS", ("FULLY_CONNECTED", "CONV_2D"))
    real = Host.outputs

    def wrong(host: Host, model: bytes, inputs: list[Array]) -> tuple[Array, ...]:
        outputs = real(host, model, inputs)
        return tuple(o * np.float32(scale) for o in outputs) if outputs[0].ndim == 2 else outputs

    monkeypatch.setattr(Host, "outputs", wrong)
    found = probe("here", "local", runtime="ai-edge-litert", threads=1)
    faults = [t.fault for t in found.kernels if t.op == "FULLY_CONNECTED"]
    assert all(fault and said in fault for fault in faults)
    assert set(found.profile.kernels) == {"CONV_2D"}


def test_a_narrow_container_that_is_slow_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LAYER_OPS", ("FULLY_CONNECTED",))
    monkeypatch.setattr(probing, "MOST_SLOWDOWN", 0.0)
    found = probe("here", "local", runtime="ai-edge-litert", threads=1)
    faults = {(t.bits, t.activations): t.fault for t in found.kernels if t.op == "FULLY_CONNECTED"}
    assert "times as long as 8 bits" in (faults[4, "float32"] or "")
    assert faults[8, "float32"] is None


def test_a_kernel_that_is_much_slower_than_the_float_one_is_left_out_with_its_ratio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "LAYER_OPS", ("DEPTHWISE_CONV_2D",))
    monkeypatch.setattr(probing, "MOST_TIMES_FLOAT", 0.0)
    found = probe("here", "local", runtime="ai-edge-litert", threads=1)
    trials = {(t.bits, t.activations): t for t in found.kernels if t.op == "DEPTHWISE_CONV_2D"}
    for pair in ((8, "float32"), (8, "int8")):
        assert (trials[pair].fault or "").startswith(f"slow: takes {trials[pair].times_float:.3g} times as long as")
    assert found.profile.kernels["DEPTHWISE_CONV_2D"] == ((32, "float32"),)
    ratio = f"{trials[8, 'int8'].times_float:.3g}"
    assert f"DEPTHWISE_CONV_2D [8, int8] {ratio}" in found.profile.sources["kernels"]


def test_what_xnnpack_leaves_is_told_where_the_runtime_has_a_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LAYER_OPS", ("DEPTHWISE_CONV_2D",))
    found = probe("here", "local", runtime="ai-edge-litert", threads=1)
    assert found.profile.not_delegated == {"DEPTHWISE_CONV_2D": ((8, "float32"),)}
    assert {t.delegated for t in found.kernels if t.fault is None and t.bits == 32} == {True}


def test_the_command_writes_a_profile_that_is_found_by_name(
    own_profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "LAYER_OPS", ("FULLY_CONNECTED",))
    arguments = ["device", "probe", "local", "--name", "bench", "--threads", "1"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["profile"] == str(own_profiles / "bench.yaml")
    assert {kernel["op"] for kernel in found["kernels"]} == {"FULLY_CONNECTED", "DENSIFY"}
    profile = load_device("bench")
    assert profile.host == "local"
    assert profile.runtime.threads == 1
    done = CliRunner().invoke(app, arguments)
    assert "autocompress search --device bench" in done.stdout
    assert (own_profiles / "bench.yaml.bak").exists()


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["local", "--name", "a/b"], "profile name 'a/b'", 2),
        (["-oProxyCommand=true"], "No such option", 2),
        (["local", "--runtime", "tflite"], "did you mean", 2),
        (["local", "--threads", "9999"], "256", 2),
        (["local", "--threads", "250"], "250 threads exceed", 3),
    ],
)
def test_faults(own_profiles: Path, arguments: list[str], said: str, code: int) -> None:
    done = CliRunner().invoke(app, ["device", "probe", *arguments])
    assert done.exit_code == code
    assert said in done.output
    assert not own_profiles.exists()
