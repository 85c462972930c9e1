"""The runtimes that tests measure with; tflite-runtime has no wheel for Python 3.12 and later."""

from __future__ import annotations

import importlib.util

import pytest

LITERT, TFLITE = "ai-edge-litert", "tflite-runtime"
HAS_TFLITE = importlib.util.find_spec("tflite_runtime") is not None
needs_tflite = pytest.mark.skipif(not HAS_TFLITE, reason="tflite-runtime has no wheel for this Python")
BOTH = [LITERT, pytest.param(TFLITE, marks=needs_tflite)]
