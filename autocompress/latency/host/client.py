"""Latency measured on the edge host: a command that starts Python there, and the agent that is sent to it."""

from __future__ import annotations

import hashlib
import math
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress import stats
from autocompress.errors import AutocompressError, CandidateError, DeviceError, unknown_name
from autocompress.latency.host import agent, ssh
from autocompress.latency.host.connection import Connection
from autocompress.latency.host.op_profile import PROFILED_RUNTIME, profile_of
from autocompress.latency.host.ssh import host_of, ssh_argv
from autocompress.latency.model.operators import least_memory_bytes
from autocompress.records.measurement import Environment, Measurement, OpProfile
from autocompress.specs import DeviceProfile

LEAST_RUN_S = 0.3
WARMUP_S, WARMUP_RUNS = 0.05, 5
MOST_DRIFT = 0.05
MOST_SAMPLES_AT_ONCE = 500


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
        self.name, self.runtime, self.threads = ssh.name_of(argv), runtime, threads
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
        """What the agent said of its host: python, machine, system, os_bits, cpu, board, cpu_features, governor, cores
        (available), memory_bytes, memory_available_bytes, boot_id, clock_mhz, temperature_c, throttled (firmware bits),
        load_average, and runtimes: for each its version and numpy's, or why it does not load. None where it cannot be
        known."""
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
            raise CandidateError(self._why(answer, model))
        if "failed" in answer:
            why = self._why(answer, baseline or b"")
            raise DeviceError(f"the baseline does not run on '{self.name}' ({why}); try another runtime")
        return self._summary(_process_runs(answer["runs"], body), answer["states"])

    def profile(self, model: bytes, *, deadline_s: float = 60.0, min_run_s: float = LEAST_RUN_S) -> OpProfile:
        """The time of each operator or kernel of a `.tflite`, in a process of its own there.

        Where the runtime tells none, or its profiler refuses, crashes or hangs, `ops` is None and `reason` says why:
        a latency that was measured stays valid. DeviceError when the host fails."""
        if self.runtime != PROFILED_RUNTIME:
            return OpProfile(ops=None, reason=f"{self.runtime} gives no per-op times")
        request = self._job("profile", model, deadline_s) | {
            "warmup_runs": WARMUP_RUNS,
            "warmup_s": WARMUP_S,
            "min_run_s": min_run_s,
        }
        answer, _ = self._request(request, {request["model"]: model})
        if "failed" in answer:
            return OpProfile(
                ops=None, reason=f"the profiler of {self.runtime} {self.runtime_version}: {_reason(answer)}"
            )
        return profile_of(answer, model)

    def outputs(
        self, model: bytes, inputs: Sequence[npt.NDArray[Any]], *, deadline_s: float = 60.0
    ) -> tuple[npt.NDArray[Any], ...]:
        """The outputs of a `.tflite` under the kernels there, for `inputs`: one array an input of the model, in its
        order, shape (n, ...). One array an output, shape (n, ...).

        Samples go there and back in pieces of some megabytes, each in a process of its own that is killed after
        `deadline_s`. CandidateError with the reason when the model is refused, crashes or is killed."""
        total, done, parts = len(inputs[0]), 0, []
        piece = max(1, agent.PIECE_BYTES * total // max(1, sum(each.nbytes for each in inputs)))
        piece = min(piece, MOST_SAMPLES_AT_ONCE)  # so that the deadline is one of slow boards too
        while done < total:
            samples = [np.ascontiguousarray(each[done : done + piece]) for each in inputs]
            parts.append(self._outputs(model, samples, deadline_s))
            done += len(parts[-1][0])
        return tuple(np.concatenate(pieces) for pieces in zip(*parts, strict=True))

    def _outputs(self, model: bytes, samples: Sequence[npt.NDArray[Any]], deadline_s: float) -> list[npt.NDArray[Any]]:
        """The outputs for the first of these samples: as many as fill a frame."""
        shapes = [{"dtype": each.dtype.str, "shape": each.shape} for each in samples]
        request = self._job("outputs", model, deadline_s) | {"inputs": shapes}
        body = b"".join(each.tobytes() for each in samples)
        answer, found = self._request(request, {request["model"]: model}, body)
        if "failed" in answer:
            raise CandidateError(self._why(answer, model))
        arrays, start = [], 0
        for about in answer["outputs"]:
            flat = np.frombuffer(found, about["dtype"], math.prod(about["shape"]), start)
            arrays.append(flat.reshape(about["shape"]))
            start += flat.nbytes
        return arrays

    def _why(self, answer: Mapping[str, Any], model: bytes) -> str:
        """Why the runtime came to no result with a model."""
        why, free = f"{self.runtime} {self.runtime_version}: {_reason(answer)}", self._facts["memory_available_bytes"]
        try:
            least = least_memory_bytes(model)
        except AutocompressError:  # it is no network, which is what the runtime says
            return why
        too_large = free is not None and least > free  # which runtimes rarely say
        return f"{why}; it needs {least / 1e6:,.0f} MB or more, there are {free / 1e6:,.0f}" if too_large else why

    def _job(self, request: str, model: bytes, deadline_s: float) -> dict[str, Any]:
        return {"request": request, "model": _sha256(model), "threads": self.threads, "deadline_s": deadline_s}

    def _request(
        self, request: dict[str, Any], files: Mapping[str, bytes], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """The answer to a request about models. Files that the edge host lacks (it sweeps its cache) are sent."""
        for _ in range(3):
            answer, found = self._call(request, body)
            if "missing" not in answer:
                return answer, found
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
            install = self._how_to_install() if "No module" in reason else ""
            raise DeviceError(f"{self.runtime} does not load on '{self.name}': {reason}{install}")
        if self.threads > cores:
            asked = f"{self.threads} threads exceed the {cores} cores available on '{self.name}'"
            raise DeviceError(f"{asked}; ask for {cores} or fewer in the device profile")

    def _how_to_install(self) -> str:
        if self.runtime == "tflite-runtime" and _release(self._facts["python"]) >= (3, 12):
            return f"; {self.runtime} has no wheel for Python 3.12 and later: take an older one, or ai-edge-litert"
        venv = f"`python3 -m venv venv && venv/bin/pip install {self.runtime}`"  # PEP 668: there is no other way
        named = f" and name it: --host {ssh.with_python(self.name)}" if ssh.is_ssh(self._argv) else ""
        return f"; run `python3 -m pip install {self.runtime}` there, or where that is not allowed {venv}{named}"

    def _environment(self, states: Sequence[Mapping[str, Any]]) -> Environment:
        constant = ("machine", "python", "cpu", "board", "cores", "governor")
        changing = ("clock_mhz", "temperature_c", "throttled", "load_average")
        pairs = {name: [state[name] for state in states] for name in changing}
        return Environment.from_dict(
            {name: self._facts[name] for name in (*constant, "cpu_features")}
            | {name: None if set(pair) == {None} else pair for name, pair in pairs.items()}
        )

    def _summary(self, runs: Sequence[ProcessRun], states: Sequence[Mapping[str, Any]]) -> Measurement:
        models = [run for run in runs if run.kind == "model"]
        medians = np.array([run.median_ms for run in models])
        baselines = np.array([run.median_ms for run in runs if run.kind == "baseline"])
        samples = [run.samples_ms for run in models]
        pooled = np.concatenate(samples)
        peaks = [run.peak_memory_bytes for run in models if run.peak_memory_bytes is not None]
        return Measurement(
            latency_ms=float(np.median(medians)),
            latency_source="measured",
            latency_ci_ms=stats.process_interval(medians),
            p90_ms=float(np.quantile(pooled, 0.9)),
            iqr_ms=stats.iqr(pooled),
            outliers=sum(stats.tukey_outliers(run) for run in samples),
            load_ms=float(np.median([run.load_ms for run in models])),
            first_inference_ms=float(np.median([run.first_inference_ms for run in models])),
            peak_memory_bytes=max(peaks, default=None),
            ratio_to_baseline=float(np.median(medians / baselines)) if baselines.size else None,
            ratio_ci=stats.process_interval(medians / baselines) if baselines.size else None,
            doubtful=drifted(baselines) or throttled(*(state["throttled"] for state in states)),
            runtime=self.runtime,
            runtime_version=self.runtime_version,
            os_bits=self._facts["os_bits"],
            threads=self.threads,
            samples_ms=tuple(samples),
            environment=self._environment(states),
        )


def local_host(runtime: str, threads: int, on_wait: Callable[[str], None] | None = None) -> Host:
    """This machine, under the Python that runs now."""
    return Host([sys.executable], runtime=runtime, threads=threads, on_wait=on_wait)


def at_host(profile: DeviceProfile, host: str | None) -> DeviceProfile:
    """The profile with the host of `--host`, `local` or a destination of ssh; unchanged with None."""
    return profile if host is None else replace(profile, host=host_of(host))


def profile_host(profile: DeviceProfile, on_wait: Callable[[str], None] | None = None) -> Host:
    """The host of a profile that has one, with the profile's runtime and threads."""
    runtime = profile.runtime
    return Host(argv_of(profile), runtime=runtime.name, threads=runtime.threads, on_wait=on_wait)


def argv_of(profile: DeviceProfile) -> list[str]:
    """The command that starts Python on the device, up to and including the Python executable."""
    host: Any = profile.host
    if host == "local":
        return [sys.executable]
    return [str(word) for word in host["command"]] if "command" in host else ssh_argv(host)


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


def _release(python: str) -> tuple[int, ...]:
    """(major, minor) of a Python's version."""
    return tuple(int(part) for part in python.split(".")[:2])


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
