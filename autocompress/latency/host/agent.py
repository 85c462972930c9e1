"""The agent: measures networks on the edge host. Its source comes over the pipe that then carries frames.

Needs Python 3.8, numpy and a runtime there, nothing of this package. Each measurement is a fork of the agent,
which has imported the runtime but makes no interpreter and no thread: it may crash or hang and takes nothing
with it. That the import itself survives is found out in a fork first. A frame is a JSON header and raw bytes,
both with their length in front. Requests: hello, has, put, measure, profile, outputs. Facts that cannot be known
are None.
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
import resource
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
PIECE_BYTES = 8_000_000  # inputs or outputs in one frame; boards with half a gigabyte hold some copies of it
# What decides which kernels run: of the Features (ARM) or flags (x86) of /proc/cpuinfo.
CPU_FEATURES = (
    "neon",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "sve",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
)
CPU_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd41": "Cortex-A78",
}
# Profiler events of LiteRT: what they time, and the types of tensors by their number.
INVOKE, BUILTIN, DELEGATE, PROFILED_DELEGATE, END_OF_INVOKE = 1, 2, 4, 8, 32
TENSOR_TYPES = {
    1: "float32",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float16",
    11: "float64",
}


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


def group_limits(name: str, root: str = "") -> list[list[str]]:
    """The words of a file of this process's control group and of those above, where they set a limit."""
    found = []
    for line in read_text(f"{root}/proc/self/cgroup").splitlines():
        names = line[3:].rstrip("/").split("/") if line.startswith("0::") else []
        for depth in range(len(names)):
            found.append(read_text(f"{root}/sys/fs/cgroup" + "/".join([*names[: depth + 1], name])).split())
    return [words for words in found if words and words[0].isdigit()]  # else it says max, or there is no such file


def cores_available(root: str = "") -> int:
    """The whole cores this process may use: its affinity and what its control groups leave it."""
    allowed = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    allowed += [int(quota) // int(period) for quota, period in group_limits("cpu.max", root)]
    return max(1, min(allowed))


def memory_available(root: str = "") -> int | None:
    """The bytes that this process may take: what is free, what its control groups and its own limit leave it."""
    free = proc_bytes(f"{root}/proc/meminfo", "MemAvailable")
    allowed = [int(words[0]) for words in group_limits("memory.max", root)] + ([free] if free else [])
    own = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(allowed + ([] if own == resource.RLIM_INFINITY else [own]), default=None)


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
    if hertz or kilohertz:
        return int(hertz) / 1e6 if hertz else int(kilohertz) / 1e3
    lines = read_text("/proc/cpuinfo").splitlines()  # on x86-64; a virtual machine tells its nominal clock
    return next((float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")), None)


def temperature_c() -> float | None:
    """The first thermal zone: of the processor on small boards."""
    text = read_text("/sys/class/thermal/thermal_zone0/temp")
    return int(text) / 1e3 if text.lstrip("-").isdigit() else None


def state() -> dict[str, Any]:
    """What may change between two measurements."""
    return {
        "clock_mhz": clock_mhz(),
        "temperature_c": temperature_c(),
        "throttled": throttle_bits(),
        "load_average": os.getloadavg()[0],
    }


def cpu_facts(root: str = "") -> dict[str, Any]:
    """The name of the processor, the board's where it has one, and the features that decide which kernels run."""
    fields: dict[str, str] = {}
    for line in read_text(f"{root}/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    flags = f"{fields.get('features', '')} {fields.get('flags', '')}".split()
    part = fields.get("cpu part", "")
    return {
        "cpu": fields.get("model name") or CPU_PARTS.get(part) or part or None,
        "board": read_text(f"{root}/proc/device-tree/model").rstrip("\0") or None,
        "cpu_features": [name for name in CPU_FEATURES if name in flags],
        "governor": read_text(f"{root}/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
    }


def host_facts() -> dict[str, Any]:
    """What does not depend on a runtime."""
    return {
        **cpu_facts(),
        **state(),
        "python": sys.version.split()[0],
        "machine": os.uname().machine,
        "system": f"{os.uname().sysname} {os.uname().release}",
        "os_bits": struct.calcsize("P") * 8,  # of this Python and so of the runtime, whatever the kernel is
        "cores": cores_available(),
        "memory_bytes": proc_bytes("/proc/meminfo", "MemTotal"),
        "memory_available_bytes": memory_available(),
        "boot_id": read_text("/proc/sys/kernel/random/boot_id") or None,
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


def open_lock(name: str = "autocompress.lock") -> int:
    """A lock file of this machine, one for all its users: flock needs no right to write."""
    path = os.path.join(tempfile.gettempdir(), name)
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


def draw(random: Any, dtype: Any, shape: Sequence[int], quantized: bool = False) -> Any:
    """One random input. What is not quantized may be indices, so it is 0 or 1."""
    numpy = importlib.import_module("numpy")
    dtype = numpy.dtype(dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape, dtype=numpy.float32).astype(dtype)
    if dtype.kind in "iu" and (dtype.itemsize == 1 or quantized):
        limits = numpy.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return random.integers(0, 2, shape).astype(dtype)


def feed(interpreter: Any) -> None:
    """Random inputs of a fixed seed."""
    random = importlib.import_module("numpy").random.default_rng(0)
    for tensor in interpreter.get_input_details():
        data = draw(random, tensor["dtype"], tuple(tensor["shape"]), bool(tensor["quantization"][0]))
        interpreter.set_tensor(tensor["index"], data)


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


def outputs_here(job: dict[str, Any], body: bytes, path: str, module: Any) -> tuple[dict[str, Any], bytes]:
    """The outputs for the samples in `body` (one array an input, as `inputs` of the job says), run in batches of the
    model's own size. It stops where the outputs fill a frame: `samples` says how many were done."""
    numpy = importlib.import_module("numpy")
    interpreter = module.Interpreter(model_path=path, num_threads=job["threads"])
    interpreter.allocate_tensors()
    arrays, details, start = [], interpreter.get_input_details(), 0
    if len(details) != len(job["inputs"]):
        raise Refused(f"{len(job['inputs'])} inputs are given, the model has {len(details)}")
    for about in job["inputs"]:
        flat = numpy.frombuffer(body, about["dtype"], int(numpy.prod(about["shape"])), start)
        arrays.append(flat.reshape(about["shape"]))
        start += flat.nbytes
    total, batch = len(arrays[0]), int(details[0]["shape"][0]) if len(details[0]["shape"]) else 1
    rows, done, filled = [], 0, 0
    while done < total and filled < PIECE_BYTES:
        rows.append(outputs_of(interpreter, [array[done : done + batch] for array in arrays], batch))
        filled += sum(row.nbytes for row in rows[-1])
        done += batch
    whole = [numpy.concatenate(parts)[: min(done, total)] for parts in zip(*rows)]  # noqa: B905 (Python 3.8)
    found = [{"dtype": array.dtype.str, "shape": array.shape} for array in whole]
    return {"outputs": found, "samples": min(done, total)}, b"".join(array.tobytes() for array in whole)


def outputs_of(interpreter: Any, samples: Sequence[Any], batch: int) -> list[Any]:
    """The outputs of one batch; a short one is filled up with its last sample."""
    numpy = importlib.import_module("numpy")
    interpreter.reset_all_variables()  # recurrent layers would start from the samples before
    for tensor, values in zip(interpreter.get_input_details(), samples):  # noqa: B905 (Python 3.8)
        filler = numpy.repeat(values[-1:], batch - len(values), axis=0)
        interpreter.set_tensor(tensor["index"], numpy.concatenate([values, filler]))
    interpreter.invoke()
    found = [interpreter.get_tensor(tensor["index"]) for tensor in interpreter.get_output_details()]
    for output in found:
        if output.ndim == 0 or len(output) != batch:
            raise Refused(f"an output has shape {output.shape} for a batch of {batch}, not a row a sample")
    return found


class Event(ctypes.Structure):
    """An event of LiteRT's profiler (litert/c/litert_profiler_event.h)."""

    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("index", ctypes.c_uint64),
        ("extra", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


class CompiledModel:
    """A model in LiteRT's C library with its profiler on: the Python interpreter has no way to it."""

    def __init__(self, library: str, path: str, threads: int) -> None:
        if not os.path.exists(library):  # it came with version 2
            raise Refused("this version of ai-edge-litert has no profiler")
        self.library, self.kept = ctypes.CDLL(library), []  # type: Any, list[Any]
        self.environment = self.make("LiteRtCreateEnvironment", 0, None)
        model = self.make("LiteRtCreateModelFromFile", self.environment, path.encode())
        options = self.make("LiteRtCreateOptions")
        self.call("LiteRtSetOptionsHardwareAccelerators", options, 1)  # the CPU
        self.add(options, b"runtime_options_string", b"enable_profiling = true\n")
        self.add(options, b"xnnpack", b"num_threads = %d\n" % threads)
        self.compiled = self.make("LiteRtCreateCompiledModel", self.environment, model, options)
        signature = self.make("LiteRtGetModelSignature", model, ctypes.c_size_t(0))
        self.inputs, self.outputs = self.buffers(signature, "Input"), self.buffers(signature, "Output")
        self.profiler = self.make("LiteRtCompiledModelGetProfiler", self.compiled)

    def call(self, name: str, *arguments: Any) -> None:
        """A function of the library; Refused where it gives a status that is not 0."""
        status = getattr(self.library, name)(*arguments)
        if status:
            raise Refused(f"{name} of LiteRT gives status {status}")

    def make(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """What such a function hands out through its last argument."""
        made = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(made))
        return made

    def add(self, options: ctypes.c_void_p, kind: bytes, text: bytes) -> None:
        """One block of options: the library frees its text."""
        libc = ctypes.CDLL(None)
        libc.strdup.restype = ctypes.c_void_p
        payload, free = ctypes.c_void_p(libc.strdup(text)), ctypes.cast(libc.free, ctypes.c_void_p)
        block = self.make("LiteRtCreateOpaqueOptions", kind, payload, free)
        self.call("LiteRtAddOpaqueOptions", options, block)

    def buffers(self, signature: ctypes.c_void_p, side: str) -> Any:
        """A buffer for each input or output, the inputs filled at random; unknown dimensions are 1."""
        random, count = importlib.import_module("numpy").random.default_rng(0), ctypes.c_size_t()
        self.call(f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
        made = (ctypes.c_void_p * count.value)()
        for index in range(count.value):
            tensor = self.make(f"LiteRtGetSignature{side}TensorByIndex", signature, ctypes.c_size_t(index))
            kind: Any = (ctypes.c_int32 * 128)()  # element type, rank, dimensions, strides; larger than it needs
            self.call("LiteRtGetRankedTensorType", tensor, kind)
            rank = kind[1] & 0x7F
            shape = [max(int(size), 1) for size in kind[2 : 2 + rank]]
            kind[2 : 2 + rank] = shape
            self.kept.append(kind)
            name, where = (
                f"LiteRtGetCompiledModel{side}BufferRequirements",
                (ctypes.c_size_t(0), ctypes.c_size_t(index)),
            )
            needs = self.make(name, self.compiled, *where)
            made[index] = self.make(
                "LiteRtCreateManagedTensorBufferFromRequirements", self.environment, kind, needs
            ).value
            if side == "Input":
                self.fill(ctypes.c_void_p(made[index]), draw(random, TENSOR_TYPES[kind[0]], shape))
        return made

    def fill(self, buffer: ctypes.c_void_p, values: Any) -> None:
        """Write an array where it has the buffer's size."""
        size, data, writing = ctypes.c_size_t(), values.tobytes(), 1
        self.call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        if size.value != len(data):
            raise Refused(f"LiteRT wants {size.value} bytes for an input of shape {values.shape}")
        address = ctypes.c_void_p()
        self.call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), writing)
        ctypes.memmove(address, data, len(data))
        self.call("LiteRtUnlockTensorBuffer", buffer)

    def run(self) -> None:
        """One inference."""
        counts = [ctypes.c_size_t(len(buffers)) for buffers in (self.inputs, self.outputs)]
        first = ctypes.c_size_t(0)
        self.call("LiteRtRunCompiledModel", self.compiled, first, counts[0], self.inputs, counts[1], self.outputs)

    def events(self) -> list[Any]:
        """The events of one inference, in order."""
        self.call("LiteRtStartProfiler", self.profiler)
        self.run()
        self.call("LiteRtStopProfiler", self.profiler)
        count = ctypes.c_int()
        self.call("LiteRtGetNumProfilerEvents", self.profiler, ctypes.byref(count))
        found = (Event * count.value)()
        self.call("LiteRtGetProfilerEvents", self.profiler, count, found)
        return list(found)


def ops_of(events: Sequence[Any]) -> tuple[list[tuple[str, str, int, int]], list[int], int]:
    """What ran in the main graph, in order: (kernel, builtin or delegate, index, partition), the microseconds of
    each and of the whole. The index is that of the operator, or within the delegate's partition. What runs inside
    a WHILE is in its time: its graphs are inferences in the inference."""
    keys, times, whole, depth, partition, last = [], [], 0, 0, -1, -1
    for event in events:
        tag = event.tag.decode(errors="replace")
        if event.kind == INVOKE and tag == "Invoke":
            whole, depth = whole or event.elapsed_us, depth + 1
        elif event.kind == END_OF_INVOKE and tag == "Invoke":
            depth -= 1
        elif depth == 1 and event.kind in (BUILTIN, DELEGATE, PROFILED_DELEGATE):
            if event.kind == BUILTIN:
                last = -1
            elif last < 0 or event.index <= last:
                partition += 1
            last = -1 if event.kind == BUILTIN else event.index
            kind = "builtin" if event.kind == BUILTIN else "delegate"
            keys.append((tag, kind, event.index, -1 if event.kind == BUILTIN else partition))
            times.append(event.elapsed_us)
    if depth or not whole:
        raise Refused(f"the profiler's {len(events)} events do not hold a whole inference")
    return keys, times, whole


def profile_here(job: dict[str, Any], path: str, module: Any) -> tuple[dict[str, Any], bytes]:
    """The times of each operator or kernel over many inferences in this process."""
    numpy, folder = importlib.import_module("numpy"), os.path.dirname(module.__file__)
    model = CompiledModel(os.path.join(folder, "libLiteRt.so"), path, job["threads"])
    repeat(model.run, job["warmup_s"], job["warmup_runs"])
    keys, end_s = ops_of(model.events())[0], time.monotonic() + job["min_run_s"]
    rows: list[list[int]] = []
    while len(rows) < LEAST_RUNS or (time.monotonic() < end_s and len(rows) < MOST_SAMPLES):
        ran, times, whole = ops_of(model.events())
        if ran != keys:
            raise Refused("the operators do not run in the same order each time")
        rows.append([whole, *times])
    medians = numpy.median(rows, axis=0)
    cut = len(rows) // 10  # the clock's step is 1 us: a mean tells more, but not of the slowest tenth
    means = numpy.sort(rows, axis=0)[cut : len(rows) - cut].mean(axis=0)
    names = ("kernel", "kind", "index", "partition")
    ops = [
        dict(zip(names, key), median_us=float(median), mean_us=float(mean))  # noqa: B905 (Python 3.8)
        for key, median, mean in zip(keys, medians[1:], means[1:])  # noqa: B905
    ]
    return {"ops": ops, "runs": len(rows), "inference_us": float(means[0])}, b""


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
        answers = {"hello": self.hello, "has": self.has, "put": self.put}
        answers.update(measure=self.measure, profile=self.profile, outputs=self.outputs)
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
            before = state()
            for pair in range(header["processes"]):
                for kind in sorted(models, reverse=pair % 2 == 1):  # baseline, model, model, baseline, ...
                    path = f"{self.folder}/{models[kind]}.tflite"
                    figures, data = self.fork(header["deadline_s"], measure_here, header, path, self.runtime)
                    if "runs" not in figures:
                        return dict(figures, failed=kind), b""
                    runs.append(dict(figures, kind=kind))
                    samples += data
            return {"runs": runs, "states": [before, state()]}, samples
        finally:
            os.close(lock)

    def profile(self, header: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        """The times of each operator of a model; or what is `missing`, or how it `failed`."""
        return self.alone(header, profile_here, header)

    def outputs(self, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """The outputs of a model for the inputs in `body`; or what is `missing`, or how it `failed`."""
        return self.alone(header, outputs_here, header, body)

    def alone(self, header: dict[str, Any], work: Callable[..., Any], *arguments: Any) -> tuple[dict[str, Any], bytes]:
        """What `work` finds in a process of its own, while nobody else measures."""
        if (missing := self.has({"sha256": [header["model"]]}, b""))[0]["missing"]:
            return missing
        path, lock = f"{self.folder}/{header['model']}.tflite", self.turn()
        try:
            answer, body = self.fork(header["deadline_s"], work, *arguments, path, self.runtime)
        finally:
            os.close(lock)
        worked = "ops" in answer or "outputs" in answer
        return (answer if worked else dict(answer, failed="model")), body


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
