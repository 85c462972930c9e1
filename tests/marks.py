"""Which test files begin first, and which tests `make quick` leaves out: those marked
`service`, `training` or `slow` (pyproject.toml says what that is).

A test is marked by its file or by a fixture that it uses, here, or carries its mark itself. All others are quick: they
need no program beside Python, train nothing and end in a second or two, and their file in some five."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

# The files that take longest, which begin first: one that began last would run alone.
LONG = (
    "sweep/test_sweep.py",
    "system/test_edge.py",
    "docs/test_docs.py",
    "network/graph/test_channels.py",
    "search/workers/test_workers.py",
    "finetune/test_finetune.py",
    "system/test_end_to_end.py",
    "search/test_screening.py",
    "system/test_sparse_search.py",
    "latency/host/test_ssh.py",
)

FILES = {
    "service": {
        "latency/host/test_pythons.py",
        "latency/host/test_ssh.py",
        "search/storage/test_dashboard.py",
        "system/test_edge.py",
    },
    "training": {
        "finetune/test_augment.py",
        "finetune/test_finetune.py",
        "network/keras/test_keras.py",
        "network/tflite/test_conversion.py",
        "network/tflite/test_convert.py",
        "system/test_end_to_end.py",
    },
    "slow": {
        "cli/test_cli.py",
        "cli/test_measure.py",
        "cli/test_screen.py",
        "cli/test_studies.py",
        "compression/test_channel_pruning.py",
        "compression/test_download.py",
        "compression/test_sparse.py",
        "devices/test_calibrate.py",
        "devices/test_probe.py",
        "evaluate/test_early_stopping.py",
        "export/test_export.py",
        "latency/compiler/test_vela.py",
        "latency/host/test_agent.py",
        "latency/host/test_client.py",
        "latency/host/test_op_profile.py",
        "network/graph/test_channels.py",
        "network/graph/test_intake.py",
        "network/tflite/test_appended.py",
        "network/tflite/test_batching.py",
        "network/tflite/test_isolated.py",
        "network/tflite/test_outputs.py",
        "report/test_leaderboard.py",
        "search/sampler/test_ehvi.py",
        "search/sampler/test_guided.py",
        "search/storage/test_study_faults.py",
        "search/storage/test_trial_reader.py",
        "search/test_screening.py",
        "search/test_search.py",
        "search/workers/test_workers.py",
        "sweep/test_sweep.py",
        "system/test_degenerate.py",
        "system/test_interrupts.py",
        "system/test_no_latency.py",
        "system/test_sparse_search.py",
    },
}
FIXTURES = {"service": {"board", "browser", "gcc", "nightly", "raspberry", "without_avx"}, "slow": {"studied"}}


def file_of(path: Path) -> str:
    """The name of a test file in the tables: its path below this folder."""
    return Path(os.path.relpath(path, Path(__file__).parent)).as_posix()


def marks_of(file: str, fixtures: Iterable[str]) -> list[str]:
    """The marks of a test in `file` that uses these fixtures."""
    names = set(fixtures)
    found = {mark for mark, files in FILES.items() if file in files}
    return sorted(found | {mark for mark, of_mark in FIXTURES.items() if names & of_mark})


def is_left_out(file: str, expression: str) -> bool:
    """Whether `-m EXPRESSION` leaves out all of `file`, so that it need not even be imported."""
    if " or " in expression or "(" in expression:
        return False
    return any(f"not {mark}" in expression.split(" and ") for mark in marks_of(file, ()))
