"""A host that may go away for a while: reconnecting with growing pauses, and giving up after a limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from autocompress.errors import CandidateError, DeviceError, NotStartedError, UnreachableError
from autocompress.latency.host.client import Host
from autocompress.records.measurement import Measurement

T = TypeVar("T")
Say = Callable[[str], None]
WAIT_S = 900.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
MOST_REBOOTS = 3  # during one and the same work, then the work is to blame


def silent(_: str) -> None:
    """Show nothing."""


class PatientHost:
    """A Host whose outages are waited for, as a context manager.

    What was cut is done again from its start. An outage ends when what was cut is done, so a host that comes and goes
    is given up too: after `wait_s` seconds, with a DeviceError. What waiting cannot heal (no key accepted, an unknown
    host key, no Python, no runtime) is a DeviceError at once; so is a host that never answered and whose name is not
    known, and one that comes back with another runtime. `say` gets a line for the screen at every turn.
    """

    def __init__(
        self,
        host: Host,
        *,
        wait_s: float = WAIT_S,
        say: Say = silent,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._host, self._wait_s, self._say, self._clock, self._sleep = host, wait_s, say, clock, sleep
        self._known: dict[str, Any] | None = None  # the facts since when it first answered

    def __enter__(self) -> PatientHost:
        try:
            self._connect()
        except UnreachableError as fault:
            self._reconnect(fault, self._clock() + self._wait_s, _pauses())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._host.__exit__(kind, error, traceback)

    @property
    def host(self) -> Host:
        """The host, for what it knows of itself; what it does is done through `during`."""
        return self._host

    def measure(self, model: bytes, **options: Any) -> Measurement:
        """`Host.measure`, patiently. CandidateError also where the device rebooted each time."""
        return self.during(lambda host: host.measure(model, **options))

    def during(self, work: Callable[[Host], T]) -> T:
        """What `work` returns, begun again after each outage."""
        end_s, pauses, reboots = None, _pauses(), 0
        while True:
            try:
                return work(self._host)
            except UnreachableError as fault:
                end_s = self._clock() + self._wait_s if end_s is None else end_s
                reboots += self._reconnect(fault, end_s, pauses)
                if reboots >= MOST_REBOOTS:
                    raise CandidateError(f"the device rebooted {reboots} times while this was measured") from fault

    def _reconnect(self, fault: DeviceError, end_s: float, pauses: Iterator[float]) -> bool:
        """Try again until it answers; whether it rebooted meanwhile. DeviceError when `end_s` has passed."""
        began_s, boot = self._clock(), (self._known or {}).get("boot_id")
        while (left_s := end_s - self._clock()) > 0:
            pause_s = min(next(pauses), left_s)
            self._say(f"{fault}; trying again in {pause_s:.0f} s, giving up in {_shown(left_s)}")
            self._sleep(pause_s)
            try:
                self._connect()
            except (UnreachableError, NotStartedError) as again:
                if self._known is None and isinstance(again, NotStartedError):
                    raise
                fault = again
                continue
            rebooted = self._host.facts["boot_id"] != boot and boot is not None
            what = "has rebooted and is" if rebooted else "is"
            self._say(f"'{self._host.name}' {what} back after {_shown(self._clock() - began_s)}")
            return rebooted
        raise DeviceError(
            f"{fault}; gave up after {_shown(self._wait_s)} (--host-wait); give the same command again when it is back"
        ) from fault

    def _connect(self) -> None:
        """Open the host anew. DeviceError where it is not what it was."""
        self._host.__exit__(None, None, None)
        self._host.__enter__()
        before, now = self._known, _lasting(self._host)
        if before is not None and (changed := [key for key in now if key != "boot_id" and now[key] != before[key]]):
            self._host.__exit__(None, None, None)
            words = ", ".join(f"{key} {before[key]} before, {now[key]} now" for key in changed)
            raise DeviceError(f"'{self._host.name}' has changed: {words}; put it back, or begin anew")
        self._known = now


def _lasting(host: Host) -> dict[str, Any]:
    """What must not change while figures are compared, and the boot id."""
    facts = host.facts
    return {key: facts[key] for key in ("machine", "os_bits", "boot_id")} | {host.runtime: host.runtime_version}


def _pauses() -> Iterator[float]:
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _shown(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
