"""Where a study's latencies come from: the device's own measurements or its model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from autocompress.errors import AutocompressError
from autocompress.measure.host import Host
from autocompress.measure.predict import predict
from autocompress.records import Measurement
from autocompress.search.objective import Latency
from autocompress.specs import DeviceProfile, load_device

_TRIES = 3
_OTHER_RUNTIME = {"local": "local-tflite-runtime", "local-tflite-runtime": "local"}


class LatencySource:
    """Latencies on one device. `source` is "measured" or "modelled"."""

    def __init__(self, profile: DeviceProfile, host: Host | None, stack: ExitStack) -> None:
        self._profile, self._host, self._stack = profile, host, stack
        self.source = "modelled" if host is None else "measured"

    def bind(self, baseline: bytes) -> Latency:
        """A function (file, processes) -> Measurement; measurements are interleaved with `baseline`."""
        if self._host is None:
            assert self._profile.latency_model is not None
            model = self._profile.latency_model
            return lambda file, processes: predict(file, model)
        host = self._host
        return lambda file, processes: _steady(host, file, None if file == baseline else baseline, processes)

    def second_runtime(self, baseline: bytes) -> tuple[str, Measurement] | None:
        """The baseline on the machine's other runtime: (its name, latency); None where there is no other here."""
        other = _OTHER_RUNTIME.get(self._profile.name)
        if other is None or not _installed(load_device(other).runtime.name):
            return None
        profile = load_device(other)
        host = self._stack.enter_context(_host(profile))
        return f"{profile.runtime.name} ({profile.name})", host.measure(baseline, baseline=None, processes=3)


def _steady(host: Host, file: bytes, baseline: bytes | None, processes: int) -> Measurement:
    """A measurement during which the baseline held still; after some tries the one whose interval is narrowest, which
    says that it is doubtful."""
    tries: list[Measurement] = []
    while len(tries) < _TRIES and (not tries or tries[-1].doubtful):
        tries.append(host.measure(file, baseline=baseline, processes=processes))
    return tries[-1] if not tries[-1].doubtful else min(tries, key=_relative_width)


def _relative_width(measured: Measurement) -> float:
    low, high = measured.latency_ci_ms or (0.0, float("inf"))
    return (high - low) / measured.latency_ms


def _installed(runtime: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(runtime.replace("-", "_")) is not None


@contextmanager
def latency_on(profile: DeviceProfile) -> Iterator[LatencySource]:
    """The latencies of a device while its host, if it has one, is connected.

    AutocompressError for a profile that can neither be measured nor modelled; DeviceError where its host fails."""
    with ExitStack() as stack:
        if profile.host is not None:
            yield LatencySource(profile, stack.enter_context(_host(profile)), stack)
        elif profile.latency_model is not None:
            yield LatencySource(profile, None, stack)
        else:
            raise AutocompressError(
                f"device '{profile.name}' has no latency model and no host: measure with a host, "
                "in a copy of its profile with host: {command: [...]}"
            )


def _host(profile: DeviceProfile) -> Host:
    return Host(argv_of(profile), runtime=profile.runtime.name, threads=profile.runtime.threads)


def argv_of(profile: DeviceProfile) -> list[str]:
    """The command that starts Python on the device, up to and including the Python executable."""
    host: Any = profile.host
    if host == "local":
        return [sys.executable]
    if "command" in host:
        return [str(word) for word in host["command"]]
    raise AutocompressError(
        f"device '{profile.name}': hosts over ssh are not supported yet; use host: {{command: [ssh, -o, BatchMode=yes, "
        f"{host['ssh']}, python3]}}"
    )
