"""`optuna-dashboard` on the storage of a search: a real server, asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.builders.edge_host import free_port, unavailable
from tests.builders.processes import wait_for
from tests.builders.records import ALL, make_record
from tests.builders.stored_studies import write_study

SERVER = Path(sys.executable).with_name("optuna-dashboard")


def asked(url: str) -> Any:
    """The JSON document there; None while nobody listens."""
    with contextlib.suppress(ConnectionError, urllib.error.URLError), urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)
    return None


def test_the_dashboard_shows_a_study(tmp_path: Path) -> None:
    if not SERVER.exists():
        unavailable("optuna-dashboard is not installed; pip install 'autocompress[dashboard]'")
    write_study(tmp_path, make_record(*ALL, name="shown"))
    port = free_port()
    command = [str(SERVER), "--port", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen([*command, f"sqlite:///{tmp_path}/shown/study.db"], stdout=log, stderr=log)
    try:
        found = wait_for(lambda: server.poll() is not None or asked(f"http://127.0.0.1:{port}/api/studies"))
        assert server.poll() is None, (tmp_path / "server.log").read_text()
    finally:
        server.kill()
        server.wait()
    assert [study["study_name"] for study in found["study_summaries"]] == ["shown"]
