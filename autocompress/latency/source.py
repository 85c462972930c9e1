"""Where a study's latencies come from: the device's own measurements or its model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from autocompress.errors import AutocompressError, DeviceError
from autocompress.latency.host.client import Host, profile_host
from autocompress.latency.host.retry import WAIT_S, PatientHost, Say, silent
from autocompress.latency.model.memory import estimate_memory
from autocompress.latency.model.predict import predict
from autocompress.network.graph.xnnpack_sparse import runs_sparse
from autocompress.network.tflite.graph import read_graph
from autocompress.records.measurement import Measurement
from autocompress.specs import (
    CalibratedModel,
    DeviceProfile,
    load_device,
)

Latency = Callable[[bytes, int], Measurement]  # (file, processes) -> what it takes on the device
Known = Callable[[bytes], Measurement | None]
SEARCH_PROCESSES, FRONT_PROCESSES = 3, 5
DeviceKind = Callable[[DeviceProfile], Latency]
KINDS: dict[str, DeviceKind] = {}  # beside those that every profile has: its host, or its latency model
_TRIES = 3
_OTHER_RUNTIME = {"local": "local-tflite-runtime", "local-tflite-runtime": "local"}


class CandidateLatency(Protocol):
    """What tells the latency of a candidate's file."""

    def measure(self, file: bytes, processes: int) -> Measurement:
        """The latency, from so many fresh processes where it is measured. CandidateError where the file fails."""

    def known(self, file: bytes) -> Measurement | None:
        """A latency that costs nothing: modelled, or measured before for the same kernels; else None."""

    def expected(self, file: bytes) -> Measurement | None:
        """What the device's model says; None where there is none or it says nothing of this file."""


class Unscreened:
    """A `Latency` as a `CandidateLatency` of which nothing is known before it is measured."""

    def __init__(self, latency: Latency) -> None:
        self._latency = latency

    def measure(self, file: bytes, processes: int) -> Measurement:
        """What the latency says."""
        return self._latency(file, processes)

    def known(self, _: bytes) -> None:
        """Nothing."""

    def expected(self, _: bytes) -> None:
        """Nothing."""


class LatencySource:
    """Latencies on one device. `source` is "measured", "modelled", "compiled" or "none"."""

    def __init__(
        self,
        profile: DeviceProfile,
        host: PatientHost | None = None,
        connected: Callable[[DeviceProfile], PatientHost] | None = None,
        model: Latency | None = None,
        source: str | None = None,
    ) -> None:
        """`host`: None where a model answers, `model` or else the profile's; `connected` opens the host of another
        profile; `source`: where it is none of the two."""
        self._profile, self._host, self._connected, self._model = profile, host, connected, model
        known = "measured" if host is not None else "modelled" if profile.compiler is None else "compiled"
        self.source = source or known

    @property
    def host(self) -> PatientHost | None:
        """The device's host; None where its model answers."""
        return self._host

    def bind(self, baseline: bytes) -> Latency:
        """A function (file, processes) -> Measurement; measurements are interleaved with `baseline`."""
        if self._model is not None:
            return self._model
        if self._host is None:
            assert self._profile.latency_model is not None
            model = self._profile.latency_model
            return lambda file, processes: predict(file, model)
        host = self._host
        return lambda file, processes: steady(host, file, None if file == baseline else baseline, processes)

    def expected(self) -> Callable[[bytes], Measurement | None] | None:
        """What the profile's calibrated model says of a file, None where that is nothing, for a device that is
        measured; None where it has no such model, or one of another runtime, version, OS or number of threads."""
        model = self._profile.latency_model
        if self._host is None or not isinstance(model, CalibratedModel):
            return None
        host, then = self._host.host, model.runtime
        now = (host.runtime, host.runtime_version, host.threads, host.facts["os_bits"])
        if (then.name, then.version, then.threads, then.os_bits) != now:
            return None

        def predicted(file: bytes) -> Measurement | None:
            if runs_sparse(read_graph(file)):  # the model knows dense kernels alone
                return None
            try:
                return predict(file, model)
            except AutocompressError:  # layers in a dtype that was not measured
                return None

        return predicted

    def check_same(self, baseline: Measurement) -> None:
        """DeviceError where a study's baseline was measured with another version of the runtime or another OS than the
        host has now: their figures cannot be compared."""
        if self._host is None:
            return
        host = self._host.host
        then = f"{baseline.runtime_version}, {baseline.os_bits}-bit"
        now = f"{host.runtime_version}, {host.facts['os_bits']}-bit"
        if then != now:
            raise DeviceError(
                f"the study was measured with {baseline.runtime} {then}, '{host.name}' has {now}; put the version back "
                "there, or start a new --study"
            )

    def second_runtime(self, baseline: bytes) -> tuple[str, Measurement] | None:
        """The baseline on the machine's other runtime: (its name, latency); None where there is no other here."""
        other = _OTHER_RUNTIME.get(self._profile.name)
        if other is None or self._profile.host != "local" or self._connected is None:
            return None
        profile = load_device(other)
        if not _installed(profile.runtime.name):
            return None
        host = self._connected(profile)
        return f"{profile.runtime.name} ({profile.name})", host.measure(baseline, baseline=None, processes=3)


def unknown(file: bytes, profile: DeviceProfile) -> Measurement:
    """What is known of a file on a device without a host and a model: the memory that it takes, estimated."""
    memory = estimate_memory(file).total_bytes
    return Measurement(
        latency_ms=None,
        latency_source="none",
        peak_memory_bytes=memory,
        memory_estimated=True,
        runtime=profile.runtime.name,
        threads=profile.runtime.threads,
    )


def steady(host: Host | PatientHost, file: bytes, baseline: bytes | None, processes: int) -> Measurement:
    """A measurement during which the baseline held still; after some tries the one whose interval is narrowest, which
    says that it is doubtful."""
    tries: list[Measurement] = []
    while len(tries) < _TRIES and (not tries or tries[-1].doubtful):
        tries.append(host.measure(file, baseline=baseline, processes=processes))
    return tries[-1] if not tries[-1].doubtful else min(tries, key=_relative_width)


def _relative_width(measured: Measurement) -> float:
    low, high = measured.latency_ci_ms or (0.0, float("inf"))
    return (high - low) / measured.known_latency_ms


def _installed(runtime: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(runtime.replace("-", "_")) is not None


@contextmanager
def latency_on(
    profile: DeviceProfile, *, wait_s: float = WAIT_S, say: Say = silent, needed: bool = True
) -> Iterator[LatencySource]:
    """The latencies of a device while its host, if it has one, is connected. A host that is away is waited for, at most
    `wait_s` seconds; `say` gets a line for whoever wonders why nothing happens.

    AutocompressError for a profile that can neither be measured nor modelled where that is `needed`, else its source is
    "none"; DeviceError where its host fails."""
    if profile.host is not None and profile.tells_flash:
        raise AutocompressError(f"'{profile.name}' runs no Python that could measure there; leave --host out")
    with ExitStack() as stack:
        if profile.kind is not None:
            yield LatencySource(profile, model=_of_kind(profile.kind)(profile))
        elif profile.compiler is not None:
            from autocompress.latency.compiler.vela import vela_latency

            yield LatencySource(profile, model=vela_latency(profile))
        elif profile.host is not None:

            def connected(each: DeviceProfile) -> PatientHost:
                return stack.enter_context(patient_host(each, wait_s=wait_s, say=say))

            yield LatencySource(profile, connected(profile), connected)
        elif profile.latency_model is not None:
            yield LatencySource(profile)
        elif profile.runtime.name == "tflite-micro" and not needed:
            from autocompress.latency.micro import micro_memory

            yield LatencySource(profile, model=micro_memory(), source="none")
        elif not needed:
            yield LatencySource(profile, model=lambda file, _: unknown(file, profile), source="none")
        else:
            raise AutocompressError(
                f"device '{profile.name}' has no latency model and no host: measure with --host user@name, "
                "or in a copy of its profile with host: {command: [...]}"
            )


def register_device_kind(name: str, latency_of: DeviceKind) -> None:
    """Make a way to know latencies available in this process under `name`: a profile whose `kind` is that name gets
    them from `latency_of(profile)`, a function of a file and a number of processes."""
    KINDS[name] = latency_of


def _of_kind(name: str) -> DeviceKind:
    if name not in KINDS:
        raise AutocompressError(
            f"device kind '{name}' is not registered in this process; call autocompress.register_device_kind first"
        )
    return KINDS[name]


def patient_host(profile: DeviceProfile, *, wait_s: float = WAIT_S, say: Say = silent) -> PatientHost:
    """The host of a profile that has one, waited for where it is away."""
    return PatientHost(profile_host(profile, say), wait_s=wait_s, say=say)
