"""Converted networks are kept by content, whole, and for any number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock

import pytest

from autocompress.errors import AutocompressError
from autocompress.network.tflite import conversion_cache
from autocompress.network.tflite.conversion_cache import converted, folder
from tests.builders.project import ROOT


class Converter:
    """A conversion that counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = Lock()

    def __call__(self, path: Path) -> bytes:
        with self._lock:
            self.calls += 1
        return b"converted " + (path.read_bytes() if path.is_file() else (path / "saved_model.pb").read_bytes())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def convert() -> Converter:
    return Converter()


def test_the_same_content_is_converted_once_whatever_its_file_is_called(tmp_path: Path, convert: Converter) -> None:
    for name in ("a.keras", "b.keras"):
        (tmp_path / name).write_bytes(b"network")
        assert converted(tmp_path / name, convert) == b"converted network"
    assert convert.calls == 1
    (tmp_path / "a.keras").write_bytes(b"another")
    assert converted(tmp_path / "a.keras", convert) == b"converted another"
    assert convert.calls == 2


def test_any_file_of_a_folder_counts(tmp_path: Path, convert: Converter) -> None:
    saved = tmp_path / "saved"
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(b"graph")
    (saved / "variables" / "data").write_bytes(b"1")
    converted(saved, convert)
    converted(saved, convert)
    assert convert.calls == 1
    (saved / "variables" / "data").write_bytes(b"2")
    converted(saved, convert)
    assert convert.calls == 2


def test_another_version_converts_again(tmp_path: Path, convert: Converter, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5").write_bytes(b"network")
    converted(tmp_path / "a.h5", convert)
    monkeypatch.setattr("importlib.metadata.version", lambda package: f"another {package}")
    converted(tmp_path / "a.h5", convert)
    assert convert.calls == 2


def test_what_was_cut_or_changed_in_the_cache_is_converted_again(tmp_path: Path, convert: Converter) -> None:
    (tmp_path / "a.h5").write_bytes(b"network")
    converted(tmp_path / "a.h5", convert)
    (kept,) = folder().glob("*.tflite")
    kept.write_bytes(b"conv")
    assert converted(tmp_path / "a.h5", convert) == b"converted network"
    assert kept.read_bytes() == b"converted network"


def test_a_failure_is_not_kept(tmp_path: Path, convert: Converter) -> None:
    def fails(_: Path) -> bytes:
        raise AutocompressError("no")

    (tmp_path / "a.h5").write_bytes(b"network")
    with pytest.raises(AutocompressError):
        converted(tmp_path / "a.h5", fails)
    assert converted(tmp_path / "a.h5", convert) == b"converted network"


def test_those_that_were_used_last_stay(tmp_path: Path, convert: Converter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion_cache, "MOST", 2)
    names = [tmp_path / f"{n}.h5" for n in range(3)]
    for second, path in enumerate(names):
        path.write_bytes(path.name.encode())
        converted(path, convert)
        for kept in folder().glob("*.tflite"):
            if kept.read_bytes() == b"converted " + path.read_bytes():
                os.utime(kept, (second, second))
    assert len(list(folder().glob("*.tflite"))) == 2
    converted(names[1], convert)
    converted(names[2], convert)
    assert convert.calls == 3


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, convert: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "a.h5").write_bytes(b"network")
    assert converted(tmp_path / "a.h5", convert) == b"converted network"


def test_of_threads_that_want_the_same_one_converts(tmp_path: Path, convert: Converter) -> None:
    (tmp_path / "a.h5").write_bytes(b"network")
    together = Barrier(4)

    def one() -> bytes:
        together.wait()
        return converted(tmp_path / "a.h5", convert)

    with ThreadPoolExecutor(4) as pool:
        done = [future.result() for future in [pool.submit(one) for _ in range(4)]]
    assert set(done) == {b"converted network"}
    assert convert.calls == 1
    assert len(list(folder().glob("*.tflite"))) == 1
    assert not list(folder().glob(".*"))


def test_processes_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"network")
    code = (
        "import sys, pathlib; from autocompress.network.tflite.conversion_cache import converted\n"
        "print(converted(pathlib.Path(sys.argv[1]), lambda path: b'made of ' + path.read_bytes()).decode())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.h5")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)]
    assert [child.communicate()[0] for child in children] == ["made of network\n"] * 4
    assert [path.read_bytes() for path in folder().glob("*.tflite")] == [b"made of network"]
    assert not list(folder().glob(".*"))
