"""What rides behind a `.tflite`: an archive of labels, read strictly by the offsets that stand in the file."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.errors import AutocompressError
from autocompress.export import android
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.appended import Appended, appended
from autocompress.network.tflite.interpreter import Runner
from autocompress.tasks import digits
from tests.builders.command_line import call
from tests.builders.optional import present

LABELS = {"labels.txt": b"zero\none\ntwo\n" * 40, "vocabulary/words.txt": bytes(range(256)) * 3}
MODEL = digits.NETWORK.read_bytes()


def with_files(model: bytes, files: dict[str, bytes], *, deflated: bool = False) -> bytes:
    """As MetadataPopulator does it: an archive opened on the network's bytes, to append."""
    stream = io.BytesIO(model)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def strictly_read(file: bytes) -> dict[str, bytes]:
    """The stored files, by offsets that count from the beginning of the file, as C readers take them."""
    end = file.rindex(b"PK\x05\x06")
    count, _, at = struct.unpack_from("<HII", file, end + 10)
    found = {}
    for _ in range(count):
        assert file[at : at + 4] == b"PK\x01\x02"
        method, size = struct.unpack_from("<H", file, at + 10)[0], struct.unpack_from("<I", file, at + 24)[0]
        name, extra, comment = struct.unpack_from("<HHH", file, at + 28)
        (local,) = struct.unpack_from("<I", file, at + 42)
        assert method == 0
        assert file[local : local + 4] == b"PK\x03\x04"
        start = local + 30 + sum(struct.unpack_from("<HH", file, local + 26))
        found[file[at + 46 : at + 46 + name].decode()] = file[start : start + size]
        at += 46 + name + extra + comment
    assert at == end
    return found


def test_an_archive_moves_with_the_network_in_front_of_it() -> None:
    model = with_files(MODEL, LABELS)
    written = flatbuffer.write(flatbuffer.read(model))
    assert strictly_read(written) == LABELS
    assert appended(written) is not None
    assert written[: len(flatbuffer.write(flatbuffer.read(MODEL)))] == flatbuffer.write(flatbuffer.read(MODEL))


@pytest.mark.parametrize("behind", [b"", b"a comment"])
def test_an_archive_that_counts_from_its_own_beginning(behind: bytes) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.comment = behind
        for name, content in LABELS.items():
            archive.writestr(name, content)
    assert strictly_read(flatbuffer.write(flatbuffer.read(MODEL + stream.getvalue()))) == LABELS


@given(st.dictionaries(st.text("abc/", min_size=1, max_size=8), st.binary(max_size=60), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_any_files_in_front_of_any_network(files: dict[str, bytes]) -> None:
    found = appended(with_files(b"x" * 33, files))
    assert found is not None
    for front in (b"", b"y" * 7, b"y" * 100):
        assert strictly_read(found.behind(front)) == files
        again = appended(found.behind(front))
        assert again is not None
        assert again.behind(front) == found.behind(front)


def test_compressed_entries_stay_what_they_are() -> None:
    written = flatbuffer.write(flatbuffer.read(with_files(MODEL, LABELS, deflated=True)))
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == LABELS
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}


def test_nothing_behind_and_four_bytes_that_only_look_like_it() -> None:
    assert appended(MODEL) is None
    assert appended(MODEL + b"PK\x05\x06" + bytes(40)) is None


def test_offsets_beyond_four_gigabytes_are_one_line() -> None:
    found = appended(with_files(MODEL, LABELS))
    assert found is not None
    data = bytearray(found.data)
    struct.pack_into("<I", data, found.directory + 42, 0xFFFFFFFF)
    with pytest.raises(AutocompressError, match="ZIP64"):
        Appended(data=bytes(data), directory=found.directory, offset=found.offset).behind(b"")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a network with metadata of several kinds and an archive behind it."""
    folder = tmp_path_factory.mktemp("appended")
    about = android.About(name="digits", description="d", version="1", licence=None, normalisation=(0.0, 16.0))
    tree = flatbuffer.read(android.with_metadata(MODEL, about))
    metadata = present(tree.metadata)
    entry = type(metadata[0])()
    entry.name, entry.buffer = b"my_company_notes", len(tree.buffers)
    tree.buffers.append(type(tree.buffers[0])())
    tree.buffers[-1].data = np.frombuffer(b"for the record", np.uint8)
    tree.metadata = [*metadata, entry]
    (folder / "net.tflite").write_bytes(with_files(flatbuffer.write(tree), LABELS))
    splits = digits.splits()
    arrays = {f"{axis}_{name}": part for name, pair in splits.items() for axis, part in zip("xy", pair, strict=True)}
    np.savez(folder / "data.npz", **arrays)
    words = ["--model", folder / "net.tflite", "--data", folder / "data.npz", "--metric", "accuracy"]
    done = call(
        "search", "--device", "rpi4", "--space", "channels", "--trials", 6, "--study", "own", "--runs", folder, *words
    )
    assert done.exit_code == 0, done.output
    return folder


def metadata_of(file: bytes) -> dict[bytes, bytes]:
    tree = flatbuffer.read(file)
    return {present(each.name): bytes(present(tree.buffers[each.buffer].data)) for each in present(tree.metadata)}


def test_every_candidate_carries_it(searched: Path) -> None:
    own = metadata_of((searched / "net.tflite").read_bytes())
    files = list((searched / "own" / "artifacts").glob("*.tflite"))
    assert len(files) > 3
    for path in files:
        assert strictly_read(path.read_bytes()) == LABELS
        found = metadata_of(path.read_bytes())
        assert {name: found[name] for name in own if name != b"CONVERSION_METADATA"} == {
            name: content for name, content in own.items() if name != b"CONVERSION_METADATA"
        }


@pytest.mark.parametrize("form", ["tflite", "android", "c"])
def test_every_exported_file_carries_it(searched: Path, tmp_path: Path, form: str) -> None:
    picks = ["best"] if form != "c" else [str(number) for number in range(6)]  # not all trials are for microcontrollers
    words = ["--to", tmp_path, "--format", form, "--runs", searched]
    assert any(call("export", "own", "--pick", pick, *words).exit_code == 0 for pick in picks)
    assert list(tmp_path.glob("*.tflite"))
    for path in tmp_path.glob("*.tflite"):
        assert strictly_read(path.read_bytes()) == LABELS
        assert metadata_of(path.read_bytes())[b"my_company_notes"] == b"for the record"
        assert Runner(path.read_bytes(), 1).outputs
    verified = subprocess.run([sys.executable, tmp_path / "verify.py"], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
