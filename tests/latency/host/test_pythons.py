"""Pythons that an edge host may have: from the oldest that the agent takes to the newest on this machine, with the
packages that a user has there."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from autocompress.errors import CandidateError, DeviceError
from autocompress.latency.host.agent import RUNTIMES
from autocompress.latency.host.client import Host
from autocompress.latency.host.connection import Connection
from tests.builders import edge_host
from tests.builders.optional import present
from tests.builders.tiny_models import crashing_model, dense_model

LITERT, TFLITE = "ai-edge-litert", "tflite-runtime"
MODEL = dense_model(inputs=128, outputs=64)
HERE = sys.version_info.minor
PLACES = (
    *Path.home().glob(".pyenv/versions/3.*/bin/python"),
    *Path("/usr/bin").glob("python3.*"),
    *Path("/usr/local/bin").glob("python3.*"),
)


def pythons() -> dict[int, str]:
    """The Pythons from 3.8 on of this machine by their minor version, the oldest first; this one in any case."""
    found = {HERE: sys.executable}
    for path in PLACES:
        if version := re.search(r"/versions/3\.(\d+)\.\d+/bin/python$|/python3\.(\d+)$", str(path)):
            found.setdefault(int(version[1] or version[2]), str(path))
    return {minor: found[minor] for minor in sorted(found) if minor >= 8}


PYTHONS = pythons()


@pytest.mark.parametrize("minor", PYTHONS)
def test_the_agent_serves_under_every_python(command: list[str], minor: int) -> None:
    """With warnings as errors and no package at all: what is missing is said, and requests are answered."""
    connection = Connection([*command[:-1], PYTHONS[minor], "-S", "-W", "error"], start_s=60.0, silence_s=60.0)
    try:
        facts, _ = connection.call({"request": "hello", "runtime": LITERT})
        assert facts["python"].startswith(f"3.{minor}.")
        missing = {"failure": "ModuleNotFoundError: No module named 'numpy'"}
        assert facts["runtimes"] == dict.fromkeys(RUNTIMES, missing)
        assert connection.call({"request": "put", "sha256": "a", "keep": []}, MODEL) == ({}, b"")
        assert connection.call({"request": "has", "sha256": ["a", "b"]}) == ({"missing": ["b"]}, b"")
    finally:
        connection.close()


def runtime_of(minor: int) -> tuple[str, list[str]]:
    """A runtime and what `pip` is asked for: the last tflite-runtime up to Python 3.11, else what is used here."""
    if minor <= 11:
        return TFLITE, ["tflite-runtime==2.14.0", "numpy<2"]
    return LITERT, [f"ai-edge-litert=={metadata.version(LITERT)}", "numpy"]


@pytest.mark.parametrize("minor", dict.fromkeys((next(iter(PYTHONS)), list(PYTHONS)[-1])))
def test_the_oldest_and_the_newest_python_measure(command: list[str], minor: int) -> None:
    """With numpy and a runtime, and nothing else that these may ask for."""
    runtime, wanted = runtime_of(minor)
    site = edge_host.packages(f"3.{minor}", wanted)
    with Host([*command[:-1], f"PYTHONPATH={site}", PYTHONS[minor], "-S"], runtime=runtime, threads=1) as host:
        found = host.measure(MODEL, baseline=MODEL, processes=2)
        assert present(found.latency_ms) > 0
        assert found.environment is not None
        assert found.environment.python.startswith(f"3.{minor}.")
        assert host.outputs(dense_model(), [np.zeros((3, 8), np.float32)])[0].shape == (3, 4)
        with pytest.raises(CandidateError):
            host.measure(crashing_model())
        profile = host.profile(MODEL)
        assert (profile.ops is None) == (runtime == TFLITE), profile.reason


@pytest.mark.skipif(HERE > 11, reason="tflite-runtime has no wheel for this Python")
def test_numpy_2_under_tflite_runtime(command: list[str]) -> None:
    """The real ones: the runtime would load, and then open no file."""
    site = edge_host.packages(f"3.{HERE}", ["tflite-runtime==2.14.0", "numpy>=2,<3"])
    said = r"tflite-runtime 2\.14\.0 crashes under numpy 2\.\S+: install 'numpy<2' there"
    with (
        pytest.raises(DeviceError, match=said),
        Host([*command[:-1], f"PYTHONPATH={site}", sys.executable, "-S"], runtime=TFLITE, threads=1),
    ):
        pytest.fail("it can be used")
