"""Files in TensorFlow Lite Micro: as LiteRT's reference kernels compute them, or refused with the reason."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

import autocompress as ac
from autocompress.errors import CandidateError
from autocompress.network.tflite import micro
from autocompress.tasks import load_task

DIGITS = load_task("digits")


def compressed(**asked: Any) -> bytes:
    x = {name: values[:64] for name, values in DIGITS.x_calibration.items()}
    return ac.compress(DIGITS.network, x, **asked).model


@pytest.mark.parametrize(("activations", "apart"), [("int8", 0.0), ("int16", 1e-3)])
def test_integer_networks_agree_with_the_reference_kernels(activations: str, apart: float) -> None:
    model = compressed(bits=8, activations=activations)
    ((_, values),) = DIGITS.x_test.items()
    samples = [[value[None]] for value in values[:200]]
    found = micro.run_in_micro(model, samples)
    wanted = micro._reference(model, samples)
    assert len(wanted) == 200
    for own, other in zip(found.outputs, wanted, strict=True):
        np.testing.assert_allclose(own[0], other[0], rtol=0, atol=apart)
    assert 0 < found.persistent_bytes < found.arena_bytes


def test_a_wider_network_needs_a_larger_arena() -> None:
    static, float_network = (
        micro.check_in_micro(model) for model in (compressed(bits=8, activations="int8"), DIGITS.network)
    )
    assert static.arena_bytes < float_network.arena_bytes


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"bits": 8, "activations": "float32"}, "refuses the file: .*Hybrid models are not supported"),
        ({"bits": 16, "activations": "float32"}, "refuses the file: .*DEQUANTIZE.* failed to prepare"),
        ({"bits": 8, "activations": "weight_only"}, "computes something else than LiteRT's reference kernels"),
    ],
)
def test_what_it_does_not_run_is_refused_with_the_reason(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(CandidateError, match=said):
        micro.check_in_micro(compressed(**asked))


def test_a_runtime_that_ends_its_process_takes_nothing_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro, "_run", lambda *_: os.kill(os.getpid(), signal.SIGABRT))
    with pytest.raises(CandidateError, match="SIGABRT"):
        micro.run_in_micro(DIGITS.network, [])
