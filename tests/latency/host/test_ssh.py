"""Hosts over ssh: the command, what its faults mean, and good and bad days behind a real server."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import (
    AutocompressError,
    CandidateError,
    DeviceError,
    NotStartedError,
    UnreachableError,
)
from autocompress.latency.host import ssh
from autocompress.latency.host.client import Host
from autocompress.latency.host.retry import PatientHost
from tests.builders.edge_host import Board
from tests.builders.optional import present
from tests.builders.processes import Background, children, is_dead, wait_for
from tests.builders.project import ROOT
from tests.builders.runtimes import LITERT, TFLITE, needs_tflite
from tests.builders.tiny_models import crashing_model, dense_model

MODEL = dense_model(inputs=128, outputs=64)
SEARCH = """
import sys
from autocompress.latency.host.client import Host
from autocompress.latency.host.ssh import host_of, ssh_argv
from tests.builders.tiny_models import dense_model
with Host(ssh_argv(host_of("board")), runtime="ai-edge-litert", threads=1) as host:
    print("measuring", flush=True)
    host.measure(dense_model(), processes=1, min_run_s=60.0)
"""


def open_host(destination: str = "board", runtime: str = LITERT, **options: Any) -> Host:
    host = ssh.host_of(destination)
    assert isinstance(host, dict)
    return Host(ssh.ssh_argv(host), runtime=runtime, threads=1, **options)


def fault_of(destination: str = "board", runtime: str = LITERT) -> str:
    """Why a host cannot be used, and that nobody waited for it to heal."""
    said: list[str] = []
    with (
        pytest.raises(DeviceError) as caught,
        PatientHost(open_host(destination, runtime), wait_s=60.0, say=said.append),
    ):
        pytest.fail("it can be used")
    assert type(caught.value) is not UnreachableError
    assert not said
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The command


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("local", "local"),
        ("board", {"ssh": "board"}),
        ("pi@raspberrypi", {"ssh": "pi@raspberrypi"}),
        ("pi@raspberrypi:venv/bin/python3", {"ssh": "pi@raspberrypi", "python": "venv/bin/python3"}),
        ("pi@10.0.0.7:/opt/my venv/python", {"ssh": "pi@10.0.0.7", "python": "/opt/my venv/python"}),
        ("pi@[fe80::1%eth0]:python3.11", {"ssh": "pi@fe80::1%eth0", "python": "python3.11"}),
        ("[::1]", {"ssh": "::1"}),
        ("ssh://pi@board:2222", {"ssh": "ssh://pi@board:2222"}),
        ("ssh://pi@board:2222/", {"ssh": "ssh://pi@board:2222"}),
        ("ssh://pi@board:2222/venv/bin/python3", {"ssh": "ssh://pi@board:2222", "python": "venv/bin/python3"}),
        ("ssh://board//usr/bin/python3", {"ssh": "ssh://board", "python": "/usr/bin/python3"}),
    ],
)
def test_destinations(text: str, meaning: object) -> None:
    assert ssh.host_of(text) == meaning


@pytest.mark.parametrize(
    "text",
    ["", " ", "-oProxyCommand=x", "a:-c", "pi@-x", "pi@fe80::1:::", "pi@", ":python3", "ssh://", "a\nb", "ssh://-x"],
)
def test_no_destinations(text: str) -> None:
    with pytest.raises(AutocompressError, match="write user@name") as caught:
        ssh.host_of(text)
    assert caught.value.exit_code == 2


@given(st.text(max_size=12))
def test_nothing_becomes_an_option_or_a_second_command(text: str) -> None:
    try:
        host = ssh.host_of(text)
    except AutocompressError:
        return
    if host == "local":
        return
    assert isinstance(host, dict)
    *options, separator, destination, python = ssh.ssh_argv(host)
    assert (separator, destination) == ("--", host["ssh"])
    assert not destination.startswith("-")
    assert not any(text and word == text for word in options)
    home = python.replace("~/", "/", 1) if python.startswith("~/") else python
    heard = subprocess.run(["sh", "-c", f"printf '%s\\n' {home}"], capture_output=True, text=True, check=True)
    assert heard.stdout.removesuffix("\n") == host.get("python", "python3").replace("~/", "/", 1)


def test_host_keys_stay_checked_and_nothing_is_asked() -> None:
    options = " ".join(ssh.ssh_argv({"ssh": "board"}))
    assert "BatchMode=yes" in options
    assert "HostKeyChecking" not in options
    assert "KnownHosts" not in options


@pytest.mark.parametrize("folder", ["/tmp/" + "x" * 60, "/proc/no-such-folder", None])
def test_sockets_lie_in_a_short_private_folder(monkeypatch: pytest.MonkeyPatch, folder: str | None) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if folder is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    (path,) = (word for word in ssh.ssh_argv({"ssh": "board"}) if word.startswith("ControlPath="))
    assert path == f"ControlPath=/tmp/autocompress-ssh-{os.getuid()}/%C"
    assert Path(path.removeprefix("ControlPath=")).parent.stat().st_mode & 0o777 == 0o700


def test_a_socket_folder_that_others_may_open_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    short = Path("/tmp") / f"s{os.getpid()}"
    short.symlink_to(tmp_path / "s")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    (tmp_path / "s" / f"autocompress-ssh-{os.getuid()}").mkdir(mode=0o755)
    assert str(short) not in " ".join(ssh.ssh_argv({"ssh": "board"}))
    short.unlink()


# What faults mean: the words of OpenSSH 9


@pytest.mark.parametrize(
    ("code", "printed", "kind", "message"),
    [
        (255, ["pi@b: Permission denied (publickey,password)."], DeviceError, "ssh-copy-id b"),
        (255, ["Received disconnect from b port 22:2: Too many authentication failures"], DeviceError, "ssh-copy-id"),
        (
            255,
            [
                "No ED25519 host key is known for b and you have requested strict checking.",
                "Host key verification failed.",
            ],
            DeviceError,
            "log in once by hand",
        ),
        (
            255,
            [
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @",
                "Offending key",
                "Add correct host key",
                "Host key for b has changed and you have requested strict checking.",
                "Host key verification failed.",
            ],
            DeviceError,
            "ssh-keygen -R",
        ),
        (255, ["ssh: Could not resolve hostname b: Name or service not known"], NotStartedError, "check the name"),
        (255, ["ssh: connect to host b port 22: Connection refused"], UnreachableError, "its ssh server runs"),
        (255, ["ssh: connect to host b port 22: No route to host"], UnreachableError, "is on"),
        (255, ["ssh: connect to host b port 22: Connection timed out"], UnreachableError, "is on"),
        (255, ["Timeout, server b not responding."], UnreachableError, "is on"),
        (
            255,
            ["System is booting up. Unprivileged users are not permitted to log in yet.", "Connection closed by b"],
            UnreachableError,
            "`ssh b` logs in",
        ),
        (255, ["client_loop: send disconnect: Broken pipe"], UnreachableError, "Broken pipe"),
        (255, ["/home/me/.ssh/config: line 3: Bad configuration option: foo"], DeviceError, "configuration right"),
        (None, [], UnreachableError, "does not answer"),
        (127, ["bash: line 1: python3: command not found"], DeviceError, "--host b:venv/bin/python3"),
        (126, ["sh: 1: /etc/passwd: Permission denied"], DeviceError, "no Python"),
        (1, ["Illegal option -u"], NotStartedError, "Python 3.8"),
    ],
)
def test_faults(code: int | None, printed: Sequence[str], kind: type[DeviceError], message: str) -> None:
    found = ssh.fault("b", code, printed)
    assert type(found) is kind
    assert message in str(found)
    assert "'b'" in str(found)
    assert found.exit_code == 3


def test_a_uri_takes_its_python_behind_a_slash() -> None:
    assert "--host ssh://b:22/venv/bin/python3" in str(ssh.fault("ssh://b:22", 127, []))


# Good days


@needs_tflite
def test_a_measurement_behind_ssh_and_one_connection_for_all(board: Board) -> None:
    with open_host() as host:
        found = host.measure(MODEL, processes=1)
        with open_host(runtime=TFLITE) as second:
            assert second.measure(MODEL, processes=1).runtime == TFLITE
            assert len(board.serving()) == 1
        assert (host.name, found.runtime, found.latency_source) == ("board", LITERT, "measured")
        assert host.facts["boot_id"] == (board.folder / "boot_id").read_text().strip()
    board.assert_quiet()
    (kept,) = board.cached()
    assert kept.read_bytes() == MODEL
    assert len(board.serving()) == 1  # it stays for a while, without an agent


def test_every_form_of_a_destination(board: Board) -> None:
    (board.folder / "my venv").mkdir()
    (board.folder / "bin" / "python3").rename(board.folder / "my venv" / "python")
    user, python = getpass.getuser(), board.folder / "my venv" / "python"
    for destination in (f"board:{python}", f"{user}@board:{python}", f"ssh://{user}@127.0.0.1:{board.port}/{python}"):
        with open_host(destination) as host:
            assert host.facts["cores"] >= 1
    board.assert_quiet()


def test_a_noisy_login_is_survived(board: Board) -> None:
    (board.folder / "banner").write_text("Authorised use only. Permission denied (to others).\n")
    with (board.folder / "sshd_config").open("a") as config:
        config.write(f"Banner {board.folder}/banner\n")
    board.stop()
    board.start()
    board.set_python([sys.executable], before="echo 'Welcome to the board'; echo 'last login: never' >&2")
    with open_host() as host:
        assert present(host.measure(MODEL, processes=1).latency_ms) > 0
    board.assert_quiet()


@needs_tflite
def test_a_crash_behind_ssh_is_a_failed_candidate(board: Board) -> None:
    with open_host(runtime=TFLITE) as host:
        agent = board.agent()
        with pytest.raises(CandidateError, match="SIGSEGV"):
            host.measure(crashing_model(), baseline=MODEL)
        assert present(host.measure(MODEL, processes=1).latency_ms) > 0
        assert board.agent() == agent
    board.assert_quiet()


# Outages that are waited for


def measured_across(board: Board, host: PatientHost, **options: Any) -> Background:
    """A measurement of a few seconds, begun."""
    work = Background(lambda: host.measure(MODEL, processes=1, min_run_s=2.0, **options))
    board.measuring()
    return work


def test_a_connection_that_drops_in_the_middle_of_a_measurement(board: Board) -> None:
    said: list[str] = []
    with PatientHost(open_host(), say=said.append) as host:
        work, agent = measured_across(board, host), board.agent()
        assert board.drop() == 1
        began_s = time.monotonic()
        assert work.result().latency_ms > 0
        assert time.monotonic() - began_s > 3  # a pause and the whole measurement, not the rest of it
        assert board.agent() != agent
    assert "trying again in 1 s, giving up in 15 min" in said[0]
    assert said[-1].startswith("'board' is back after")
    board.assert_quiet()
    assert len(board.cached()) == 1


def test_a_connection_that_drops_in_the_middle_of_an_upload(board: Board) -> None:
    large = os.urandom(1 << 26)
    said: list[str] = []
    with PatientHost(open_host(), say=said.append) as host:
        agent = board.agent()
        before = resident_bytes(agent)
        work = Background(lambda: host.measure(large, processes=1))
        wait_for(lambda: resident_bytes(agent) > before + (1 << 23))
        board.drop()
        assert not board.cached()
        with pytest.raises(CandidateError, match="valid Flatbuffer"):  # it is there and was tried
            raise work.result()
    assert len(said) == 2
    board.assert_quiet()
    (kept,) = board.cached()
    assert kept.read_bytes() == large


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1] if Path(f"/proc/{pid}").exists() else 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_network_that_falls_silent(board: Board) -> None:
    """Nobody closes anything: the server's end of the connection stands still, and what runs there goes on."""
    board.set_client("-o ServerAliveInterval=1")  # so that the shared connection is given up after 3 s
    said: list[str] = []
    with PatientHost(open_host(silence_s=2.0), say=said.append) as host:
        work, before = measured_across(board, host), board.agent()
        (served,) = board.serving()
        os.kill(served, signal.SIGSTOP)
        assert work.result().latency_ms > 0  # after the old measurement there, which keeps the lock
        assert before in board.processes()
        os.kill(served, signal.SIGCONT)
        wait_for(lambda: is_dead(before))
    assert "silent for 2 s" in said[0]
    board.assert_quiet()


def test_a_host_that_reboots(board: Board) -> None:
    said: list[str] = []
    with PatientHost(open_host(), say=said.append) as host:
        work = measured_across(board, host)
        board.stop()
        board.reboot()
        wait_for(lambda: len(said) > 1)  # refused once
        board.start()
        assert work.result().latency_ms > 0
        assert host.host.facts["boot_id"] == (board.folder / "boot_id").read_text().strip()
    assert any("Connection refused" in line for line in said)
    assert said[-1].startswith("'board' has rebooted and is back after")
    board.assert_quiet()


def test_a_host_that_comes_back_with_another_runtime(board: Board) -> None:
    with PatientHost(open_host()) as host:
        work = measured_across(board, host)
        board.stop()
        metadata = board.folder / "site" / "ai_edge_litert-9.9.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ai-edge-litert\nVersion: 9.9\n")
        board.start()
        with pytest.raises(
            DeviceError, match=r"has changed: ai-edge-litert 2.* before, 9\.9 now; put it back"
        ) as caught:
            raise work.result()
    assert type(caught.value) is DeviceError
    board.assert_quiet()


def test_a_candidate_that_reboots_the_host_each_time_is_a_failed_one(board: Board) -> None:
    site = board.folder / "site" / "sitecustomize.py"
    site.write_text(  # the third fork is the first measurement: the two before try the runtimes
        f"{site.read_text()}\nimport os, uuid\nfork, count = os.fork, []\n"
        "def forked():\n    count.append(0)\n    if len(count) == 3:\n"
        f"        real({str(board.folder / 'boot_id')!r}, 'w').write(str(uuid.uuid4()))\n        os._exit(1)\n"
        "    return fork()\nos.fork = forked\n"
    )
    with PatientHost(open_host()) as host, pytest.raises(CandidateError, match="rebooted 3 times"):
        host.measure(MODEL)
    board.assert_quiet()


def test_a_host_that_stays_away_is_given_up(board: Board) -> None:
    said: list[str] = []
    with PatientHost(open_host(), wait_s=3.0, say=said.append) as host:
        work = measured_across(board, host)
        board.stop()
        began_s = time.monotonic()
        with pytest.raises(DeviceError, match=r"Connection refused.*gave up after 3 s \(--host-wait\)"):
            raise work.result()
        assert 1.5 < time.monotonic() - began_s < 15
    assert len(said) == 2  # 1 s, then 2 s
    board.assert_quiet()


def test_a_sleeping_host_is_waited_for_at_the_start(board: Board) -> None:
    board.stop()
    said: list[str] = []
    work = Background(lambda: PatientHost(open_host(), say=said.append).__enter__())
    wait_for(lambda: said)
    board.start()
    host = work.result()
    assert present(host.measure(MODEL, processes=1).latency_ms) > 0
    host.__exit__(None, None, None)
    assert "Connection refused" in said[0]
    board.assert_quiet()


def test_pauses_double_up_to_a_minute() -> None:
    """Behind a command that never answers again, on a clock of the test."""
    now = [0.0]
    said: list[str] = []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    class Dead(Host):
        def __enter__(self) -> Host:
            raise UnreachableError("'board' does not answer")

    host = PatientHost(Dead(["python3"], runtime=LITERT, threads=1), say=said.append, clock=lambda: now[0], sleep=sleep)
    with pytest.raises(DeviceError, match="gave up after 15 min"):
        host.__enter__()
    pauses = [float(line.split("trying again in ")[1].split()[0]) for line in said]
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert now[0] == pytest.approx(900.0)


# What waiting does not heal: at once, in one line


def test_a_key_that_is_not_accepted(board: Board) -> None:
    board.accept("other_key")
    assert "Permission denied (publickey)" in (said := fault_of())
    assert "ssh-copy-id board" in said


def test_a_host_key_that_is_not_known(board: Board) -> None:
    board.know(None)
    assert "log in once by hand with `ssh board`" in fault_of()


def test_a_host_key_that_has_changed(board: Board) -> None:
    board.know("other_key")
    assert "ssh-keygen -R" in fault_of()


def test_a_name_that_nobody_knows(board: Board) -> None:
    assert "Could not resolve hostname no-such-board.invalid" in fault_of("no-such-board.invalid")


def test_no_python_there(board: Board) -> None:
    assert "there is no Python on 'board'" in (said := fault_of("board:venv/bin/python3"))
    assert "venv/bin/python3: not found" in said
    assert "--host board:venv/bin/python3" in said
    board.assert_quiet()


def test_no_runtime_there(board: Board) -> None:
    board.set_python([sys.executable, "-S"])
    assert "No module named 'numpy'" in (said := fault_of())
    assert "`python3 -m venv venv && venv/bin/pip install ai-edge-litert` and name it: --host board:venv/bin" in said
    board.assert_quiet()


def old_pythons() -> list[Any]:
    """The real ones that this machine has, and stand-ins that do what these did where it matters: no
    `sys.stdin.buffer` in Python 2, no `X | Y` and no `:=` in 3.6."""
    found = [
        pytest.param(str(path), id=f"real {path.parts[-3]}")
        for version in ("2.7", "3.6")
        for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    ]
    found += [
        pytest.param(f"/usr/bin/python{v}", id=f"real {v}")
        for v in ("2.7", "3.6", "3.7")
        if os.path.exists(f"/usr/bin/python{v}")
    ]
    return [*found, pytest.param("2.7.18", id="stand-in 2.7"), pytest.param("3.6.9", id="stand-in 3.6")]


STAND_IN = """
import sys
class Stdin:
    read = sys.stdin.read
version = {version!r}
sys.version, sys.version_info = version + " (default)", tuple(map(int, version.split(".")))
if version < "3":
    sys.stdin = Stdin
exec(sys.argv[-1])
"""


@pytest.mark.parametrize("python", old_pythons())
def test_a_python_that_is_too_old(board: Board, python: str) -> None:
    if os.path.exists(python):
        board.set_python([python])
    else:
        (board.folder / "old.py").write_text(STAND_IN.format(version=python))
        board.set_python([sys.executable, str(board.folder / "old.py")])
    said = fault_of()
    assert "'board': the agent needs Python 3.8 or newer, this is " in said
    assert "name another Python there" in said
    board.assert_quiet()


# Nothing stays behind


@pytest.mark.parametrize("also_ssh", [False, True], ids=["we are killed", "ssh is killed too"])
def test_nothing_stays_behind_when_this_side_is_killed(board: Board, also_ssh: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SEARCH],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as search:
        assert search.stdout is not None
        assert search.stdout.readline() == b"measuring\n"
        board.measuring()
        clients = children(search.pid)
        search.kill()
        for pid in clients if also_ssh else ():
            os.kill(pid, signal.SIGKILL)
    began_s = time.monotonic()
    board.assert_quiet()
    assert time.monotonic() - began_s < 5
    assert len(board.serving()) == 1  # the shared connection persists and keeps nothing alive
    with open_host() as host:
        assert present(host.measure(MODEL, processes=1).latency_ms) > 0
        assert len(board.serving()) == 1
