"""The agent as a process, and the host that talks to it: good days and bad ones, with real runtimes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.errors import AutocompressError, CandidateError, DeviceError
from autocompress.latency.host.client import Host, drifted, local_host, throttled
from autocompress.latency.host.connection import agent_command
from tests.builders.optional import present
from tests.builders.processes import Background, agent_pid, children, is_dead, measurers, wait_for
from tests.builders.project import ROOT
from tests.builders.runtimes import BOTH, HAS_TFLITE, LITERT, TFLITE, needs_tflite
from tests.builders.tiny_models import crashing_model, dense_model, refused_model

MODEL, BASELINE = dense_model(inputs=128, outputs=64), dense_model(inputs=256, outputs=128)
SEARCH = """
import sys
from autocompress.latency.host.client import Host
from tests.builders.tiny_models import dense_model
with Host(sys.argv[1:], runtime="ai-edge-litert", threads=1) as host:
    print("measuring", flush=True)
    host.measure(dense_model(), processes=1, min_run_s=60.0)
"""
PLAIN_LOOP = """
import importlib, statistics, sys, time
module = importlib.import_module(sys.argv[1])
interpreter = module.Interpreter(model_content=sys.stdin.buffer.read(), num_threads=1)
interpreter.allocate_tensors()
samples = []
for _ in range(2000):
    start = time.perf_counter()
    interpreter.invoke()
    samples.append(time.perf_counter() - start)
print(statistics.median(samples) * 1e3)
"""


@pytest.fixture
def host(command: list[str]) -> Iterator[Host]:
    with Host(command, runtime=LITERT, threads=1) as host:
        yield host


def shell(folder: Path, name: str, body: str, command: list[str]) -> list[str]:
    """An argv prefix that is a shell script: `body`, then the command."""
    script = folder / name
    script.write_text(f'#!/bin/sh\n{body}\nexec "$@"\n')
    script.chmod(0o755)
    return [str(script), *command]


def enter(command: list[str], runtime: str = LITERT, **options: Any) -> dict[str, Any]:
    """The facts of a host that is only opened and closed."""
    with Host(command, runtime=runtime, threads=1, **options) as host:
        return dict(host.facts)


def measuring(host: Host, **options: Any) -> tuple[Background, int, int]:
    """A measurement that takes a minute if left alone, the agent and the process that measures."""
    agent = agent_pid()
    background = Background(lambda: host.measure(MODEL, processes=1, min_run_s=60.0, **options))
    return background, agent, wait_for(lambda: measurers(agent))[0]


def timed_plainly_ms(runtime: str, model: bytes) -> float:
    """The same simply, in a process of its own: TensorFlow and tflite-runtime in one process spoil each other."""
    command = [sys.executable, "-c", PLAIN_LOOP, f"{runtime.replace('-', '_')}.interpreter"]
    return float(subprocess.run(command, input=model, capture_output=True, check=True).stdout)


# Good days


@pytest.mark.parametrize("runtime", BOTH)
def test_a_measurement_agrees_with_a_plain_loop(command: list[str], runtime: str) -> None:
    with Host(command, runtime=runtime, threads=1) as host:
        found = host.measure(BASELINE, baseline=MODEL, processes=3)
    here_ms = timed_plainly_ms(runtime, BASELINE)
    assert here_ms / 10 < present(found.latency_ms) < here_ms * 10
    assert found.ratio_to_baseline is not None
    assert found.ratio_to_baseline > 0
    assert (found.latency_source, found.runtime, found.threads) == ("measured", runtime, 1)
    assert found.runtime_version == {LITERT: host.runtime_version, TFLITE: "2.14.0"}[runtime]
    assert found.os_bits in (32, 64)
    assert present(found.load_ms) > 0
    assert present(found.first_inference_ms) > 0
    assert present(found.peak_memory_bytes) > 0


def test_figures_are_those_of_the_samples(host: Host) -> None:
    found = host.measure(MODEL, processes=3)
    pooled = np.concatenate(found.samples_ms)
    assert found.latency_ms == np.median([np.median(run) for run in found.samples_ms])
    low, high = present(found.latency_ci_ms)
    assert low <= present(found.latency_ms) <= high
    assert found.p90_ms == np.quantile(pooled, 0.9)
    assert found.iqr_ms == pytest.approx(np.subtract(*np.quantile(pooled, (0.75, 0.25))))
    assert 0 <= present(found.outliers) < pooled.size
    assert len(found.samples_ms) == 3
    assert found.ratio_to_baseline is None
    assert type(found).from_dict(found.to_dict()) == found


def test_facts_of_a_local_host() -> None:
    with local_host(LITERT, 1) as host:
        facts = host.facts
    assert facts["python"] == sys.version.split()[0]
    assert facts["machine"] == os.uname().machine
    assert facts["cores"] <= os.cpu_count()
    there = {"version": "2.14.0", "numpy": np.__version__} if HAS_TFLITE else {}
    assert {key: facts["runtimes"][TFLITE].get(key) for key in there} == there
    assert ("version" in facts["runtimes"][TFLITE]) == HAS_TFLITE
    assert facts["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize("runtime", BOTH)
def test_the_agent_forks_from_a_single_thread(command: list[str], runtime: str) -> None:
    with Host(command, runtime=runtime, threads=1):
        assert len(os.listdir(f"/proc/{agent_pid()}/task")) == 1


def test_a_file_is_sent_once_and_again_when_it_is_gone(command: list[str], tmp_path: Path) -> None:
    with Host(command, runtime=LITERT, threads=1) as host:
        host.measure(MODEL, processes=1)
        (stored,) = tmp_path.glob("tmp/autocompress-*/*.tflite")
        assert stored.read_bytes() == MODEL
        first = stored.stat().st_ino, stored.stat().st_ctime_ns
        host.measure(MODEL, baseline=MODEL, processes=1)
    with Host(command, runtime=LITERT, threads=1) as host:
        host.measure(MODEL, processes=1)
        assert stored.stat().st_ino == first[0]
        assert stored.stat().st_mtime_ns > first[1]  # used, so young
        stored.unlink()
        host.measure(MODEL, processes=1)
        assert stored.read_bytes() == MODEL


def test_the_cache_is_swept_at_connect(command: list[str], tmp_path: Path) -> None:
    enter(command)
    (cache,) = tmp_path.glob("tmp/autocompress-*")
    for name, age_days in (("old.tflite", 8), ("new.tflite", 6)):
        (cache / name).touch()
        os.utime(cache / name, (time.time() - age_days * 86_400,) * 2)
    enter(command)
    assert [path.name for path in cache.iterdir()] == ["new.tflite"]
    for name, age_days, megabytes in (("older.tflite", 3, 120), ("newer.tflite", 2, 120), ("newest.tflite", 1, 70)):
        with (cache / name).open("wb") as file:
            file.truncate(megabytes * 1_000_000)  # no blocks of the disk
        os.utime(cache / name, (time.time() - age_days * 86_400,) * 2)
    enter(command)  # 190 of at most 200 MB
    assert sorted(path.name for path in cache.iterdir()) == ["newer.tflite", "newest.tflite"]


def test_a_noisy_login_is_survived(command: list[str], tmp_path: Path) -> None:
    noise = "echo 'Welcome to the board'; printf '\\0\\377autocompress'; echo 'last login: never' >&2"
    with Host(shell(tmp_path, "login", noise, command), runtime=LITERT, threads=1) as host:
        assert present(host.measure(MODEL, processes=1).latency_ms) > 0


def test_what_python_prints_at_its_start_is_survived(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello from the site')")
    assert enter([*command[:-1], f"PYTHONPATH={tmp_path}", sys.executable])["cores"] >= 1


def test_the_folder_where_it_starts_is_not_imported_from(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong json')")
    monkeypatch.chdir(tmp_path)
    assert enter(command)["cores"] >= 1


@pytest.mark.parametrize("words", [["ssh", "board"], ["adb", "-s emulator-5554", "shell"]], ids=["ssh", "adb"])
def test_arguments_behind_ssh_and_adb_are_quoted(command: list[str], tmp_path: Path, words: list[str]) -> None:
    """A stand-in that joins its arguments for a shell, as these do."""
    name, *own = words
    fake = tmp_path / name
    fake.write_text(f'#!/bin/sh\nshift {len(own)}\nexec sh -c "$*"\n')
    fake.chmod(0o755)
    assert agent_command([*words, "python3"], 7)[len(words) :][:3] == ["python3", "-u", "-c"]
    with Host([str(fake), *own, *command], runtime=LITERT, threads=1) as host:
        assert host.facts["cores"] >= 1
        assert present(host.measure(MODEL, processes=1).latency_ms) > 0


def test_throttling_makes_a_measurement_doubtful(command: list[str], tmp_path: Path) -> None:
    vcgencmd = tmp_path / "vcgencmd"
    vcgencmd.write_text(
        f"#!/bin/sh\ncd {tmp_path}\n"
        'if [ "$1" = measure_clock ]; then echo "frequency(48)=1500398464"; exit; fi\necho >> calls\n'
        "if [ $(wc -l < calls) -gt 2 ]; then echo throttled=0x50000\n"  # at connect, before, after
        "else echo throttled=0x0; fi\n"
    )
    vcgencmd.chmod(0o755)
    noted = [*command[:-1], f"PATH={tmp_path}:{os.environ['PATH']}", sys.executable]
    with Host(noted, runtime=LITERT, threads=1) as host:
        assert host.facts["throttled"] == 0
        assert host.facts["clock_mhz"] == pytest.approx(1500.398464)
        found = host.measure(MODEL, processes=1)
    assert found.doubtful  # no baseline: it is the firmware's word
    assert present(found.environment).throttled == (0, 0x50000)
    assert present(present(found.environment).clock_mhz) == pytest.approx((1500.398464,) * 2)


# Candidates that fail: the agent and the connection go on


def test_a_refused_file_is_a_failed_candidate(host: Host) -> None:
    agent = agent_pid()
    with pytest.raises(CandidateError, match=r"ai-edge-litert 2.*valid Flatbuffer"):
        host.measure(refused_model())
    assert present(host.measure(MODEL, processes=1).latency_ms) > 0
    assert agent_pid() == agent


@needs_tflite
def test_a_segmentation_fault_of_the_runtime_is_a_failed_candidate(command: list[str]) -> None:
    with Host(command, runtime=TFLITE, threads=1) as host:
        agent = agent_pid()
        with pytest.raises(CandidateError, match=r"tflite-runtime 2\.14\.0: killed by SIGSEGV"):
            host.measure(crashing_model(), baseline=MODEL)
        assert present(host.measure(MODEL, processes=1).latency_ms) > 0
        assert agent_pid() == agent
        assert not children(agent)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGSEGV, "killed by SIGSEGV"),
        (signal.SIGKILL, "killed by SIGKILL.*memory"),
        (signal.SIGBUS, "SIGBUS"),
    ],
)
def test_a_killed_process_is_a_failed_candidate(host: Host, number: int, reason: str) -> None:
    background, agent, process = measuring(host)
    os.kill(process, number)
    with pytest.raises(CandidateError, match=reason):
        raise background.result()
    assert not children(agent)
    assert present(host.measure(MODEL, processes=1).latency_ms) > 0


def test_a_hanging_process_is_killed_at_its_deadline(host: Host) -> None:
    background, agent, process = measuring(host, deadline_s=1.5)
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(CandidateError, match=r"deadline of 1\.5 s"):
        raise background.result()
    assert is_dead(process)
    assert present(host.measure(MODEL, processes=1).latency_ms) > 0
    assert agent_pid() == agent


@pytest.mark.parametrize("runtime", BOTH)
def test_a_file_that_needs_too_much_memory_is_a_failed_candidate(
    command: list[str], tmp_path: Path, runtime: str
) -> None:
    """(8 + 4) float32 a row; ai-edge-litert alone says nothing of memory."""
    limited = shell(tmp_path, "limited", "ulimit -v 3000000", command)
    with Host(limited, runtime=runtime, threads=1) as host:
        assert host.facts["memory_available_bytes"] <= 3_000_000 * 1024
        with pytest.raises(CandidateError, match=r"; it needs 9,600 MB or more, there are [\d,]+$"):
            host.measure(dense_model(batch=200_000_000))
        assert present(host.measure(MODEL, processes=1).latency_ms) > 0
        with pytest.raises(DeviceError, match=r"the baseline does not run .* it needs 9,600 MB or more"):
            host.measure(MODEL, baseline=dense_model(batch=200_000_000))


def test_what_measures_goes_first_when_memory_runs_out(host: Host) -> None:
    """Not the agent, nor what else runs there."""
    background, agent, process = measuring(host)
    wait_for(lambda: Path(f"/proc/{process}/oom_score_adj").read_text() == "1000\n")
    assert Path(f"/proc/{agent}/oom_score_adj").read_text() != "1000\n"
    os.kill(process, signal.SIGKILL)
    assert isinstance(background.result(), CandidateError)


def test_a_failing_baseline_is_no_fault_of_the_candidate(host: Host) -> None:
    with pytest.raises(DeviceError, match="the baseline does not run"):
        host.measure(MODEL, baseline=refused_model())


# Hosts that fail


def test_the_agent_is_killed(host: Host) -> None:
    background, agent, process = measuring(host)
    os.kill(agent, signal.SIGKILL)
    with pytest.raises(DeviceError, match=r"ended with exit code -9.*check the device"):
        raise background.result()
    wait_for(lambda: is_dead(process))
    with pytest.raises(DeviceError, match="closed"):
        host.measure(MODEL)


def test_nothing_stays_behind_when_the_pipe_closes(command: list[str], tmp_path: Path) -> None:
    with Host(command, runtime=LITERT, threads=1) as host:
        background, agent, process = measuring(host)
    assert isinstance(background.result(), Exception)
    wait_for(lambda: is_dead(agent) and is_dead(process))
    with (tmp_path / "tmp" / "autocompress.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_nothing_stays_behind_when_this_side_is_killed(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SEARCH, *command],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as search:
        assert present(search.stdout).readline() == b"measuring\n"
        (agent,) = children(search.pid)
        process = wait_for(lambda: measurers(agent))[0]
        search.kill()
    wait_for(lambda: is_dead(agent) and is_dead(process))


def test_a_silent_agent_is_given_up(command: list[str]) -> None:
    with Host(command, runtime=LITERT, threads=1, silence_s=2.0) as host:
        agent = agent_pid()
        os.kill(agent, signal.SIGSTOP)
        with pytest.raises(DeviceError, match="silent for 2 s"):
            host.measure(MODEL)
    assert is_dead(agent)


def test_an_interrupt_leaves_no_half_answer(command: list[str], tmp_path: Path) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with Host(command, runtime=LITERT, threads=1, on_wait=interrupt) as host:
        with (tmp_path / "tmp" / "autocompress.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(KeyboardInterrupt):
                host.measure(MODEL)
        with pytest.raises(DeviceError, match="closed"):
            host.measure(MODEL)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "echo 'ssh: connect to host pi port 22: No route' >&2; exit 255",
            r"exit code 255 \(ssh: .*No route\)",
        ),
        (
            "echo \"AttributeError: 'file' object has no attribute 'buffer'\" >&2; exit 1",
            "Python 3.8 or newer",
        ),
        ("sleep 60", "has not spoken|silent for 1 s"),
        ("yes", "has not spoken"),
    ],
    ids=["unreachable", "python2", "silent", "endless"],
)
def test_a_command_that_starts_no_agent(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        enter(shell(tmp_path, "broken", f"{line}\nexit", [sys.executable]), start_s=1.0)


def test_a_command_that_does_not_exist() -> None:
    with pytest.raises(DeviceError, match=r"cannot start 'no-such-python'.*Python 3.8"):
        enter(["no-such-python"])


def test_no_packages_there(command: list[str]) -> None:
    with pytest.raises(DeviceError, match=r"No module named 'numpy'.*pip install ai-edge-litert"):
        enter([*command, "-S"])


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("3.11.2", "run `python3 -m pip install tflite-runtime` there"),
        ("3.12.1", "no wheel for Python 3.12 and later"),
        ("3.13.0rc1", "no wheel for Python 3.12 and later"),
    ],
)
def test_a_runtime_without_a_wheel_is_not_to_be_installed(
    command: list[str], monkeypatch: pytest.MonkeyPatch, python: str, said: str
) -> None:
    found = Host([*command, "-S"], runtime=TFLITE, threads=1)
    facts = {"python": python, "cores": 1, "runtimes": {TFLITE: {"failure": "No module named 'tflite_runtime'"}}}
    monkeypatch.setattr(found, "_facts", facts)
    with pytest.raises(DeviceError, match=said):
        found._check_facts()


def fake_package(folder: Path, name: str, version: str, source: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(f"__version__ = {version!r}\n{source}\n")
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("numpy_version", "source", "message"),
    [
        ("2.1.0", "", "tflite-runtime 2.14.0 crashes under numpy 2.1.0: install 'numpy<2' there"),
        ("1.26.4", "import os\nos.kill(os.getpid(), 4)", "killed by SIGILL"),
    ],
    ids=["numpy 2", "wrong processor"],
)
def test_a_runtime_that_does_not_load(
    command: list[str], tmp_path: Path, numpy_version: str, source: str, message: str
) -> None:
    fake_package(tmp_path, "numpy", numpy_version, "")
    fake_package(tmp_path, "tflite_runtime", "2.14.0", source)
    with pytest.raises(DeviceError, match=message):
        enter([*command[:-1], f"PYTHONPATH={tmp_path}", sys.executable, "-S"], runtime=TFLITE)


def test_more_threads_than_cores(command: list[str]) -> None:
    with pytest.raises(DeviceError, match=r"4096 threads exceed the \d+ cores available.*or fewer"):
        Host(command, runtime=LITERT, threads=4096).__enter__()


AGAIN = 'if [ -z "$OWN" ]; then OWN=1 exec unshare --mount --map-root-user "$0" "$@"; fi'
DISKS = {
    "a limit": ("ulimit -f 100", "File too large"),
    "a full file system": (f"{AGAIN}; mount -t tmpfs -o size=300k none {{tmp}}", "No space left on device"),
}


@pytest.fixture(params=DISKS)
def full_disk(request: pytest.FixtureRequest) -> tuple[str, str]:
    """What makes one, and what is said of it: a limit on files, and a small file system where a user may mount one."""
    private = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "none", "/mnt"]
    if request.param == "a full file system" and subprocess.run(private, capture_output=True, check=False).returncode:
        pytest.skip("this user may not have a mount namespace of its own (unshare --mount --map-root-user)")
    return DISKS[request.param]


def test_a_full_disk(command: list[str], tmp_path: Path, full_disk: tuple[str, str]) -> None:
    """One line, no half file, and what fits still runs."""
    disk, said = full_disk
    full = shell(tmp_path, "full", disk.format(tmp=tmp_path / "tmp"), command)
    with Host(full, runtime=LITERT, threads=1) as host:
        assert present(host.measure(MODEL, processes=1).latency_ms) > 0
        with pytest.raises(DeviceError, match=rf"refuses: OSError: .*{said}.*put that right there"):
            host.measure(dense_model(inputs=512, outputs=512))
        cache = f"/proc/{agent_pid()}/root{tmp_path}/tmp/autocompress-{os.getuid()}"
        assert [len(name) for name in os.listdir(cache)] == [64 + len(".tflite")]
        assert present(host.measure(MODEL, processes=1).latency_ms) > 0


def test_a_cache_that_others_may_write(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "tmp" / f"autocompress-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(DeviceError, match="only this user can open; remove it there"):
        enter(command)


# One device, several users


def test_measurements_take_turns(command: list[str], tmp_path: Path) -> None:
    lines: list[str] = []
    with Host(command, runtime=LITERT, threads=1, on_wait=lines.append) as host:
        with (tmp_path / "tmp" / "autocompress.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            background = Background(lambda: host.measure(MODEL, processes=1))
            wait_for(lambda: lines)
        assert background.result().latency_ms > 0
    assert lines[0].startswith("waiting for another measurement on")


@needs_tflite
def test_two_hosts_on_one_device_never_measure_at_once(command: list[str]) -> None:
    with (
        Host(command, runtime=LITERT, threads=1) as one,
        Host(command, runtime=TFLITE, threads=1) as other,
    ):
        agents = [pid for pid in children(os.getpid()) if b'"agent"' in Path(f"/proc/{pid}/cmdline").read_bytes()]
        works = [Background(partial(each.measure, MODEL, processes=4)) for each in (one, other)]
        seen = set()
        while not all(work.is_done for work in works):
            seen.add(tuple(bool(measurers(agent)) for agent in agents))
        assert {work.result().runtime for work in works} == {LITERT, TFLITE}
    assert len(agents) == 2
    assert (True, True) not in seen
    assert {(True, False), (False, True)} <= seen


def test_the_lock_is_free_between_measurements_and_open_to_other_users(host: Host, tmp_path: Path) -> None:
    host.measure(MODEL, processes=1)
    lock = tmp_path / "tmp" / "autocompress.lock"
    assert lock.stat().st_mode & 0o777 == 0o644
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_lock_of_a_dead_process_is_free(host: Host, tmp_path: Path) -> None:
    lock = tmp_path / "tmp" / "autocompress.lock"
    with subprocess.Popen(["flock", str(lock), "sh", "-c", "echo locked; exec sleep 60"], stdout=-1) as holder:
        assert present(holder.stdout).readline() == b"locked\n"
        for pid in (*children(holder.pid), holder.pid):
            os.kill(pid, signal.SIGKILL)
    assert present(host.measure(MODEL, processes=1).latency_ms) > 0


# The user's input, and what makes a measurement doubtful


def test_input_that_makes_no_sense(host: Host) -> None:
    with pytest.raises(AutocompressError, match=r"did you mean 'tflite-runtime'"):
        local_host("tflite-runtim", 1)
    with pytest.raises(AutocompressError, match="1 thread or more"):
        local_host(LITERT, 0)
    with pytest.raises(AutocompressError, match="0 processes"):
        host.measure(MODEL, processes=0)
    with pytest.raises(RuntimeError, match="with"):
        local_host(LITERT, 1).measure(MODEL)


@pytest.mark.parametrize(
    ("medians", "expected"),
    [([], False), ([1.0], False), ([1.0, 1.04, 1.0], False), ([1.0, 1.06], True), ([1.0, 1.2, 1.0], True)],
)
def test_drift_of_the_baseline(medians: list[float], expected: bool) -> None:
    assert drifted(np.array(medians)) is expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, False),
        (0x0, 0x0, False),
        (0x50000, 0x50000, False),  # once since boot, not now
        (0x0, 0x50000, True),
        (0x50000, 0x50005, True),
        (0x50005, 0x50000, True),
    ],
)
def test_throttle_bits(before: int | None, after: int | None, expected: bool) -> None:
    assert throttled(before, after) is expected
