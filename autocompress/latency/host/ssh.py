"""Hosts over ssh, through the user's own OpenSSH client: its command, and what its faults mean.

Keys, agent, jump hosts and known hosts are those of the user's configuration. Host keys are checked as it says;
nothing here switches that off. One connection is shared by all that goes to a destination and closes a minute after
the last."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autocompress.errors import AutocompressError, DeviceError, NotStartedError, UnreachableError
from autocompress.specs import is_ssh_word

PYTHON = "python3"
CONNECT_S = 15
ALIVE_S, ALIVE_TIMES = 5, 3  # a silent connection is given up after their product
PERSIST_S = 60  # a shared connection without users
_LONGEST_SOCKET = 107 - 17  # a Unix socket's path; OpenSSH adds 17 characters while it makes one
_HASH = 40  # what %C stands for
# The user's configuration may ask for forwardings or a command of its own, which are no business of a measurement.
_OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_S}",
    f"ServerAliveInterval={ALIVE_S}",
    f"ServerAliveCountMax={ALIVE_TIMES}",
    "ClearAllForwardings=yes",
    "RemoteCommand=none",
)
_URI = re.compile(r"(?P<host>ssh://[^/]+)(?:/(?P<python>.+)?)?")
_PLAIN = re.compile(r"(?P<user>[^@:\[\]]+@)?(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^:@\[\]]+))(?::(?P<python>[^:]+)?)?")


def host_of(text: str) -> str | dict[str, str]:
    """The `host` of a device profile for `--host`: `local`, or a destination of ssh with, behind a colon, the Python
    there: user@name, an alias of the ssh configuration, user@[address], ssh://user@name:port; as in
    `pi@raspberrypi:venv/bin/python3` and `ssh://pi@raspberrypi:2222/venv/bin/python3`.

    AutocompressError for anything else."""
    if text == "local":
        return text
    found = _URI.fullmatch(text) if text.startswith("ssh://") else _PLAIN.fullmatch(text)
    if found is None:
        raise AutocompressError(
            f"host '{text}' is no destination; write user@name, user@name:PYTHON, user@[address] or ssh://user@name:port"
        )
    parts = found.groupdict()
    ssh = parts.get("host") or f"{parts['user'] or ''}{parts['address'] or parts['name']}"
    host = {"ssh": ssh} | ({"python": parts["python"]} if parts["python"] else {})
    check_host(host)
    return host


def check_host(host: Mapping[str, Any]) -> None:
    """AutocompressError for a destination or a Python that ssh would not take for one."""
    for word in (host["ssh"], host.get("python", PYTHON)):
        if not is_ssh_word(word):
            raise AutocompressError(f"host '{word}' is empty or begins with '-'; write user@name or user@name:PYTHON")


def ssh_argv(host: Mapping[str, Any]) -> list[str]:
    """The command that starts Python at {ssh: destination, python: its path there}, up to the Python executable."""
    check_host(host)
    options = [*_OPTIONS, *_sharing()]
    words = [word for option in options for word in ("-o", option)]
    return ["ssh", "-T", *words, "--", host["ssh"], _quoted(host.get("python", PYTHON))]


def _quoted(python: str) -> str:
    """The path as the shell there reads it; `~/` stays its home folder."""
    home = "~/" if python.startswith("~/") else ""
    return home + shlex.quote(python.removeprefix(home))


def _sharing() -> list[str]:
    """Options that share one connection; none where no private folder with a short path can be had."""
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), "/tmp"):
        folder = f"{parent}/autocompress-ssh-{os.getuid()}"
        if parent and len(folder) + 1 + _HASH <= _LONGEST_SOCKET and _made_private(folder):
            return ["ControlMaster=auto", f"ControlPath={folder}/%C", f"ControlPersist={PERSIST_S}"]
    return ["ControlMaster=no", "ControlPath=none"]


def _made_private(folder: str) -> bool:
    with contextlib.suppress(OSError):
        os.makedirs(folder, 0o700, exist_ok=True)
        about = os.lstat(folder)
        return about.st_uid == os.getuid() and about.st_mode & 0o170077 == 0o040000
    return False


def name_of(argv: Sequence[str]) -> str:
    """How messages name a command: one over ssh by its destination, any other as it is."""
    if is_ssh(argv) and "--" in argv[:-1]:
        return argv[argv.index("--") + 1]
    return shlex.join(argv)


def with_python(name: str) -> str:
    """A destination with the Python of a virtual environment there, as an example of what `--host` takes."""
    return f"{name}{'/' if name.startswith('ssh://') else ':'}venv/bin/python3"


def is_ssh(argv: Sequence[str]) -> bool:
    """Whether a command is the OpenSSH client."""
    return Path(argv[0]).name == "ssh"


def fault(name: str, code: int | None, printed: Sequence[str]) -> DeviceError:
    """Why ssh or the shell behind it started no agent: from its exit code (None while it runs) and what it printed.

    UnreachableError where waiting may help; NotStartedError where it does not for a host that never answered."""
    text = "\n".join(printed)
    for pattern, kind, remedy in _FAULTS:
        if found := re.search(pattern, text, re.MULTILINE):
            return kind(f"'{name}' cannot be used: {found[0].strip().rstrip('.')}; {remedy.format(name=name)}")
    if code in (126, 127):
        last = printed[-1] if printed else f"exit code {code}"
        return DeviceError(
            f"there is no Python on '{name}': {last}; install python3 there, or name it: --host {with_python(name)}"
        )
    said = f" ({' | '.join(printed[-3:])})" if printed else ""
    if code in (None, 255):
        return UnreachableError(f"'{name}' does not answer{said}; check that it is on and that `ssh {name}` logs in")
    return NotStartedError(
        f"no agent starts on '{name}': exit code {code}{said}; check that it has Python 3.8 or newer, or name one: "
        f"--host {with_python(name)}"
    )


# The first that matches what was printed, in the words of ssh.c, sshconnect.c and sshconnect2.c. None of the plain
# DeviceErrors heals by waiting.
_FAULTS: tuple[tuple[str, type[DeviceError], str], ...] = (
    (
        r"^.*host key for .* has changed.*$|^.*REMOTE HOST IDENTIFICATION HAS CHANGED.*$",
        DeviceError,
        "if the device was set up anew, remove the old key with `ssh-keygen -R` and its name, and log in once by hand",
    ),
    (
        r"^Host key verification failed.*$|^No .* host key is known for .*$",
        DeviceError,
        "its host key is not known here: log in once by hand with `ssh {name}` and compare the fingerprint",
    ),
    (
        r"^.*Permission denied \(.*$|^.*Too many authentication failures.*$",
        DeviceError,
        "none of your keys is accepted and no password is ever asked for: run `ssh-copy-id {name}` once",
    ),
    (
        r"^.*Bad configuration option.*$|^.*Bad owner or permissions on.*$|^.*terminating, .* bad configuration.*$",
        DeviceError,
        "put your ssh configuration right",
    ),
    (r"^.*Could not resolve hostname.*$", NotStartedError, "check the name, or give the address"),
    (r"^.*Connection refused.*$", UnreachableError, "check that its ssh server runs and on which port"),
    (
        r"^.*(?:No route to host|Network is unreachable|Connection timed out|Operation timed out|not responding).*$",
        UnreachableError,
        "check that it is on and in this network",
    ),
)
