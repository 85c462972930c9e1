"""A real PostgreSQL server for the tests, on a loopback port."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.builders.edge_host import unavailable
from tests.builders.network_data import UnavailableError, apt


class Server:
    """A server that can be stopped and started again. `url` reaches its database."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs, self._folder, self._user = programs, folder, user
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._port = int(found.getsockname()[1])
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "tester", "--no-sync")
        self.url = f"postgresql://tester@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        """At once: connections are cut."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        user: dict[str, Any] = {} if self._user is None else {"user": self._user, "group": self._user}
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            cwd=self._folder,
            text=True,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            **user,
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"


def _programs() -> Path | None:
    beside = shutil.which("pg_ctl")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return Path(beside).parent if beside else found[-1].parent if found else None


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server that runs. Installed where that is possible and it is missing; else the test is skipped with the
    reason, with CI=true it fails."""
    root = os.geteuid() == 0
    try:
        if _programs() is None and root:
            apt("install", "-y", "--no-install-recommends", "postgresql")
    except UnavailableError as reason:
        unavailable(str(reason))
    programs = _programs()
    if programs is None:
        unavailable("no PostgreSQL server on this machine; apt-get install postgresql")
        return
    folder = Path(tempfile.mkdtemp(prefix="autocompress-postgresql-"))
    try:
        if root:  # which the server refuses to run as
            shutil.chown(folder, "postgres", "postgres")
        made = Server(programs, folder, "postgres" if root else None)
        made.start()
        try:
            yield made
        finally:
            with contextlib.suppress(AssertionError):  # stopped by the test
                made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
