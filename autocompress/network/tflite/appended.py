"""The archive behind a `.tflite`: a ZIP with the files that TFLite metadata name (labels, vocabularies), as MediaPipe
and the Task Library read them. Runtimes do not see it. Where the network in front of it becomes another one, its
offsets, which count from the beginning of the file, move with it; its entries stay what they are, byte for byte."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass

from autocompress.errors import AutocompressError

_ENTRY, _END = b"PK\x01\x02", b"PK\x05\x06"  # of the central directory, and behind it
_ENTRY_BYTES, _LENGTHS_AT, _OFFSET_AT = 46, 28, 42
_DIRECTORY_AT = 16  # in the record behind the directory: where that begins
_LARGE = 0xFFFFFFFF  # the offset stands elsewhere, in ZIP64's records


@dataclass(frozen=True, kw_only=True)
class Appended:
    """The bytes of an archive, and where in them its `directory` begins. `offset`: where in a file it stood."""

    data: bytes
    directory: int
    offset: int

    def behind(self, model: bytes) -> bytes:
        """The network with this archive behind it. AutocompressError for one of more than 4 GB."""
        moved, at = bytearray(self.data), self.directory
        while moved[at : at + 4] == _ENTRY:
            _move(moved, at + _OFFSET_AT, len(model) - self.offset)
            at += _ENTRY_BYTES + sum(struct.unpack_from("<HHH", moved, at + _LENGTHS_AT))
        end = moved.index(_END, at)
        struct.pack_into("<I", moved, end + _DIRECTORY_AT, len(model) + self.directory)
        return model + bytes(moved)


def _move(data: bytearray, at: int, by: int) -> None:
    (offset,) = struct.unpack_from("<I", data, at)
    if offset == _LARGE:
        raise AutocompressError("the archive behind the model is a ZIP64 one; append its files in a plain ZIP")
    struct.pack_into("<I", data, at, offset + by)


def appended(model: bytes) -> Appended | None:
    """What stands behind the network; None where nothing does."""
    if _END not in model[-(1 << 16) - 22 :]:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            entries = [entry.header_offset for entry in archive.infolist()]
            directory, first = archive.start_dir, min(entries, default=archive.start_dir)
    except zipfile.BadZipFile:  # four bytes of a constant
        return None
    if not entries:
        return None
    told = struct.unpack_from("<I", model, model.rindex(_END) + _DIRECTORY_AT)[0]
    # Where an archive was put behind a network as it was, its offsets count from its own beginning.
    return Appended(data=model[first:], directory=directory - first, offset=first - (directory - told))
