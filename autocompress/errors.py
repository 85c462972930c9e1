"""Faults that end in one clear line and an exit code; anything else is a bug and shows its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class AutocompressError(Exception):
    """The user's input cannot be used: says the rule, the value got and the next step. Exit code 2."""

    exit_code = 2

    @property
    def remedy(self) -> str | None:
        """The next step: what stands behind the first semicolon of the message; None where there is none."""
        return str(self).partition("; ")[2] or None


class UnmetError(AutocompressError):
    """The work finished, but something that was asked for was not met. Exit code 1."""

    exit_code = 1


class DeviceError(AutocompressError):
    """The device or its agent cannot be used or went away. Exit code 3."""

    exit_code = 3


class UnreachableError(DeviceError):
    """The device does not answer at present; waiting may help."""


class NotStartedError(DeviceError):
    """The device's command starts no agent, nobody knows why. Waiting may help if it did before."""


class CandidateError(Exception):
    """One candidate cannot be built or run. Its trial fails with this reason and the search goes on."""


def faulty_file(path: Path, faults: Sequence[str]) -> AutocompressError:
    """The error for a file with these faults, all of them in one line."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return AutocompressError(f"{path}: {count}: {'; '.join(faults)}")


def unknown_name(kind: str, got: str, allowed: Iterable[str]) -> AutocompressError:
    """The error for a name that is not in `allowed`, with the nearest name or, failing one, all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(got, names, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"choose one of: {', '.join(names)}"
    return AutocompressError(f"unknown {kind} '{got}'; {remedy}")
