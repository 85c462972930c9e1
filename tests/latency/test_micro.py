"""Microcontrollers: flash is the file, RAM the arena of TensorFlow Lite Micro; no latency."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import autocompress as ac
from autocompress.cli import app
from autocompress.errors import AutocompressError
from autocompress.latency.source import latency_on
from autocompress.network.tflite.micro import check_in_micro, run_drawn
from autocompress.records.kernels import kernel_of
from autocompress.specs import device_names, load_device
from autocompress.tasks import load_task

BOARDS = [name for name in device_names() if load_device(name).runtime.name == "tflite-micro"]
BOARDS = [name for name in BOARDS if load_device(name).compiler is None]
DIGITS = load_task("digits")


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_boards_are_there() -> None:
    wanted = {"nucleo-l4r5zi", "nucleo-h7a3zi", "nucleo-u575zi", "ek-ra8d1", "nucleo-g0b1re", "esp32-s3"}
    assert wanted == set(BOARDS)


@pytest.mark.parametrize(("bits", "activations"), [(32, "float32"), (8, "int8"), (8, "int16")])
def test_the_kernels_of_the_boards_agree_with_the_reference(bits: int, activations: str) -> None:
    x = {name: values[:64] for name, values in DIGITS.x_calibration.items()}
    made = ac.compress(DIGITS.network, x, bits=bits, activations=activations, device=BOARDS[0])
    assert not made.float_layers
    check_in_micro(made.model)
    for name in BOARDS:
        assert kernel_of(load_device(name).kernels, "CONV_2D", bits, activations) is not None


def test_flash_is_the_file_and_ram_its_arena() -> None:
    with latency_on(load_device("nucleo-l4r5zi"), needed=False) as latency:
        found = latency.bind(DIGITS.original)(DIGITS.network, 1)
    assert (found.latency_ms, found.latency_source) == (None, "none")
    assert found.flash_bytes == len(DIGITS.network)
    assert found.ram_bytes == run_drawn(DIGITS.network).arena_bytes


def test_a_missing_runtime_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tflite_micro" else find(name))
    with (
        pytest.raises(AutocompressError, match=re.escape("pip install 'autocompress[mcu]'")),
        latency_on(load_device("nucleo-l4r5zi"), needed=False),
    ):
        pass


def test_a_board_that_runs_no_python_takes_no_host() -> None:
    profile = dataclasses.replace(load_device("nucleo-l4r5zi"), host={"ssh": "pi@board"})
    with pytest.raises(AutocompressError, match="runs no Python that could measure there"), latency_on(profile):
        pass


@pytest.mark.slow
def test_a_search_meets_a_bound_of_ram(tmp_path: Path) -> None:
    words = ("search", "--device", "nucleo-g0b1re", "--task", "digits", "--study", "m0", "--runs", tmp_path)
    done = call(*words, "--trials", "3", "--constraint", "ram_bytes<=14000")
    assert done.exit_code == 0, done.output
    assert "flash holds the file as it is" in done.stdout.replace("\n", " ")
    assert "XNNPACK" not in done.stdout
    front = json.loads(call("report", "m0", "--runs", tmp_path, "--json").stdout)["front"]
    assert front
    for point in front:
        file = (tmp_path / point["artifact"]).read_bytes()
        assert (point["flash_bytes"], point["ram_bytes"]) == (len(file), check_in_micro(file).arena_bytes)
        assert point["ram_bytes"] <= 14000
    exported = call("export", "m0", "--runs", tmp_path, "--to", tmp_path / "out", "--format", "c")
    assert exported.exit_code == 0, exported.output


@pytest.mark.parametrize(("device", "said"), [("nucleo-l4r5zi", "not known"), ("ethos-u55-128", "ms compiled")])
def test_measure_says_what_lies_on_the_chip(tmp_path: Path, device: str, said: str) -> None:
    x = {name: values[:64] for name, values in DIGITS.x_calibration.items()}
    path = ac.compress(DIGITS.network, x, activations="int8").save(tmp_path / "net.tflite")
    done = call("measure", path, "--device", device)
    assert done.exit_code == 0, done.output
    assert said in done.stdout
    assert re.search(r"[\d.]+ KB flash · [\d.]+ KB RAM", done.stdout)
    assert "DEST" not in done.stdout
