"""The agent: measures networks on the edge host. Its source comes over the pipe that then carries frames.

Needs Python 3.8, numpy and a runtime there, nothing of this package. Each measurement is a fork of the agent,
which has imported the runtime but makes no interpreter and no thread: it may crash or hang and takes nothing
with it. That the import itself survives is found out in a fork first. A frame is a JSON header and raw bytes,
both with their length in front. Requests: hello, has, put, measure. Facts that cannot be known are None.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

MAGIC = b"\x00\xffautocompress-agent\xff\x00"  # ends what a login prints; an echo of this line is no match
RUNTIMES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
LENGTHS = struct.Struct(">IQ")  # bytes of the header, bytes of the body
HEARTBEAT_S, POLL_S, IMPORT_S, TURN_S = 1.0, 0.02, 120.0, 600.0
CACHE_BYTES, CACHE_S = 200_000_000, 7 * 86_400
IDLE_S = 1800.0  # a network that vanishes closes no pipe; who comes back later starts another agent
LEAST_RUNS, MOST_SAMPLES = 5, 5_000


class Refused(Exception):  # noqa: N818
    """A request that cannot be served: the agent answers with the message and goes on."""


def encode(header: dict[str, Any], body: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


class Frames:
    """The frames that arrive on a file descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd, self.buffer = fd, bytearray()

    def fill(self) -> bool:
        """Read once what is there, waiting for the first byte; False when the other side is gone."""
        data = os.read(self.fd, 1 << 20)
        self.buffer += data
        return bool(data)

    def take(self) -> tuple[dict[str, Any], bytes] | None:
        """The next frame, header and body; None while it is incomplete."""
        if len(self.buffer) < LENGTHS.size:
            return None
        header, body = LENGTHS.unpack_from(self.buffer)
        end = LENGTHS.size + header + body
        if len(self.buffer) < end:
            return None
        text, data = bytes(self.buffer[LENGTHS.size : end - body]), bytes(self.buffer[end - body : end])
        del self.buffer[:end]
        return json.loads(text), data


def write_all(fd: int, data: bytes) -> None:
    """Write every byte."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def one_line(error: BaseException) -> str:
    """An exception as one line."""
    kind = "" if isinstance(error, Refused) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())


def read_text(path: str) -> str:
    """The stripped text of a small system file, empty where there is none."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def proc_bytes(path: str, field: str) -> int | None:
    """The line `field: N kB` of a file below /proc."""
    found = [line.split()[1] for line in read_text(path).splitlines() if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None


def cores_available(root: str = "") -> int:
    """The whole cores this process may use: its affinity, cpu.max of its control group and of those above."""
    allowed = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for line in read_text(f"{root}/proc/self/cgroup").splitlines():
        names = line[3:].rstrip("/").split("/") if line.startswith("0::") else []
        for depth in range(len(names)):
            folder = f"{root}/sys/fs/cgroup" + "/".join(names[: depth + 1])
            quota, _, period = read_text(f"{folder}/cpu.max").partition(" ")
            if quota.isdigit():  # else it says max, or there is no such file
                allowed.append(int(quota) // int(period))
    return max(1, min(allowed))


def firmware(*question: str) -> str:
    """What the firmware of a Raspberry Pi answers, the part behind `=`; empty elsewhere."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.check_output(["vcgencmd", *question], stdin=subprocess.DEVNULL, timeout=5)
        return answer.decode(errors="replace").strip().partition("=")[2]
    return ""


def throttle_bits() -> int | None:
    """Bits 0-3 tell of now, 16-19 of all time since boot: low voltage, capped, throttled, soft limit."""
    bits = firmware("get_throttled")
    return int(bits, 16) if bits.startswith("0x") else None


def clock_mhz() -> float | None:
    """The clock of the first core. The firmware is asked first: a Raspberry Pi's kernel does not know it."""
    hertz = firmware("measure_clock", "arm")
    kilohertz = read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return int(hertz) / 1e6 if hertz else int(kilohertz) / 1e3 if kilohertz else None


def host_facts() -> dict[str, Any]:
    """What does not depend on a runtime."""
    return {
        "python": sys.version.split()[0],
        "machine": os.uname().machine,
        "system": f"{os.uname().sysname} {os.uname().release}",
        "os_bits": struct.calcsize("P") * 8,  # of this Python and so of the runtime, whatever the kernel is
        "cores": cores_available(),
        "load_average": os.getloadavg()[0],
        "memory_bytes": proc_bytes("/proc/meminfo", "MemTotal"),
        "memory_available_bytes": proc_bytes("/proc/meminfo", "MemAvailable"),
        "boot_id": read_text("/proc/sys/kernel/random/boot_id") or None,
        "clock_mhz": clock_mhz(),
        "throttled": throttle_bits(),
    }


def private_folder() -> str:
    """The cache of models, open to its owner only: what lies in it is run."""
    path = os.path.join(tempfile.gettempdir(), f"autocompress-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    about = os.lstat(path)
    if about.st_uid != os.getuid() or about.st_mode & 0o170077 != 0o040000:
        raise Refused(f"{path} is not a folder that only this user can open; remove it there")
    return path


def sweep(folder: str, keep: Sequence[str] = (), most_bytes: int = CACHE_BYTES) -> None:
    """Remove what was not used for CACHE_S and, oldest first, what exceeds `most_bytes`; never `keep`."""
    with contextlib.suppress(FileNotFoundError):  # another agent of this user sweeps too
        files = sorted((file.stat().st_mtime, file.stat().st_size, file.name) for file in os.scandir(folder))
        total = sum(size for _, size, _ in files)
        for used_s, size, name in files:
            if name not in keep and (total > most_bytes or time.time() - used_s > CACHE_S):
                total -= size
                os.unlink(f"{folder}/{name}")


def store(path: str, body: bytes) -> None:
    """Write a file that has its name only when it is whole."""
    partial = f"{path}.{os.getpid()}"
    try:
        with open(partial, "wb") as file:
            file.write(body)
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def open_lock() -> int:
    """The lock file of the device, one for all its users: flock needs no right to write."""
    path = os.path.join(tempfile.gettempdir(), "autocompress.lock")
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.fchmod(fd, 0o644)  # whatever the umask
        os.close(fd)
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def probe(runtime: str) -> tuple[dict[str, Any], bytes]:
    """Import numpy and the runtime: their versions. A fault of theirs comes out as it is."""
    from importlib import metadata

    numpy, version = importlib.import_module("numpy").__version__, "unknown"
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version(runtime)
    if version.startswith("2.14.") and int(numpy.split(".")[0]) > 1:
        raise Refused(f"{runtime} {version} crashes under numpy {numpy}: install 'numpy<2' there")
    importlib.import_module(RUNTIMES[runtime])
    return {"version": version, "numpy": numpy}, b""


def feed(interpreter: Any) -> None:
    """Random inputs of a fixed seed. What is not quantized may be indices, so it is 0 or 1."""
    numpy = importlib.import_module("numpy")
    random = numpy.random.default_rng(0)
    for tensor in interpreter.get_input_details():
        dtype, shape = numpy.dtype(tensor["dtype"]), tuple(tensor["shape"])
        if dtype.kind == "f":
            data = random.standard_normal(shape, dtype=numpy.float32)
        elif dtype.kind in "iu" and (dtype.itemsize == 1 or tensor["quantization"][0]):
            limits = numpy.iinfo(dtype)
            data = random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:
            data = random.integers(0, 2, shape)
        interpreter.set_tensor(tensor["index"], data.astype(dtype))


def repeat(invoke: Callable[[], object], least_s: float, least_runs: int) -> array.array[int]:
    """The nanoseconds of each call, for at least that long and that often."""
    clock, samples = time.perf_counter_ns, array.array("q")
    end = clock() + int(least_s * 1e9)
    while len(samples) < least_runs or clock() < end:
        start = clock()
        invoke()
        samples.append(clock() - start)
    return samples


def measure_here(job: dict[str, Any], path: str, module: Any) -> tuple[dict[str, Any], bytes]:
    """One measurement in this process: its figures, and the samples in nanoseconds as int64."""
    gc.disable()
    before = proc_bytes("/proc/self/status", "VmHWM")  # a fork starts with what it shares with its parent
    start = time.perf_counter_ns()
    interpreter = module.Interpreter(model_path=path, num_threads=job["threads"])
    interpreter.allocate_tensors()
    load_ns = time.perf_counter_ns() - start
    feed(interpreter)
    first_ns = repeat(interpreter.invoke, 0, 1)[0]
    repeat(interpreter.invoke, job["warmup_s"], job["warmup_runs"])
    peak = proc_bytes("/proc/self/status", "VmHWM")  # the samples will add to it
    samples = repeat(interpreter.invoke, job["min_run_s"], LEAST_RUNS)
    kept = samples[:: -(-len(samples) // MOST_SAMPLES)]  # runs > samples: they were thinned
    figures = {"load_ns": load_ns, "first_ns": first_ns, "runs": len(samples), "samples": len(kept)}
    return dict(figures, peak_memory_bytes=peak and before and peak - before), kept.tobytes()


def prepare_fork(log: int, agent: int) -> None:
    """Let this process print to the log and, on Linux, end with the agent, and first if memory runs out."""
    for source, fd in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(source, fd)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != agent:
        os._exit(1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


class Agent:
    """Answers requests until its standard input closes. `output` is where its frames go."""

    def __init__(self, output: int) -> None:
        self.output, self.requests, self.beat_s, self.folder = output, Frames(0), 0.0, ""
        self.runtime: Any = None
        self.heard_s = time.monotonic()

    def serve(self) -> None:
        """Answer one request after the other, until none has come for IDLE_S."""
        answers = {"hello": self.hello, "has": self.has, "put": self.put, "measure": self.measure}
        while True:
            while (request := self.requests.take()) is None:
                if time.monotonic() > self.heard_s + IDLE_S:
                    return
                self.wait(set(), min(60.0, IDLE_S))
            try:
                answer = answers[request[0]["request"]](*request)
            except (Refused, OSError) as error:
                answer = {"refused": one_line(error)}, b""
            write_all(self.output, encode(*answer))
            self.heard_s = time.monotonic()

    def wait(self, fds: set[int], seconds: float, event: str = "") -> set[int]:
        """Those of `fds` that are readable in time; a heartbeat. EOFError when the other side has gone."""
        ready = set(select.select([0, *fds], [], [], max(0.0, seconds))[0])
        if 0 in ready:
            if not self.requests.fill():
                raise EOFError
            self.heard_s = time.monotonic()
        if event and time.monotonic() > self.beat_s + HEARTBEAT_S:
            self.beat_s = time.monotonic()
            write_all(self.output, encode({"event": event}))
        return ready & fds

    def fork(self, limit_s: float, work: Callable[..., tuple[dict[str, Any], bytes]], *arguments: Any) -> Any:
        """The header and body that `work` returns in its own process, or a header with its `failure`, or how
        it ended: `exit_code` (128 + signal), what it `printed` last, `late_s` if killed at the limit."""
        (results, results_end), (log, log_end), agent = os.pipe(), os.pipe(), os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(self.output)
                prepare_fork(log_end, agent)
                write_all(results_end, encode(*work(*arguments)))
            except BaseException as error:
                write_all(results_end, encode({"failure": one_line(error)}))
            finally:
                os._exit(0)
        os.close(results_end)
        os.close(log_end)
        frames, frame, running, printed, end_s = Frames(results), None, True, b"", time.monotonic() + limit_s
        try:
            while frame is None and running and time.monotonic() < end_s:
                ready = self.wait({results, log}, min(HEARTBEAT_S, end_s - time.monotonic()), "running")
                if log in ready:
                    printed = (printed + os.read(log, 1 << 16))[-4096:]
                if results in ready:
                    running = frames.fill()
                frame = frames.take()
        finally:
            os.kill(pid, signal.SIGKILL)  # no effect on how it ended, if it did
            status = os.waitpid(pid, 0)[1]
            printed += os.read(log, 1 << 16)
            os.close(results)
            os.close(log)
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        how = {"exit_code": code, "printed": printed.decode(errors="replace"), "late_s": running and limit_s}
        return frame or (how, b"")

    def hello(self, header: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        """Sweep the cache, import the runtime asked for if a fork survives that; the facts of this host."""
        self.folder = private_folder()
        sweep(self.folder)
        tried = {name: self.fork(IMPORT_S, probe, name)[0] for name in RUNTIMES}
        if "version" in tried[header["runtime"]]:
            self.runtime = importlib.import_module(RUNTIMES[header["runtime"]])
        return dict(host_facts(), runtimes=tried), b""

    def has(self, header: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        """Which of the models are not here; those that are here count as used now."""
        missing = []
        for sha256 in header["sha256"]:
            try:
                os.utime(f"{self.folder}/{sha256}.tflite")
            except FileNotFoundError:
                missing.append(sha256)
        return {"missing": missing}, b""

    def put(self, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Store a model under its digest; those in `keep` stay too."""
        store(f"{self.folder}/{header['sha256']}.tflite", body)
        sweep(self.folder, keep=[f"{sha256}.tflite" for sha256 in (header["sha256"], *header["keep"])])
        return {}, b""

    def turn(self) -> int:
        """The lock of the device, taken: a file descriptor to close."""
        end_s = time.monotonic() + TURN_S
        while time.monotonic() < end_s:
            fd = open_lock()
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            os.close(fd)
            self.wait(set(), POLL_S, "waiting")
        raise Refused(f"another measurement has kept the lock of this device for {TURN_S:g} s")

    def measure(self, header: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        """Runs of the model and, interleaved, of the baseline: the figures of each and the samples of all; or
        what is `missing`, or which one `failed` and how."""
        models = {kind: header[kind] for kind in ("baseline", "model") if header[kind]}
        if (missing := self.has({"sha256": list(models.values())}, b""))[0]["missing"]:
            return missing
        runs, samples, lock = [], b"", self.turn()
        try:
            before = throttle_bits()
            for pair in range(header["processes"]):
                for kind in sorted(models, reverse=pair % 2 == 1):  # baseline, model, model, baseline, ...
                    path = f"{self.folder}/{models[kind]}.tflite"
                    figures, data = self.fork(header["deadline_s"], measure_here, header, path, self.runtime)
                    if "runs" not in figures:
                        return dict(figures, failed=kind), b""
                    runs.append(dict(figures, kind=kind))
                    samples += data
            return {"runs": runs, "throttled": [before, throttle_bits()]}, samples
        finally:
            os.close(lock)


def main() -> None:
    """Keep the output for frames, let all else print to standard error, serve until the other side goes."""
    output = os.dup(1)
    os.dup2(2, 1)
    for name in ("OPENBLAS", "OMP", "MKL", "BLIS"):
        os.environ[f"{name}_NUM_THREADS"] = "1"  # threads made by an import would not survive the forks
    write_all(output, MAGIC)
    with contextlib.suppress(EOFError, BrokenPipeError):  # nobody is left to be told
        Agent(output).serve()


if __name__ == "__main__":
    main()
