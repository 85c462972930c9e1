"""Networks that a converter stumbles over: what is done about them, and that each remedy which is named works."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from autocompress.errors import AutocompressError
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.convert import to_float_tflite
from autocompress.network.tflite.interpreter import Runner
from tests.builders.framework_files import MAKE_AWKWARD

GOOD = ("lstm.keras", "gru2.keras", "mixed3.keras", "mixed2.keras", "twice", "thrice", "ids.keras")
BAD = ("lstm", "twice.keras", "thrice.keras", "text.keras")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("awkward")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", MAKE_AWKWARD, str(folder)], check=True, capture_output=True, env=environment)
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, bytes | AutocompressError]:
    def outcome(name: str) -> bytes | AutocompressError:
        try:
            return to_float_tflite(folder / name)
        except AutocompressError as fault:
            return fault

    names = (*GOOD, *BAD)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(outcome, names), strict=True))


@pytest.mark.parametrize("name", [name for name in GOOD if name != "ids.keras"])
def test_it_says_what_its_framework_says(
    name: str, folder: Path, outcomes: dict[str, bytes | AutocompressError]
) -> None:
    model = outcomes[name]
    assert isinstance(model, bytes), model
    runner = Runner(flatbuffer.normalise(model), 1)
    outputs = runner.run({runner.inputs[0].name: np.load(folder / "x.npy")}, 1)
    atol = 2e-3 if name.startswith("mixed") else 1e-5  # Keras itself computes these in 16 bits
    np.testing.assert_allclose(outputs, np.load(folder / f"{Path(name).stem}.npy"), atol=atol)


@pytest.mark.parametrize(
    ("name", "reason", "remedy"),
    [
        ("lstm", "its recurrent layers are of an open batch", "give the Keras model as a .keras file"),
        ("twice.keras", "its layer Twice is code of your own", "model.export('FOLDER')"),
        ("thrice.keras", "its layer Thrice is code of your own", "model.export('FOLDER')"),
        ("text.keras", "it reads text", "behind the tokenizer, with the token ids as its input"),
    ],
)
def test_a_reason_comes_with_a_remedy(
    name: str, reason: str, remedy: str, outcomes: dict[str, bytes | AutocompressError]
) -> None:
    fault = outcomes[name]
    assert isinstance(fault, AutocompressError)
    assert f"{name}' cannot be converted: {reason}" in str(fault)
    assert str(fault).partition("; ")[2].find(remedy) >= 0
    assert "TensorList" not in str(fault)
    assert "\n" not in str(fault)


@pytest.mark.parametrize("name", ["lstm.keras", "twice", "thrice", "ids.keras"])
def test_each_remedy_works(name: str, outcomes: dict[str, bytes | AutocompressError]) -> None:
    assert isinstance(outcomes[name], bytes)
