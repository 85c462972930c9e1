"""Latency measured on the edge host: a command that starts Python there, and the agent that is sent to it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress import stats
from autocompress.errors import AutocompressError, CandidateError, DeviceError, unknown_name
from autocompress.measure import agent
from autocompress.records import Measurement

LEAST_RUN_S = 0.3
WARMUP_S, WARMUP_RUNS = 0.05, 5
MOST_DRIFT = 0.05

# The folder where the command starts is no place to import from: it may hold a json.py.
_BOOTSTRAP = (
    'import sys;sys.path=[p for p in sys.path if p];exec(compile(sys.stdin.buffer.read({size}),"agent","exec"))'
)
_JOIN_ARGUMENTS = ("ssh", "adb")  # they hand their arguments, joined by spaces, to a shell there
_MOST_BANNER_BYTES = 1 << 20
_CLOSE_S = 5.0
_NOT_STARTED = "check that the command starts Python 3.8 or newer there"
_LOST = "check the device and its connection, then run the same command again"


def agent_command(argv: Sequence[str], size: int) -> list[str]:
    """The command that starts the agent, a source of `size` bytes; `argv` ends with the Python executable.

    Behind ssh and adb the arguments that are added are quoted for the shell there.
    """
    added = ["-u", "-c", _BOOTSTRAP.format(size=size)]
    if Path(argv[0]).name in _JOIN_ARGUMENTS:
        added = [shlex.quote(word) for word in added]
    return [*argv, *added]


class Connection:
    """The pipe to one agent. Its faults are DeviceErrors that quote what the other side printed last."""

    def __init__(self, argv: Sequence[str], *, start_s: float, silence_s: float) -> None:
        """Start the agent and wait, at most `start_s` seconds, until it speaks."""
        self.name, self._silence_s = shlex.join(argv), silence_s
        source = Path(agent.__file__).read_bytes()
        try:
            self._process = subprocess.Popen(
                agent_command(argv, len(source)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for us, and we decide what becomes of the agent
            )
        except OSError as error:
            raise DeviceError(f"cannot start '{self.name}': {error.strerror}; {_NOT_STARTED}") from error
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        self._stdin, self._stdout, self._frames = stdin, stdout, agent.Frames(stdout.fileno())
        os.set_blocking(stdin.fileno(), False)
        self._printed: deque[str] = deque(maxlen=3)
        self._listener = threading.Thread(target=self._listen, args=(stderr,), daemon=True)
        self._listener.start()
        try:
            self._send(source, _NOT_STARTED)
            self._skip_banner(start_s)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id of the command, on this side."""
        return self._process.pid

    def call(
        self, header: Mapping[str, Any], body: bytes = b"", on_wait: Callable[[], None] | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """The answer to one request, header and body; `on_wait` is called while others measure there.

        DeviceError when the agent refuses or is lost; when it is lost, the connection is closed.
        """
        if self._stdin.closed:
            raise DeviceError(f"the connection to '{self.name}' is closed; {_LOST}")
        try:
            self._send(agent.encode(dict(header), body), _LOST)
            while "event" in (answer := self._receive())[0]:
                if on_wait is not None and answer[0]["event"] == "waiting":
                    on_wait()
        except BaseException:  # a half-sent request, an answer nobody waits for: the pipe is of no more use
            self.close()
            raise
        if "refused" in answer[0]:
            raise DeviceError(f"'{self.name}' refuses: {answer[0]['refused']}; put that right there")
        return answer

    def close(self) -> None:
        """Close the pipe, which ends the agent and all it started; kill the command if it stays."""
        self._stdin.close()
        self._stdout.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._listener.join(1.0)

    def _listen(self, stderr: Any) -> None:
        """Keep standard error from filling up, and its last lines."""
        with stderr:
            for line in iter(stderr.readline, b""):
                if line.strip():
                    self._printed.append(line.decode(errors="replace").strip())

    def _send(self, data: bytes, remedy: str) -> None:
        view = memoryview(data)
        while view:
            if not select.select([], [self._stdin], [], self._silence_s)[1]:
                raise self._lost(f"takes no data for {self._silence_s:g} s", remedy)
            try:
                view = view[os.write(self._stdin.fileno(), view) :]
            except BrokenPipeError:
                raise self._lost("ended", remedy) from None

    def _fill(self, seconds: float, remedy: str) -> None:
        if not select.select([self._stdout], [], [], seconds)[0]:
            raise self._lost(f"is silent for {seconds:g} s", remedy)
        if not self._frames.fill():
            raise self._lost("ended", remedy)

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        while (frame := self._frames.take()) is None:
            self._fill(self._silence_s, _LOST)
        return frame

    def _skip_banner(self, start_s: float) -> None:
        """Drop what a login prints, up to the agent's first word."""
        seen, end_s = self._frames.buffer, time.monotonic() + start_s
        while (at := seen.find(agent.MAGIC)) < 0:
            if len(seen) > _MOST_BANNER_BYTES or time.monotonic() > end_s:
                raise self._lost(f"has not spoken within {start_s:g} s and {len(seen)} bytes", _NOT_STARTED)
            self._fill(start_s, _NOT_STARTED)
        del seen[: at + len(agent.MAGIC)]

    def _lost(self, what: str, remedy: str) -> DeviceError:
        """The fault, with exit code and last lines of the other side as far as they come within a second."""
        if what == "ended":
            with contextlib.suppress(subprocess.TimeoutExpired):
                what = f"ended with exit code {self._process.wait(1.0)}"
            self._listener.join(1.0)
        said = f" ({' | '.join(self._printed)})" if self._printed else ""
        return DeviceError(f"the agent on '{self.name}' {what}{said}; {remedy}")


@dataclass(frozen=True, kw_only=True)
class ProcessRun:
    """What one measurement process found. `runs` exceeds the number of samples where these were thinned."""

    kind: str  # "model" | "baseline"
    load_ms: float
    first_inference_ms: float
    peak_memory_bytes: int | None  # growth of the process's largest resident set by loading and running
    runs: int
    samples_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Median of the samples."""
        return float(np.median(self.samples_ms))


class Host:
    """An edge host with one runtime and one thread count, as a context manager; one measurement at a time.

    `argv` is the command up to and including the Python executable there; `on_wait` gets a line to show while
    another measurement occupies the device. Entering raises DeviceError when the agent does not start within
    `start_s` seconds, when the runtime is missing or does not load there, and when there are fewer cores than
    `threads`; any call raises it when the agent is gone or silent for `silence_s` seconds.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        runtime: str,
        threads: int,
        on_wait: Callable[[str], None] | None = None,
        start_s: float = 60.0,
        silence_s: float = 30.0,
    ) -> None:
        if runtime not in agent.RUNTIMES:
            raise unknown_name("runtime", runtime, agent.RUNTIMES)
        if threads < 1 or not argv:
            raise AutocompressError(f"a host needs a command and 1 thread or more, got {argv} and {threads}")
        self.name, self.runtime, self.threads = shlex.join(argv), runtime, threads
        self._argv, self._on_wait, self._start_s, self._silence_s = tuple(argv), on_wait, start_s, silence_s
        self._connection: Connection | None = None
        self._facts: Mapping[str, Any] = MappingProxyType({})

    def __enter__(self) -> Host:
        self._connection = Connection(self._argv, start_s=self._start_s, silence_s=self._silence_s)
        try:
            facts, _ = self._connection.call({"request": "hello", "runtime": self.runtime})
            self._facts = MappingProxyType(facts)
            self._check_facts()
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the agent said of its host: python, machine, system, os_bits, cores (available), load_average,
        memory_bytes, memory_available_bytes, boot_id, clock_mhz, throttled (firmware bits), and runtimes: for
        each its version and numpy's, or why it does not load. None where it cannot be known."""
        return self._facts

    @property
    def runtime_version(self) -> str:
        """The version of the runtime there."""
        return str(self._facts["runtimes"][self.runtime]["version"])

    def measure(
        self,
        model: bytes,
        *,
        baseline: bytes | None = None,
        processes: int = 3,
        deadline_s: float = 60.0,
        min_run_s: float = LEAST_RUN_S,
    ) -> Measurement:
        """Latency of a `.tflite` in `processes` fresh processes, interleaved with as many of the baseline.

        Each process loads the file, runs it once, warms up (at least 5 runs and 50 ms) and is timed for at
        least `min_run_s` and 5 runs; it is killed there after `deadline_s`. Raises CandidateError with the
        reason when the model is refused, crashes or is killed; DeviceError when baseline or host fail.
        """
        if processes < 1 or min_run_s < LEAST_RUN_S or deadline_s <= 0:
            got = f"{processes} processes, {min_run_s:g} s, deadline {deadline_s:g} s"
            raise AutocompressError(f"a measurement takes 1 process, {LEAST_RUN_S} s, a deadline; got {got}")
        files = {_sha256(file): file for file in (model, baseline) if file is not None}
        request = {
            "request": "measure",
            "model": _sha256(model),
            "baseline": None if baseline is None else _sha256(baseline),
            "threads": self.threads,
            "processes": processes,
            "warmup_runs": WARMUP_RUNS,
            "warmup_s": WARMUP_S,
            "min_run_s": min_run_s,
            "deadline_s": deadline_s,
        }
        answer, body = self._request(request, files)
        if answer.get("failed") == "model":
            raise CandidateError(f"{self.runtime} {self.runtime_version}: {_reason(answer)}")
        if "failed" in answer:
            why = f"{self.runtime} {self.runtime_version}: {_reason(answer)}"
            raise DeviceError(f"the baseline does not run on '{self.name}' ({why}); try another runtime")
        return self._summary(_process_runs(answer["runs"], body), *answer["throttled"])

    def _request(self, request: dict[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], bytes]:
        """The answer to a measure request. Files that the edge host lacks (it sweeps its cache) are sent."""
        for _ in range(3):
            answer, body = self._call(request)
            if "missing" not in answer:
                return answer, body
            for sha256 in answer["missing"]:
                self._call({"request": "put", "sha256": sha256, "keep": list(files)}, files[sha256])
        raise DeviceError(f"'{self.name}' does not keep the files sent to it; free space there")

    def _call(self, request: Mapping[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        if self._connection is None:
            raise RuntimeError("a Host measures inside its `with` block")
        return self._connection.call(request, body, self._waiting)

    def _waiting(self) -> None:
        if self._on_wait is not None:
            self._on_wait(f"waiting for another measurement on '{self.name}'")

    def _check_facts(self) -> None:
        report, cores = self._facts["runtimes"][self.runtime], self._facts["cores"]
        if "version" not in report:
            reason = _reason(report)
            install = f"; run `python3 -m pip install {self.runtime}` there" if "No module" in reason else ""
            raise DeviceError(f"{self.runtime} does not load on '{self.name}': {reason}{install}")
        if self.threads > cores:
            asked = f"{self.threads} threads exceed the {cores} cores available on '{self.name}'"
            raise DeviceError(f"{asked}; ask for {cores} or fewer in the device profile")

    def _summary(self, runs: Sequence[ProcessRun], before: int | None, after: int | None) -> Measurement:
        models = [run for run in runs if run.kind == "model"]
        medians = np.array([run.median_ms for run in models])
        baselines = np.array([run.median_ms for run in runs if run.kind == "baseline"])
        samples = [run.samples_ms for run in models]
        pooled = np.concatenate(samples)
        peaks = [run.peak_memory_bytes for run in models if run.peak_memory_bytes is not None]
        return Measurement(
            latency_ms=float(np.median(medians)),
            latency_source="measured",
            latency_ci_ms=stats.median_of_medians_interval(samples, 0),
            p90_ms=float(np.quantile(pooled, 0.9)),
            iqr_ms=stats.iqr(pooled),
            outliers=sum(stats.tukey_outliers(run) for run in samples),
            load_ms=float(np.median([run.load_ms for run in models])),
            first_inference_ms=float(np.median([run.first_inference_ms for run in models])),
            peak_memory_bytes=max(peaks, default=None),
            ratio_to_baseline=float(np.median(medians / baselines)) if baselines.size else None,
            doubtful=drifted(baselines) or throttled(before, after),
            runtime=self.runtime,
            runtime_version=self.runtime_version,
            os_bits=self._facts["os_bits"],
            threads=self.threads,
            samples_ms=tuple(samples),
        )


def local_host(runtime: str, threads: int, on_wait: Callable[[str], None] | None = None) -> Host:
    """This machine, under the Python that runs now."""
    return Host([sys.executable], runtime=runtime, threads=threads, on_wait=on_wait)


def drifted(medians: npt.NDArray[np.float64]) -> bool:
    """Whether the interleaved baseline moved by more than 5 %: the range of its process medians (shape (n,),
    any unit) over their median. The whole range, not first against last: a slow-down that comes and goes in
    between spoils a measurement as well."""
    return medians.size > 1 and bool(np.ptp(medians) > MOST_DRIFT * np.median(medians))


def throttled(before: int | None, after: int | None) -> bool:
    """Whether a Raspberry Pi's firmware slowed it down meanwhile: bits 0-3 tell of now, 16-19 are sticky."""
    if before is None or after is None:
        return False
    return bool((before | after) & 0xF or after & ~before & 0xF0000)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _process_runs(figures: Sequence[Mapping[str, Any]], body: bytes) -> list[ProcessRun]:
    """The figures of each process with its share of the samples: nanoseconds, little-endian int64."""
    nanoseconds = np.frombuffer(body, "<i8")
    ends = np.cumsum([run["samples"] for run in figures])
    return [
        ProcessRun(
            kind=run["kind"],
            load_ms=run["load_ns"] / 1e6,
            first_inference_ms=run["first_ns"] / 1e6,
            peak_memory_bytes=run["peak_memory_bytes"],
            runs=run["runs"],
            samples_ms=tuple((nanoseconds[end - run["samples"] : end] / 1e6).tolist()),
        )
        for run, end in zip(figures, ends, strict=True)
    ]


def _reason(answer: Mapping[str, Any]) -> str:
    """Why a process on the edge host came to no result."""
    if "failure" in answer:
        return str(answer["failure"])
    if answer["late_s"]:
        return f"killed at the deadline of {answer['late_s']:g} s"
    number = answer["exit_code"] - 128
    said = [line.strip() for line in answer["printed"].splitlines() if line.strip() and "INFO:" not in line]
    last = f": {said[-1]}" if said else ""
    if number == signal.SIGKILL:
        return f"killed by SIGKILL, most likely because memory ran out{last}"
    known = number in list(signal.Signals)
    return (f"killed by {signal.Signals(number).name}" if known else f"ended with exit code {number + 128}") + last
