"""What tests share: no device profile of this machine's user is found; a Python and a board of their own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import edge_host
import pytest
from edge_host import Board

# Set before any test runs, so that child processes inherit it.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="autocompress-tests-")


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
