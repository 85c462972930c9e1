"""Ethos-U devices: the estimate of Arm's compiler equals that of its command line, and searches go by it."""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import autocompress as ac
from autocompress.cli import app
from autocompress.errors import AutocompressError, CandidateError
from autocompress.latency.source import latency_on
from autocompress.records.measurement import Measurement
from autocompress.specs import load_device
from autocompress.specs.device import CompilerTarget, DeviceProfile
from autocompress.tasks import load_task
from tests.builders.project import ROOT

NPUS = sorted(path.stem for path in (ROOT / "device_profiles").glob("ethos-u*.yaml"))
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def int8_file() -> bytes:
    task = load_task("digits")
    x = {name: values[:64] for name, values in task.x_calibration.items()}
    return ac.compress(task.network, x, bits=4, sparsity=0.5, activations="int8").model


def compiled(device: DeviceProfile, file: bytes) -> Measurement:
    with latency_on(device) as latency:
        return latency.bind(file)(file, 1)


def command_line_figures(target: CompilerTarget, file: bytes, folder: Path) -> Mapping[str, str]:
    """What Vela's own command line writes of a file."""
    (folder / "net.tflite").write_bytes(file)
    words = ["--accelerator-config", target.accelerator, "--system-config", target.system_config]
    words += ["--memory-mode", target.memory_mode, "--config", "Arm/vela.ini", "--output-dir", str(folder)]
    vela = [sys.executable, "-m", "ethosu.vela", str(folder / "net.tflite"), *words]
    subprocess.run(vela, check=True, capture_output=True, cwd=folder)
    (summary,) = folder.glob("*_summary_*.csv")
    with summary.open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    return row


@pytest.mark.parametrize("name", NPUS)
def test_figures_are_those_of_the_compilers_command_line(tmp_path: Path, int8_file: bytes, name: str) -> None:
    device = load_device(name)
    assert device.compiler is not None
    found, told = compiled(device, int8_file), command_line_figures(device.compiler, int8_file, tmp_path)
    assert found.compilation is not None
    assert found.latency_source == "compiled"
    assert found.compilation.cycles == float(told["cycles_total"])
    assert found.compilation.npu_cycles == float(told["cycles_npu"])
    assert found.latency_ms == pytest.approx(float(told["inference_time"]) * 1e3, rel=1e-6)
    kilobytes = {key: float(told[f"{key}_memory_used"]) for key in ("sram", "dram", "off_chip_flash")}
    ram_bytes, flash_bytes = found.ram_bytes, found.flash_bytes
    assert ram_bytes is not None
    assert flash_bytes is not None
    assert kilobytes["sram"] + kilobytes["dram"] + kilobytes["off_chip_flash"] == pytest.approx(
        (ram_bytes + flash_bytes) / 1024, abs=0.01
    )


def test_operators_that_stay_on_the_cpu_are_named(int8_file: bytes) -> None:
    made = compiled(load_device("ethos-u85-256"), int8_file).compilation
    assert made is not None
    assert sorted(made.on_cpu) == ["Dequantize", "Quantize"]
    assert made.npu_ops > 0


def test_a_float_file_is_no_fast_network() -> None:
    network = load_task("digits").network
    with pytest.raises(CandidateError, match="gives the NPU no operator of this file; all stay on the CPU"):
        compiled(load_device("ethos-u55-128"), network)


def changed(**target: Any) -> DeviceProfile:
    device = load_device("ethos-u85-256")
    assert device.compiler is not None
    return dataclasses.replace(device, compiler=dataclasses.replace(device.compiler, **target))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"system_config": "Ethos_U85_SYS_Flash_Hihg"}, "did you mean 'Ethos_U85_SYS_Flash_High'"),
        ({"memory_mode": "Shared"}, "Shared_Sram"),
        ({"version": "4.0.0"}, "ethos-u-vela 5.2.0 is installed, the profile's figures are of 4.0.0"),
    ],
)
def test_a_target_that_the_compiler_lacks_is_named(target: dict[str, str], said: str) -> None:
    with pytest.raises(AutocompressError, match=re.escape(said)), latency_on(changed(**target)):
        pass


def test_a_missing_compiler_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ethosu" else find(name))
    with pytest.raises(AutocompressError, match=re.escape("pip install 'autocompress[ethos-u]'")):
        compiled(load_device("ethos-u85-256"), b"")


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.slow
def test_a_search_goes_by_flash_and_compiled_latency(tmp_path: Path) -> None:
    words = ("search", "--device", "ethos-u85-256", "--task", "digits", "--study", "npu", "--runs", tmp_path)
    more = ("--objective", "metric", "--objective", "latency", "--objective", "size", "--objective", "ram")
    done = call(*words, *more, "--trials", "3")
    assert done.exit_code == 0, done.output
    assert "compiled, of plain int8" in done.stdout
    assert "on the CPU, whose time is not in it" in done.stdout.replace("│", "").replace("\n", " ")
    front = json.loads(call("report", "npu", "--runs", tmp_path, "--json").stdout)["front"]
    for point in front:
        again = compiled(load_device("ethos-u85-256"), (tmp_path / point["artifact"]).read_bytes())
        figures = ("latency_ms", "flash_bytes", "ram_bytes")
        assert [point[name] for name in figures] == [getattr(again, name) for name in figures]
    assert call(*words, *more, "--trials", "4").exit_code == 0  # goes on
    exported = call("export", "npu", "--pick", "1", "--runs", tmp_path, "--to", tmp_path / "out")
    assert exported.exit_code == 0, exported.output
    assert "**compiled**: the estimate of ethos-u-vela" in (tmp_path / "out" / "npu-1.md").read_text()


@pytest.mark.parametrize(
    ("device", "words", "said"),
    [
        ("ethos-u85-256", ("--objective", "metric", "--objective", "memory"), "ask for ram instead"),
        ("rpi4", ("--size", "flash"), "flash and RAM are known of microcontrollers and of devices"),
        ("rpi4", ("--constraint", "ram_bytes<=60000"), "flash and RAM are known of microcontrollers and of devices"),
    ],
)
def test_values_of_another_kind_of_device_are_refused(
    tmp_path: Path, device: str, words: tuple[str, ...], said: str
) -> None:
    done = call("search", "-q", "--device", device, "--task", "digits", "--runs", tmp_path, "--trials", "1", *words)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert said in done.stderr


def test_a_profile_is_either_compiled_or_measured(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "device_profiles" / "ethos-u85-256.yaml").read_text())
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document | {"name": "mine", "host": "local"}))
    with pytest.raises(AutocompressError, match="a latency is either compiled or had by host"):
        load_device(str(path))


def test_the_version_that_is_installed_is_the_profiles() -> None:
    versions = {load_device(name).compiler for name in NPUS}
    assert {each.version for each in versions if each} == {importlib.metadata.version("ethos-u-vela")}


@pytest.mark.slow
def test_two_of_four_halves_the_multiplications_of_an_ethos_u85(tmp_path: Path) -> None:
    task = load_task("fashion-mnist")
    x = {name: values[:64] for name, values in task.x_calibration.items()}
    asked: dict[str, Any] = {"bits": 8, "sparsity": 0.5, "activations": "int8"}
    files = [ac.compress(task.network, x, granularity=each, **asked).model for each in ("element", "2:4")]
    anywhere, fours = (compiled(load_device("ethos-u85-256"), file) for file in files)
    assert fours.known_latency_ms < 0.9 * anywhere.known_latency_ms
    older = [compiled(load_device("ethos-u65-256"), file).known_latency_ms for file in files]
    assert older[1] == pytest.approx(older[0], rel=0.02)  # whose hardware knows no such pattern


def test_only_layers_of_whole_fours_are_offered_two_of_four(tmp_path: Path) -> None:
    words = ("search", "--device", "ethos-u85-256", "--task", "digits", "--space", "npu", "--study", "npu")
    assert call(*words, "--runs", tmp_path, "--trials", "1").exit_code == 0
    with ac.open_study(tmp_path / "npu") as study:
        search = study._search
    for layer in search.evaluator.layers:
        offered = {choice.granularity for choice in search.choices[layer.name]}
        assert offered == ({"element", "2:4"} if layer.takes_two_of_four else {"element"})
    assert {layer.takes_two_of_four for layer in search.evaluator.layers} == {True, False}
