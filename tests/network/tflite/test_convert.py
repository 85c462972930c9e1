"""Conversion of real files of every accepted kind, made by the frameworks themselves in a child process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from autocompress.errors import AutocompressError
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.convert import to_float_tflite
from autocompress.network.tflite.interpreter import Runner
from tests.builders.framework_files import MAKE_FILES
from tests.builders.project import ROOT

GOOD = ("keras3.keras", "keras3.h5", "keras2.keras", "keras2.hdf5", "saved")
BAD = ("lambda.keras", "igamma", "truncated.keras", "truncated.h5", "text.h5", "damaged_saved")

Outcomes = Mapping[str, bytes | AutocompressError]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind, and damaged ones."""
    folder = tmp_path_factory.mktemp("models")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", MAKE_FILES, str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    for name in ("keras3.keras", "keras3.h5"):
        content = (folder / name).read_bytes()
        (folder / f"truncated{Path(name).suffix}").write_bytes(content[: len(content) // 2])
    (folder / "text.h5").write_text("no network\n")
    shutil.copytree(folder / "saved", folder / "damaged_saved")
    (folder / "damaged_saved" / "saved_model.pb").write_bytes(b"\xff" * 100)
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> Outcomes:
    """What becomes of each file; two conversions at a time, for they are child processes."""

    def outcome(name: str) -> bytes | AutocompressError:
        try:
            return to_float_tflite(folder / name)
        except AutocompressError as fault:
            return fault

    names = (*GOOD, *BAD)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(outcome, names), strict=True))


@pytest.mark.parametrize("name", GOOD)
def test_converted_network_says_what_its_framework_says(name: str, outcomes: Outcomes, folder: Path) -> None:
    model = outcomes[name]
    assert isinstance(model, bytes), model
    runner = Runner(flatbuffer.normalise(model), 1)
    outputs = runner.run({runner.inputs[0].name: np.load(folder / "x.npy")})
    np.testing.assert_allclose(outputs, np.load(folder / f"{Path(name).stem}.npy"), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lambda.keras", "Lambda"),
        ("igamma", "TFLite has no operator for Igamma"),
        ("truncated.keras", "file signature not found"),
        ("truncated.h5", "truncated file"),
        ("text.h5", "file signature not found"),
        ("damaged_saved", "cannot be converted: "),
    ],
)
def test_what_cannot_be_converted_is_one_line(name: str, message: str, outcomes: Outcomes) -> None:
    fault = outcomes[name]
    assert isinstance(fault, AutocompressError)
    assert message in str(fault)
    assert name in str(fault)
    assert "\n" not in str(fault)
    assert len(str(fault)) < 500 + len(str(Path(name)))


def test_a_tflite_comes_back_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(b"whatever, it is checked on intake")
    assert to_float_tflite(path) == path.read_bytes()


def test_conversion_prints_nothing_and_keeps_tensorflow_out(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from autocompress.network.tflite.convert import to_float_tflite; "
        "to_float_tflite(pathlib.Path(sys.argv[1])); assert 'tensorflow' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(folder / "keras3.keras")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}  # with nothing in it
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
    assert done.stdout + done.stderr == b""
    assert len(list(tmp_path.rglob("*.tflite"))) == 1


def test_wrong_kinds_of_path_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(AutocompressError, match=r"net\.tflite' does not exist"):
        to_float_tflite(tmp_path / "net.tflite")
    with pytest.raises(AutocompressError, match=r"has no saved_model\.pb"):
        to_float_tflite(tmp_path)
    (tmp_path / "net.kears").write_text("x")
    with pytest.raises(AutocompressError, match=r"'\.kears'; did you mean '\.keras'"):
        to_float_tflite(tmp_path / "net.kears")
    (tmp_path / "net.onnx").write_text("x")
    with pytest.raises(AutocompressError, match=r"'\.onnx'; choose one of: \.h5, \.hdf5, \.keras, \.tflite"):
        to_float_tflite(tmp_path / "net.onnx")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(AutocompressError, match=r"empty\.h5' is empty"):
        to_float_tflite(tmp_path / "empty.h5")
