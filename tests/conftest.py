"""What tests share: no device profile of this machine's user is found; a Python and a board of their own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocompress.tasks.fashion_mnist import files
from tests.builders import edge_host
from tests.builders.edge_host import Board
from tests.builders.network_data import UnavailableError, apt
from tests.marks import LONG, file_of, is_left_out, marks_of


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return is_left_out(file_of(collection_path), config.option.markexpr) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(name) if (name := file_of(item.path)) in LONG else len(LONG))
    for item in items:
        for mark in marks_of(file_of(item.path), getattr(item, "fixturenames", ())):
            item.add_marker(mark)


@pytest.fixture(scope="module", autouse=True)
def own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Profiles and conversions that one file's tests keep are not found by another's, whichever ran first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def fashion_mnist() -> None:
    """The Debian package that the built-in task reads, installed once a machine."""
    if not files.DEBIAN_FOLDER.is_dir():
        with contextlib.suppress(UnavailableError):  # the tests that need it then say what to install
            apt("install", "-y", "dataset-fashion-mnist")


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Python with a temporary folder, so a cache and a lock, of its own."""
    (tmp_path / "tmp").mkdir()
    return ["/usr/bin/env", f"TMPDIR={tmp_path / 'tmp'}", sys.executable]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    with edge_host.board(tmp_path / "board") as board:
        for name, value in board.environment().items():
            monkeypatch.setenv(name, value)
        yield board
