"""The agent as a module: what it can tell, keep and time. As a process it is tested in test_client.py."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.latency.host import agent
from tests.builders.arrays import Array

SOURCE = Path(agent.__file__).read_text()
SHA_A, SHA_B = "a" * 64, "b" * 64
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_source_is_python_3_8() -> None:
    ast.parse(SOURCE, feature_version=(3, 8))


def test_source_needs_only_the_standard_library() -> None:
    imports = [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_an_agent_that_hears_nothing_ends_by_itself() -> None:
    """A network that vanishes closes no pipe."""
    impatient = SOURCE.replace("IDLE_S = 1800.0", "IDLE_S = 1.0")
    assert impatient != SOURCE
    with subprocess.Popen([sys.executable, "-c", impatient], stdin=-1, stdout=-1) as process:
        assert process.stdin is not None
        process.stdin.write(agent.encode({"request": "has", "sha256": []}))
        process.stdin.flush()
        assert process.wait(30.0) == 0
        assert process.stdout is not None
        assert process.stdout.read().endswith(agent.encode({"missing": []}))


def test_marker_is_not_in_the_source() -> None:
    """A terminal there may echo what is sent."""
    assert agent.MAGIC not in SOURCE.encode()


@given(st.lists(st.tuples(st.dictionaries(st.text(), JSON, max_size=4), st.binary(max_size=50)), max_size=4))
def test_frames_survive_the_pipe(sent: list[tuple[dict[str, Any], bytes]]) -> None:
    read_end, write_end = os.pipe()
    agent.write_all(write_end, b"".join(agent.encode(*frame) for frame in sent))
    os.close(write_end)
    frames, received = agent.Frames(read_end), []
    while frames.fill():
        while (frame := frames.take()) is not None:
            received.append(frame)
    os.close(read_end)
    assert received == sent


@given(st.binary(min_size=1, max_size=30), st.data())
def test_a_frame_may_come_in_pieces(body: bytes, data: st.DataObject) -> None:
    whole = agent.encode({"n": 1}, body)
    cut = data.draw(st.integers(0, len(whole) - 1))
    frames = agent.Frames(-1)
    frames.buffer += whole[:cut]
    assert frames.take() is None
    frames.buffer += whole[cut:] + b"rest"
    assert frames.take() == ({"n": 1}, body)
    assert frames.buffer == b"rest"


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize(
    ("group", "above", "expected"),
    [
        ("200000 100000", "max 100000", 2),
        ("max 100000", "300000 100000", 3),
        ("50000 100000", "max 100000", 1),
        ("max 100000", "max 100000", 4),
    ],
)
def test_cores_respect_the_quota_of_every_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, above: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    write(tmp_path, "proc/self/cgroup", "9:cpu:/legacy\n0::/a.slice/b.scope\n")
    write(tmp_path, "sys/fs/cgroup/a.slice/b.scope/cpu.max", group)
    write(tmp_path, "sys/fs/cgroup/a.slice/cpu.max", above)
    assert agent.cores_available(str(tmp_path)) == expected


def test_cores_without_control_groups_are_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    assert agent.cores_available(str(tmp_path)) == 2


@pytest.mark.parametrize(("group", "expected"), [("max", 3_000_000), ("2000000", 2_000_000), ("4000000", 3_000_000)])
def test_memory_respects_the_limit_of_every_control_group(tmp_path: Path, group: str, expected: int) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/a.slice/b.scope\n")
    write(tmp_path, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    write(tmp_path, "sys/fs/cgroup/a.slice/memory.max", "3000000")
    write(tmp_path, "sys/fs/cgroup/a.slice/b.scope/memory.max", group)
    assert agent.memory_available(str(tmp_path)) == expected


def test_facts_of_this_host() -> None:
    facts = agent.host_facts()
    assert facts["cores"] >= 1
    assert facts["os_bits"] in (32, 64)
    assert facts["memory_bytes"] > facts["memory_available_bytes"] > 0


PI = """processor : 0
BogoMIPS : 108.00
Features : fp asimd evtstrm crc32 cpuid
CPU implementer : 0x41
CPU part : 0xd08

processor : 1
Features : fp asimd
CPU part : 0xd08
"""


@pytest.mark.parametrize(
    ("cpuinfo", "cpu", "features"),
    [
        (PI, "Cortex-A72", ["asimd"]),
        (
            PI.replace("cpuid", "asimddp asimdhp i8mm").replace("0xd08", "0xd0b"),
            "Cortex-A76",
            ["asimd", "asimddp", "asimdhp", "i8mm"],
        ),
        (PI.replace("0xd08", "0xfff"), "0xfff", ["asimd"]),
        (
            "model name : Some CPU @ 2 GHz\nflags : sse2 avx2 fma avx512f avx512_vnni\n",
            "Some CPU @ 2 GHz",
            ["avx2", "fma", "avx512f", "avx512_vnni"],
        ),
        ("", None, []),
    ],
    ids=["rpi4", "rpi5", "unknown part", "x86", "nothing"],
)
def test_the_processor(tmp_path: Path, cpuinfo: str, cpu: str | None, features: list[str]) -> None:
    write(tmp_path, "proc/cpuinfo", cpuinfo)
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    found = agent.cpu_facts(str(tmp_path))
    assert (found["cpu"], found["cpu_features"]) == (cpu, features)
    assert (found["board"], found["governor"]) == ("Raspberry Pi 4 Model B Rev 1.4", None)


def test_state_of_this_host() -> None:
    found = agent.state()
    assert set(found) == {"clock_mhz", "temperature_c", "throttled", "load_average"}
    assert found["clock_mhz"] is None or 1 < found["clock_mhz"] < 20_000
    assert set(found) < set(agent.host_facts())


def aged(folder: Path, name: str, size: int, age_s: float) -> None:
    (folder / name).write_bytes(bytes(size))
    os.utime(folder / name, (time.time() - age_s,) * 2)


@given(
    files=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=6),
    kept=st.integers(0, 6),
    most=st.integers(0, 30),
)
def test_sweep_against_the_rule(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[int, int]], kept: int, most: int
) -> None:
    """The rule: the old go; then the least recently used go until the rest fits; what is kept never goes."""
    folder = tmp_path_factory.mktemp("cache")
    for index, (size, days) in enumerate(files):
        aged(folder, f"{index}.tflite", size, days * 86_400 + 100 - index)
    agent.sweep(str(folder), keep=[f"{kept}.tflite"], most_bytes=most)
    left = {index: size for index, (size, days) in enumerate(files) if days < 7 or index == kept}
    for index in sorted(left, key=lambda index: (-files[index][1], index)):
        if sum(left.values()) > most and index != kept:
            del left[index]
    assert {path.name for path in folder.iterdir()} == {f"{index}.tflite" for index in left}


def test_cache_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = Path(agent.private_folder())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert agent.private_folder() == str(folder)
    folder.chmod(0o755)
    with pytest.raises(agent.Refused, match="remove it there"):
        agent.private_folder()


def test_cache_is_no_link_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"autocompress-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(agent.Refused, match="remove it there"):
        agent.private_folder()


def test_a_file_that_cannot_be_stored_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OSError, match="taken"):
        agent.store(str(tmp_path / "taken"), b"model")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


class FakeInterpreter:
    """Inputs of each kind; counts its runs."""

    def __init__(self, model_path: str = "", num_threads: int = 1) -> None:
        self.invoked, self.tensors = 0, {}  # type: int, dict[int, Array]

    def allocate_tensors(self) -> None: ...

    def invoke(self) -> None:
        self.invoked += 1

    def get_input_details(self) -> list[dict[str, Any]]:
        kinds = [(np.float32, 0.0), (np.int8, 0.5), (np.int32, 0.0), (np.bool_, 0.0), (np.int16, 0.1)]
        return [
            {
                "index": index,
                "name": "x",
                "dtype": dtype,
                "shape": np.array([2, 500]),
                "quantization": (scale, 0),
            }
            for index, (dtype, scale) in enumerate(kinds)
        ]

    def set_tensor(self, index: int, data: Array) -> None:
        assert data.dtype == self.get_input_details()[index]["dtype"]
        self.tensors[index] = data


def test_inputs_are_random_and_the_same_each_time() -> None:
    first, second = FakeInterpreter(), FakeInterpreter()
    agent.feed(first)
    agent.feed(second)
    assert all(np.array_equal(first.tensors[index], second.tensors[index]) for index in range(5))
    assert first.tensors[0].std() > 0.5
    assert np.ptp(first.tensors[1].astype(int)) > 200
    assert set(first.tensors[2].ravel()) == {0, 1}  # may be indices
    assert np.ptp(first.tensors[4].astype(int)) > 50_000


def test_runs_are_counted_before_they_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "disable", lambda: None)
    job = {"threads": 1, "warmup_s": 0.0, "warmup_runs": 5, "min_run_s": 0.05}
    figures, samples = agent.measure_here(job, "", SimpleNamespace(Interpreter=FakeInterpreter))
    assert len(samples) == 8 * figures["samples"]
    assert agent.LEAST_RUNS <= figures["samples"] <= min(figures["runs"], agent.MOST_SAMPLES)


def test_repeat_holds_both_minima() -> None:
    start = time.perf_counter()
    assert len(agent.repeat(lambda: None, 0.0, 7)) == 7
    assert len(agent.repeat(lambda: None, 0.02, 1)) > 1
    assert time.perf_counter() - start >= 0.02


@pytest.mark.parametrize(
    ("baseline", "order"), [(SHA_B, "b m m b b m m b"), (None, "m m m m")], ids=["interleaved", "alone"]
)
def test_processes_are_interleaved_in_balance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, baseline: str | None, order: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    served = agent.Agent(-1)
    served.folder = str(tmp_path)
    request = {"model": SHA_A, "baseline": baseline, "processes": 4, "deadline_s": 1.0}
    missing, _ = served.measure(request, b"")
    assert sorted(missing["missing"]) == sorted(sha for sha in (SHA_A, baseline) if sha)
    for sha in missing["missing"]:
        served.put({"sha256": sha, "keep": []}, sha.encode())
    monkeypatch.setattr(served, "fork", lambda _, work, header, path, runtime: ({"runs": 1}, path[-8:-7].encode()))
    answer, samples = served.measure(request, b"")
    assert " ".join(run["kind"][0] for run in answer["runs"]) == order
    assert samples.decode() == order.replace(" ", "").replace("m", "a")
