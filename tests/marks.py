"""Which tests `make quick` leaves out: those marked `service`, `training` or `slow` (pyproject.toml says what that is).

A test is marked by its file or by a fixture that it uses, here, or carries its mark itself. All others are quick: they
need no program beside Python, train nothing and end in a second or two, and their file in some five."""

from __future__ import annotations

from collections.abc import Iterable

FILES = {
    "service": {"dashboard", "edge", "pythons", "ssh"},
    "training": {"augment", "convert", "end_to_end", "finetune", "keras"},
    "slow": {
        "agent", "calibration", "channels", "cli", "download", "early", "export", "guided", "host", "improvement",
        "intake", "interrupts", "leaderboard", "measure", "narrow", "probe", "profile", "screening", "search", "sparse",
        "sparse_search", "stored_trials", "study_faults", "sweep", "workers",
    },
}  # fmt: skip
FIXTURES = {"service": {"board", "browser", "gcc", "nightly", "raspberry", "without_avx"}, "slow": {"studied"}}


def marks_of(file: str, fixtures: Iterable[str]) -> list[str]:
    """The marks of a test in `test_FILE.py` that uses these fixtures."""
    names = set(fixtures)
    found = {mark for mark, files in FILES.items() if file.removeprefix("test_") in files}
    return sorted(found | {mark for mark, of_mark in FIXTURES.items() if names & of_mark})


def is_left_out(file: str, expression: str) -> bool:
    """Whether `-m EXPRESSION` leaves out all of `test_FILE.py`, so that it need not even be imported."""
    if " or " in expression or "(" in expression:
        return False
    return any(f"not {mark}" in expression.split(" and ") for mark in marks_of(file, ()))
