"""What a study has found, as Python objects: trials with their values, and the front."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from autocompress.errors import AutocompressError
from autocompress.export.bundle import Bundle, ExportOptions, write_bundle
from autocompress.records.configuration import Configuration
from autocompress.records.constraint import parse_constraint
from autocompress.records.front import complete, evaluated, front_of
from autocompress.records.measurement import Measurement
from autocompress.records.study import Constraint, Evaluation, StudyRecord, TrialRecord
from autocompress.report.study_document import summary

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A latency and how it is known. `ms`; `interval_ms` (95 %) where it was measured, `error` (a share) where a model
    says it and how far off it is; `source`: measured, modelled, or none, which has no `ms`; `extrapolated`: beyond what
    the model was fitted to."""

    ms: float | None
    source: str
    interval_ms: Interval | None
    error: float | None
    extrapolated: bool

    @classmethod
    def of(cls, measurement: Measurement) -> Latency:
        """The latency of a measurement."""
        return cls(
            ms=measurement.latency_ms,
            source=measurement.latency_source,
            interval_ms=measurement.latency_ci_ms,
            error=measurement.latency_error,
            extrapolated=measurement.extrapolated,
        )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A complete trial: a candidate that was built, verified and measured. `accuracy` is the task's metric on
    validation data, whatever the metric is, `test_accuracy` on test data, None where it is not on the front of a
    finished search."""

    number: int
    accuracy: float
    accuracy_interval: Interval
    test_accuracy: float | None
    latency: Latency
    file_bytes: int
    download_bytes: int
    configuration: Configuration
    finetuned: bool
    file: Path
    sha256: str
    _study: StudyView

    def export(
        self,
        folder: str | Path,
        *,
        formats: Sequence[str] = (),
        licence: str | None = None,
        normalise: Interval | None = None,
    ) -> Bundle:
        """Write the candidate's bundle into `folder`: the `.tflite`, its `.gz`, the model card, `predict.py`,
        `verify.py`, and what `formats` adds ("c", "android"). `normalise`: mean and standard deviation of the inputs,
        for Android's metadata. AutocompressError where the file has changed or the folder cannot be written."""
        return self._study.export(self.number, folder, formats=formats, licence=licence, normalise=normalise)


class Front(Sequence[Trial]):
    """The Pareto front, best metric first, and the picks of it."""

    def __init__(self, study: StudyView) -> None:
        self._study = study
        self._found = front_of(study.record)
        self._trials = tuple(map(study.of, self._found.trials))

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | Sequence[Trial]:
        return self._trials[index]

    def __len__(self) -> int:
        return len(self._trials)

    def pick(self, which: str | int, constraints: Sequence[str] = ()) -> Trial:
        """knee, fastest, smallest or best, within `constraints` such as "flash<=60KB", or the trial of a number.
        AutocompressError where there is none."""
        return self._study.of(self._found.pick(which, bounds_of(constraints, compiled=self._study.record.tells_flash)))

    @property
    def knee(self) -> Trial:
        """The best trade between the objectives."""
        return self.pick("knee")

    @property
    def fastest(self) -> Trial:
        """The least latency."""
        return self.pick("fastest")

    @property
    def smallest(self) -> Trial:
        """The least size, as the study counts it."""
        return self.pick("smallest")

    @property
    def best(self) -> Trial:
        """The best metric."""
        return self.pick("best")

    def to_dataframe(self) -> Any:
        """The front as a pandas DataFrame, a row a trial. AutocompressError where pandas is missing."""
        try:
            import pandas
        except ModuleNotFoundError as fault:
            raise AutocompressError("a DataFrame needs pandas; install it with: pip install pandas") from fault
        return pandas.DataFrame([_row(trial) for trial in self]).set_index("trial")

    def _repr_html_(self) -> str:
        return _table([_row(trial) for trial in self])


class StudyView:
    """A study as it stands: its trials, its baseline and its front; from `autocompress.read_study`."""

    def __init__(self, record: StudyRecord, runs: Path, options: ExportOptions) -> None:
        self._record, self._runs, self._options = record, runs, options

    @property
    def record(self) -> StudyRecord:
        """The study as plain data."""
        return self._record

    @property
    def name(self) -> str:
        """The study's name."""
        return self.record.name

    @property
    def baseline(self) -> Trial:
        """The float network."""
        return self._trial(-1, self.record.baseline)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The complete trials, by number."""
        return tuple(self._trial(trial.number, evaluation) for trial, evaluation in complete(self.record))

    @property
    def front(self) -> Front:
        """The Pareto front."""
        return Front(self)

    def trial(self, number: int) -> Trial:
        """The complete trial of a number; AutocompressError where there is none."""
        return self.of(front_of(self.record).pick(number))

    def of(self, trial: TrialRecord) -> Trial:
        """A stored trial that has an evaluation, as an object of this interface."""
        return self._trial(trial.number, evaluated(trial))

    def export(
        self,
        which: str | int,
        folder: str | Path,
        *,
        constraints: Sequence[str] = (),
        formats: Sequence[str] = (),
        licence: str | None = None,
        normalise: Interval | None = None,
    ) -> Bundle:
        """Write the bundle of a pick (knee, fastest, smallest, best; within `constraints` such as "flash<=60KB") or of
        a trial; see `Trial.export`."""
        options = replace(self._options, formats=("tflite", *formats), licence=licence, normalisation=normalise)
        picked = front_of(self.record).pick(which, bounds_of(constraints, compiled=self.record.tells_flash))
        return write_bundle(self.record, picked, self._runs, Path(folder), options)

    def _trial(self, number: int, evaluation: Evaluation) -> Trial:
        return Trial(
            number=number,
            accuracy=evaluation.accuracy,
            accuracy_interval=evaluation.accuracy_ci,
            test_accuracy=self.record.test_accuracy.get(evaluation.sha256),
            latency=Latency.of(evaluation.measurement),
            file_bytes=evaluation.file_bytes,
            download_bytes=evaluation.download_bytes,
            configuration=evaluation.configuration,
            finetuned=evaluation.finetuned,
            file=self._runs / evaluation.artifact,
            sha256=evaluation.sha256,
            _study=self,
        )

    def _repr_html_(self) -> str:
        title = f"<p>study <b>{html.escape(self.name)}</b>: {len(self.front)} of {len(self.trials)} complete trials</p>"
        return title + self.front._repr_html_()


def bounds_of(texts: Sequence[str], *, compiled: bool) -> tuple[Constraint, ...]:
    """Constraints as they are written, for a device whose flash and RAM are known (`compiled`) or not;
    AutocompressError for one that is none."""
    return tuple(parse_constraint(text, compiled=compiled) for text in texts)


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "accuracy": trial.accuracy,
        "test_accuracy": trial.test_accuracy,
        "latency_ms": trial.latency.ms,
        "latency_source": trial.latency.source,
        "download_bytes": trial.download_bytes,
        "file_bytes": trial.file_bytes,
        "configuration": summary(trial.configuration),
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "<p>the front is empty</p>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(_cells(row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: dict[str, Any]) -> Iterator[str]:
    for value in row.values():
        text = "" if value is None else _number(value) if isinstance(value, float) else str(value)
        yield f"<td>{html.escape(text)}</td>"


def _number(value: float) -> str:
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.0005 else f"{value:.3g}"
