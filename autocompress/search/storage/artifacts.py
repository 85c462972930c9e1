"""Files of candidates that are no longer what was measured: they are named and left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autocompress.files import unchanged
from autocompress.records.front import front_of
from autocompress.records.study import Evaluation, StudyRecord


def is_altered(runs: Path, evaluation: Evaluation) -> bool:
    """Whether a candidate's file in the runs folder is another one by now. A file that is not here (the storage may be
    that of other machines) speaks against nothing."""
    path = runs / evaluation.artifact
    return path.is_file() and unchanged(path, evaluation.sha256) is None


def altered_line(runs: Path, evaluation: Evaluation) -> str:
    """What is said of such a file."""
    return f"its file has changed since it was measured: {runs / evaluation.artifact}"


def without_altered(record: StudyRecord, runs: Path) -> tuple[StudyRecord, tuple[str, ...]]:
    """The study without the trials whose files were altered, and a line about each, which are among its notes too.

    Only files on the front are read, and those that come forward where one is left out."""
    said: list[str] = []
    while True:
        front = [(trial.number, trial.evaluation) for trial in front_of(record).trials if trial.evaluation is not None]
        altered = {number: evaluation for number, evaluation in front if is_altered(runs, evaluation)}
        if not altered:
            return replace(record, notes=(*record.notes, *said)) if said else record, tuple(said)
        said += [f"trial {number} is left out: {altered_line(runs, each)}" for number, each in altered.items()]
        record = replace(record, trials=tuple(trial for trial in record.trials if trial.number not in altered))
