"""The download: a `.tflite` as a gzip that any inflater opens, each layer's constants coded for themselves.

A Huffman code is shared by all that lies in one deflate block. zlib begins a new block where its buffer is full, not
where a layer ends, so layers of unlike levels spoil each other's code. Here the file is cut where its large constants
begin and end; each part is deflated with the zlib strategy that suits it and closed on a byte border (a sync flush, RFC
1951 section 3.2.4), so the parts stand one behind another in one stream. Where most of a layer is zero, zopfli looks
for a shorter parse: zlib's, which knows no prices, is half as large again as the entropy."""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from autocompress.network.tflite import flatbuffer

_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 2, 255))  # deflate, no name, no time, slowest, no system
_END = b"\x03\x00"  # a last block with nothing in it
_MATCHING = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED)
_CODING = (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)  # weights are like noise: matches hardly ever pay there
_SMALL = 1 << 14  # bytes; in larger parts a thorough search for matches takes most of the time and gains .1 %
_MOST_PARSED = 1 << 18  # bytes; zopfli takes up to a second for 100 KB
_PARSES = 5  # more give .2 %
_LEAST_CUT = 512  # bytes of a constant that is worth a code of its own
_MOST_PADDING = 64  # bytes between two constants that go with the first


def compressed(model: bytes) -> bytes:
    """The file as a gzip: level 9, no name, no time."""
    parts = [model[start:stop] for start, stop in _cuts(len(model), flatbuffer.constants(model))]
    trailer = struct.pack("<II", zlib.crc32(model), len(model) & 0xFFFFFFFF)
    return b"".join([_HEADER, *deflated(parts), _END, trailer])


def download_bytes(model: bytes) -> int:
    """The size of `compressed(model)`."""
    return len(compressed(model))


def deflated(parts: Sequence[bytes]) -> list[bytes]:
    """Each part as deflate blocks that end on a byte border, the smallest over zlib's strategies."""
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:  # zlib lets go of the interpreter lock
        return list(pool.map(_smallest, parts))


def deflated_bytes(part: bytes) -> int:
    """The size of a part in a download."""
    return len(_smallest(part))


def coded_bytes(part: bytes) -> int:
    """The size of a part that is coded without a search for matches: fast, and the best for weights that are not mostly
    zero (see `_parsed`)."""
    return min(len(_deflated(part, 9, strategy)) for strategy in _CODING)


def _smallest(part: bytes) -> bytes:
    no_matches, runs_alone = (_deflated(part, 9, strategy) for strategy in _CODING)
    level = 9 if len(part) <= _SMALL else 6
    found = [no_matches, runs_alone, *(_deflated(part, level, strategy) for strategy in _MATCHING)]
    if len(runs_alone) < len(no_matches) and len(part) <= _MOST_PARSED:
        found += _parsed(part)
    return min(found, key=len)


@lru_cache(maxsize=64)  # a file's layers are asked for again when it is written
def _parsed(part: bytes) -> list[bytes]:
    """The part as zopfli deflates it, as one block that is not the last and the empty one of a sync flush, whose three
    bits lie in the block's last byte or in one more; nothing where zopfli made other blocks."""
    import zopfli.zlib

    block = bytearray(zopfli.zlib.compress(part, numiterations=_PARSES, blocksplitting=0)[2:-4])
    block[0] &= 0xFE
    ways = (bytes(block) + more + b"\0\0\xff\xff" for more in (b"", b"\0"))
    return [way for way in ways if _inflates_to(way + _END, part)]


def _inflates_to(stream: bytes, part: bytes) -> bool:
    inflater = zlib.decompressobj(-15)
    try:
        return inflater.decompress(stream) == part and inflater.eof and not inflater.unused_data
    except zlib.error:
        return False


def _deflated(part: bytes, level: int, strategy: int) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    return stream.compress(part) + stream.flush(zlib.Z_SYNC_FLUSH)


def _cuts(size: int, constants: Sequence[slice]) -> list[tuple[int, int]]:
    """(start, stop) of the parts: one for each large constant with the padding behind it, one for what lies between."""
    borders = [0]
    large = [span for span in constants if span.stop - span.start >= _LEAST_CUT]
    for n, span in enumerate(large):
        after = large[n + 1].start if n + 1 < len(large) else size
        borders += [span.start, after if after - span.stop <= _MOST_PADDING else span.stop]
    borders.append(size)
    return [(start, stop) for start, stop in itertools.pairwise(borders) if stop > start]
