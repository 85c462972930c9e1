"""Edge hosts for tests: a board behind a real ssh server on a loopback port, and the Python and the tflite-runtime
wheel of a Raspberry Pi under qemu. Neither changes anything on this machine: a server of its own, packages unpacked
below `.pytest_cache`."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.builders.network_data import UnavailableError, apt
from tests.builders.processes import children, is_dead, wait_for
from tests.builders.project import CACHE

VERSION = 1  # raise it when what is unpacked changes
ARM64_PACKAGES = (
    "libc6",
    "libstdc++6",
    "libgcc-s1",
    "zlib1g",
    "libexpat1",
    "libffi8",
    "libssl3",
    "libbz2-1.0",
    "liblzma5",
    "libsqlite3-0",
    "libgomp1",
    "libatomic1",
    "libcrypt1",
    "libuuid1",
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3.11",
)
WHEELS = ("numpy==1.26.4", "tflite-runtime==2.14.0")
PLATFORMS = ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "manylinux_2_34_aarch64")
BOOT_ID = "/proc/sys/kernel/random/boot_id"


# A Raspberry Pi's Python


def aarch64_python() -> list[str]:
    """The command that starts Python 3.11 of 64-bit Debian 12, with numpy 1.26 and tflite-runtime 2.14, under qemu as
    a Cortex-A72. Made once per machine; where that is not possible the test is skipped with the reason, with CI=true
    it fails."""
    folder = _made("aarch64", _make_aarch64)
    # The default processor has instructions that a Raspberry Pi 4 lacks.
    return [
        f"{folder}/host/usr/bin/qemu-aarch64-static",
        "-cpu",
        "cortex-a72",
        "-L",
        f"{folder}/root",
        f"{folder}/root/usr/bin/python3.11",
    ]


def packages(version: str, wanted: Sequence[str]) -> Path:
    """A folder with these packages, and none that they depend on, for a Python of that version on this machine."""

    def make(folder: Path) -> None:
        _run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--target",
                str(folder),
                "--no-deps",
                "--no-compile",
                "--only-binary=:all:",
                "--python-version",
                version,
                *wanted,
            ]
        )

    words = "-".join(wanted).translate(str.maketrans("<>=,", "____"))
    return _made(f"python{version}-{words}", make)


def faketime() -> Path:
    """The library that lets a process see another time, to be preloaded."""
    (library,) = _made("faketime", lambda folder: _unpack(["libfaketime"], folder)).rglob("libfaketime.so.1")
    return library


def _made(name: str, make: object) -> Path:
    assert callable(make)
    folder = CACHE / f"{name}-{VERSION}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder.parent))
        try:
            make(partial)
            partial.chmod(0o755)
            with contextlib.suppress(OSError):  # another test run was faster
                partial.rename(folder)
        except (UnavailableError, subprocess.CalledProcessError) as reason:
            said = getattr(reason, "stderr", None) or ""
            unavailable(f"{name}: {reason} {' '.join(said.split())[-300:]}")
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def unavailable(reason: str) -> None:
    """Skip the test; with CI=true it fails."""
    stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    stop(reason)


def _make_aarch64(folder: Path) -> None:
    _unpack(["qemu-user-static"], folder / "host")
    _unpack(ARM64_PACKAGES, folder / "root", architecture="arm64")
    site = folder / "root" / "usr" / "lib" / "python3" / "dist-packages"
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    target = ["--target", str(site), "--no-deps", "--only-binary=:all:", "--python-version", "3.11"]
    _run([sys.executable, "-m", "pip", "install", "--quiet", *target, "--no-compile", *platforms, *WHEELS])


def _unpack(packages: Sequence[str], folder: Path, architecture: str | None = None) -> None:
    """Unpack Debian packages into a folder, fetched by an apt with lists of its own: the system's stay as they are."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise UnavailableError("there is no apt-get")
    with tempfile.TemporaryDirectory() as state:
        for name in ("lists/partial", "archives/partial"):
            (Path(state) / name).mkdir(parents=True)
        (Path(state) / "status").touch()
        options = {"Dir::State": state, "Dir::State::status": f"{state}/status", "Dir::Cache": state}
        if architecture is not None:
            options |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
        if os.geteuid() == 0:
            options["APT::Sandbox::User"] = "root"  # the usual one may not write into this folder
        command = ["apt-get", "-qq", *(w for item in options.items() for w in ("-o", "=".join(item)))]
        _run([*command, "update"], cwd=state)
        _run([*command, "download", *packages], cwd=state)
        for package in Path(state).glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), str(folder)])


def _run(command: Sequence[str], cwd: str | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)


# A board behind ssh


class Board:
    """A host named `board` that only ssh reaches: sshd with keys of its own on a loopback port, and the client with a
    configuration of its own. It has a `python3`, this one unless a test replaces it, a temporary folder (so a
    cache and a lock) and a boot id of its own. Its processes are known by that folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tmp, self.port = folder, folder / "tmp", free_port()
        self.sockets = Path(tempfile.mkdtemp(prefix="edge"))  # short: a Unix socket's path has 107 characters
        for name in ("tmp", "bin", "client", "site"):
            (folder / name).mkdir(parents=True)
        self._server: subprocess.Popen[bytes] | None = None
        self._ssh = shutil.which("ssh")
        for key in ("host_key", "client_key", "other_key"):
            _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/{key}"])
        self.accept("client_key")
        self.know("host_key")
        self.set_python([sys.executable])
        self.reboot()
        (folder / "ssh_config").write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {self.port}\n  User {getpass.getuser()}\nHost *\n"
            f"  IdentityFile {folder}/client_key\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        )
        self.set_client()
        self._configure()

    def _configure(self) -> None:
        # A boot id of its own: the file that this Python's `open` finds in its place.
        (self.folder / "site" / "sitecustomize.py").write_text(
            "import builtins\nreal = builtins.open\n"
            f"def opened(file, *more, **named):\n    there = {str(self.folder / 'boot_id')!r}\n"
            f"    return real(there if file == {BOOT_ID!r} else file, *more, **named)\nbuiltins.open = opened\n"
        )
        there = {"TMPDIR": self.tmp, "PYTHONPATH": self.folder / "site", "PATH": f"{self.folder}/bin:/usr/bin:/bin"}
        # The account's own shell is behind the server, whatever it is set up to do: what is asked for gets a plain one.
        words = " ".join(f"{name}={value}" for name, value in there.items())
        shell = self._script("shell", f'export {words}; eval "exec $SSH_ORIGINAL_COMMAND"')
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            f"ForceCommand {shell}\n"
        )

    def set_client(self, options: str = "") -> None:
        """The client's `ssh`: OpenSSH's, which finds a user's configuration by the password database, whatever HOME
        says."""
        self._script("client/ssh", f'exec {self._ssh} -F {self.folder}/ssh_config {options} "$@"')

    def environment(self) -> dict[str, str]:
        """Under which a client finds this board's ssh."""
        return {"PATH": f"{self.folder}/client:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(self.sockets)}

    def _script(self, name: str, body: str) -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def set_python(self, command: Sequence[str], before: str = ":") -> None:
        """What `python3` is there, and what its start does before."""
        self._script("bin/python3", f'{before}\nexec {" ".join(command)} "$@"')

    def accept(self, key: str) -> None:
        """Accept this key and no other."""
        shutil.copy(self.folder / f"{key}.pub", self.folder / "authorized_keys")

    def know(self, key: str | None) -> None:
        """What the client takes for the host key; None: it knows none."""
        line = "" if key is None else f"[127.0.0.1]:{self.port} {(self.folder / f'{key}.pub').read_text()}"
        (self.folder / "known_hosts").write_text(line)

    def start(self) -> None:
        """Start the server and wait until it listens."""
        with (self.folder / "sshd.log").open("ab") as log:
            command = [_sshd(), "-D", "-e", "-f", f"{self.folder}/sshd_config"]
            self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.folder / "sshd.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def serving(self) -> list[int]:
        """The server's process for each open connection."""
        assert self._server is not None
        return children(self._server.pid)

    def drop(self) -> int:
        """Cut all connections, as a network does; how many there were."""
        serving = self.serving()
        for pid in serving:
            os.kill(pid, signal.SIGKILL)
        return len(serving)

    def stop(self) -> None:
        """Be gone: no server, no connection."""
        if self._server is not None:
            os.kill(self._server.pid, signal.SIGSTOP)  # it accepts nobody while the connections are cut
            self.drop()
            self._server.kill()
            self._server.wait()
            self._server = None

    def reboot(self) -> None:
        """Another boot id, as after a reboot."""
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")

    def processes(self) -> list[int]:
        """What runs there."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"TMPDIR={self.tmp}".encode() in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
        return [pid for pid in found if not is_dead(pid)]

    def agent(self) -> int:
        """The agent's process."""
        running = self.processes()
        return next(pid for pid in running if os.path.exists(f"/proc/{pid}") and not _has_parent_in(pid, running))

    def measuring(self) -> int:
        """The process that measures, when it has begun."""
        return int(wait_for(lambda: [pid for pid in self.processes() if _has_parent_in(pid, self.processes())])[0])

    def cached(self) -> list[Path]:
        """The models that it keeps."""
        return sorted(self.tmp.glob("autocompress-*/*"))

    def assert_quiet(self) -> None:
        """Nothing runs there any more, and nobody holds the lock."""
        wait_for(lambda: not self.processes())
        if (lock := self.tmp / "autocompress.lock").exists():
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """End the server, what runs there and the client's shared connections."""
        self.stop()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self.sockets.exists():
            with contextlib.suppress(FileNotFoundError):  # a client that ends takes its socket away meanwhile
                shutil.rmtree(self.sockets)


def _has_parent_in(pid: int, others: Sequence[int]) -> bool:
    return any(pid in children(other) for other in others)


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _sshd() -> str:
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return shutil.which("sshd", path=places) or ""


@contextlib.contextmanager
def board(folder: Path) -> Iterator[Board]:
    """A board that is on. OpenSSH's server is installed where that is possible and it is missing; else the test is
    skipped with the reason, with CI=true it fails."""
    try:
        if not _sshd() and os.geteuid() == 0:
            apt("install", "-y", "--no-install-recommends", "openssh-server", "openssh-client")
    except UnavailableError as reason:
        unavailable(str(reason))
    if not _sshd() or shutil.which("ssh") is None:
        unavailable("no ssh server on this machine; apt-get install openssh-server openssh-client")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where the server's unprivileged half is locked in
    made = Board(folder)
    try:
        made.start()
        yield made
    finally:
        made.close()
