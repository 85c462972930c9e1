"""The gzip that a download is, and the short numbers that make it small."""

from __future__ import annotations

import gzip
import math
import subprocess
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autocompress.compression.download import _parsed, coded_bytes, compressed, deflated, download_bytes
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.short_floats import SCALE_BITS, short
from autocompress.tasks import load_task
from tests.builders.tiny_models import dense_model

RESNET = load_task("fashion-mnist").original
PARTS = st.lists(st.binary(max_size=3000), max_size=6)


@pytest.mark.parametrize("model", [RESNET, load_task("digits").original, dense_model(inputs=3, outputs=2)])
def test_a_download_opens_again(model: bytes) -> None:
    packed = compressed(model)
    assert gzip.decompress(packed) == model
    assert len(packed) == download_bytes(model)
    assert packed[4:8] == b"\0\0\0\0"  # mtime
    assert packed[3] & 0x08 == 0  # no name
    assert len(packed) <= len(zlib.compress(model, 9)) * 1.01 + 12 + 16  # a longer header, a border a part


def test_gzip_itself_opens_it() -> None:
    done = subprocess.run(["gzip", "-dc"], input=compressed(RESNET), capture_output=True, check=True)
    assert done.stdout == RESNET


@given(PARTS)
@example([b""])
def test_parts_stand_behind_one_another_in_one_stream(parts: list[bytes]) -> None:
    stream = b"".join(deflated(parts)) + b"\x03\x00"
    assert zlib.decompress(stream, wbits=-15) == b"".join(parts)


def test_layers_of_unlike_levels_do_not_spoil_each_others_code() -> None:
    rng = np.random.default_rng(0)
    few, many = (rng.integers(-n, n + 1, 6000).astype(np.int8).tobytes() for n in (1, 60))
    apart = sum(map(len, deflated([few, many])))
    entropy = 6000 / 8 * (math.log2(3) + math.log2(121))
    assert apart < entropy * 1.06
    assert apart < 0.95 * len(deflated([few + many])[0])


def test_what_is_coded_without_matches_is_what_the_download_holds_for_weights() -> None:
    weights = np.rint(np.random.default_rng(0).normal(0, 1.5, 20_000)).astype(np.int8).tobytes()
    assert coded_bytes(weights) == len(deflated([weights])[0])


def sparse_levels(zeros: float, size: int, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    levels = rng.choice([-3, -2, -1, 1, 2, 3], size) * (rng.random(size) >= zeros)
    return bytes(levels.astype(np.int8).tobytes())


@pytest.mark.parametrize("zeros", [0.95, 0.9, 0.85])
def test_layers_that_are_mostly_zero_are_parsed_better_than_zlib_does(zeros: float) -> None:
    part = sparse_levels(zeros, 40_000)
    assert len(deflated([part])[0]) < 0.94 * len(zlib.compress(part, 9))


@settings(deadline=None)
@given(zeros=st.floats(0.7, 1), size=st.integers(0, 3000), seed=st.integers(0, 99))
def test_sparse_parts_stand_behind_one_another_too(zeros: float, size: int, seed: int) -> None:
    parts = [sparse_levels(zeros, size, seed), b"\1\2\3", sparse_levels(zeros, size + 1, seed)]
    assert zlib.decompress(b"".join(deflated(parts)) + b"\x03\x00", wbits=-15) == b"".join(parts)


def test_every_zopfli_block_is_taken_over() -> None:
    """Whichever bit the block ends on."""
    for size in range(400, 440):
        part = sparse_levels(0.8, size, size)
        assert len(_parsed(part)) == 1


def test_constants_are_found_where_they_lie() -> None:
    tree = flatbuffer.read(RESNET)
    wanted = sorted(bytes(buffer.data) for buffer in tree.buffers if buffer.data is not None)
    spans = flatbuffer.constants(RESNET)
    assert sorted(RESNET[span] for span in spans) == wanted
    assert [span.start for span in spans] == sorted(span.start for span in spans)


positive = st.floats(1e-20, 1e20)


@given(value=positive, bits=st.integers(1, 12))
def test_short_numbers_are_near_and_short(value: float, bits: int) -> None:
    near, above = float(short(value, bits)), float(short(value, bits, up=True))
    assert abs(near - value) <= value * 2.0 ** -(bits + 1) * (1 + 1e-12)
    assert value <= above <= value * (1 + 2.0**-bits) * (1 + 1e-12)
    for found in (near, above):
        mantissa = math.frexp(found)[0] * 2 ** (bits + 1)
        assert mantissa == int(mantissa)
        assert float(short(found, bits)) == float(short(found, bits, up=True)) == found


@given(a=positive, b=positive)
def test_products_of_short_scales_are_exact_in_float32(a: float, b: float) -> None:
    x, y = np.float32(short(a / 1e10)), np.float32(short(b / 1e10))
    if np.isfinite(x * y) and x * y > 1e-30:
        assert float(x * y) == float(x) * float(y)
        assert float(short(float(x * y), 2 * SCALE_BITS + 1)) == float(x * y)


def test_zero_is_short() -> None:
    assert short(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
