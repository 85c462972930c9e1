"""All studies of a runs folder or a storage, read quickly and without writing.

Opening a study in Optuna's storage checks its tables and may change them, and a leaderboard needs no parameters. What a
study tells is in two of its tables, which are read directly; a test holds this against the reading of one study."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import URL, Connection
from sqlalchemy.exc import SQLAlchemyError

from autocompress.errors import AutocompressError
from autocompress.records.study import StudyRecord, TrialRecord
from autocompress.search.storage import study_records
from autocompress.search.storage.stored_trial import EVALUATION, StoredTrial, union_s

_SAMPLES = '"samples_ms": [['  # the key of what is left out; in a text its quotes would be escaped
_STUDIES = "SELECT study_id, study_name FROM studies ORDER BY study_name"
_STUDY_ATTRIBUTES = "SELECT key, value_json FROM study_user_attributes WHERE study_id = :study"
_TRIALS = "SELECT trial_id, number, state, datetime_complete FROM trials WHERE study_id = :study ORDER BY number"
_TRIAL_ATTRIBUTES = (
    "SELECT a.trial_id, a.key, a.value_json FROM trial_user_attributes a JOIN trials t ON t.trial_id = a.trial_id "
    "WHERE t.study_id = :study AND a.key IN ('evaluation', 'reason', 'cached', 'seen', 'wall_s')"
)
_EVALUATIONS = (
    "SELECT a.value_json FROM trial_user_attributes a JOIN trials t ON t.trial_id = a.trial_id "
    "WHERE t.study_id = :study AND a.key = 'evaluation' UNION ALL "
    "SELECT value_json FROM study_user_attributes WHERE study_id = :study AND key = 'baseline'"
)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A study, or the place of one, that could not be read, and why."""

    study: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """The name of a study and its evaluations, the baseline's too, as they are stored: JSON."""

    name: str
    evaluations: tuple[str, ...]


def stored_studies(runs: Path, storage: str | None) -> Iterator[StoredStudy | Unreadable]:
    """Every study of the runs folder, or of the storage where one is given, of whatever version, and the places that
    cannot be read."""
    for place, url in _places(runs, storage):
        yield from _read(place, url, _evaluations)


def read_all(runs: Path, storage: str | None) -> tuple[tuple[StudyRecord, ...], tuple[Unreadable, ...]]:
    """Every study of the runs folder, or of the storage where one is given, and those that cannot be read. Latency
    samples are left out. AutocompressError where there is no study at all."""
    found: list[StudyRecord] = []
    faults: list[Unreadable] = []
    for place, url in _places(runs, storage):
        for item in _read(place, url, _study):
            (faults if isinstance(item, Unreadable) else found).append(item)  # type: ignore[arg-type]
    if storage is not None and not found:
        raise AutocompressError(f"no study can be read in {faults[0].study}: {faults[0].reason}; check --storage")
    if not found and not faults:
        raise AutocompressError(f"there is no study in {runs}; start one with: autocompress search")
    return tuple(found), tuple(faults)


def _places(runs: Path, storage: str | None) -> list[tuple[str, str | URL]]:
    if storage is not None:
        return [(study_records.without_password(storage), storage)]
    found = sorted(runs.glob("*/study.db"))
    return [(path.parent.name, URL.create("sqlite", database=str(path.resolve()))) for path in found]


def _read(place: str, url: str | URL, read: Callable[[Connection, int, str], T]) -> Iterator[T | Unreadable]:
    try:
        engine = sqlalchemy.create_engine(url)
        if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
            yield Unreadable(study=place, reason="there is no such file")  # SQLite would make one
            return
        with engine.connect() as connection:
            studies = connection.execute(sqlalchemy.text(_STUDIES)).all()
            if not studies:
                yield Unreadable(study=place, reason="its storage holds no study")
            for study_id, name in studies:
                yield read(connection, study_id, name)
        engine.dispose()
    except (SQLAlchemyError, ImportError) as fault:  # no database, another program's, or no driver for it
        reason = " ".join(str(getattr(fault, "orig", None) or fault).split())[:200]
        yield Unreadable(study=place, reason=f"its storage cannot be read: {study_records.without_password(reason)}")


def _evaluations(connection: Connection, study_id: int, name: str) -> StoredStudy:
    key = {"study": study_id}
    rows = connection.execute(sqlalchemy.text(_EVALUATIONS), key).all()
    return StoredStudy(name=name, evaluations=tuple(text for (text,) in rows))


def _study(connection: Connection, study_id: int, name: str) -> StudyRecord | Unreadable:
    key = {"study": study_id}
    attributes = {k: json.loads(text) for k, text in connection.execute(sqlalchemy.text(_STUDY_ATTRIBUTES), key)}
    try:
        study_records.check_schema(name, attributes)
        trials, wall_s = _trials(connection, key)
        return study_records.record_of(name, attributes, trials, wall_s)
    except AutocompressError as fault:
        return Unreadable(study=name, reason=str(fault))
    except (KeyError, TypeError, ValueError) as fault:
        return Unreadable(study=name, reason=f"it is not as autocompress writes it: {type(fault).__name__}: {fault}")


def _trials(connection: Connection, key: Mapping[str, int]) -> tuple[list[TrialRecord], float]:
    """The trials by number, and the seconds that they took."""
    attributes: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, name, text in connection.execute(sqlalchemy.text(_TRIAL_ATTRIBUTES), key).all():
        attributes[trial_id][name] = json.loads(_without_samples(text) if name == EVALUATION else text)
    trials = [
        StoredTrial(
            number=number,
            optuna_state=TrialState[state],
            finished_s=None if finished is None else _seconds(finished),
            attributes=attributes[trial_id],
            drawn={},
        )
        for trial_id, number, state, finished in connection.execute(sqlalchemy.text(_TRIALS), key)
        if state != TrialState.WAITING.name
    ]
    return [trial.record() for trial in trials], union_s(trials)


def _seconds(stored: str | datetime) -> float:
    """A stored time, which Optuna keeps in UTC; SQLite as text."""
    time = datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    return time.replace(tzinfo=timezone.utc).timestamp()


def _without_samples(text: str) -> str:
    start = text.find(_SAMPLES)  # most of the text, and of the time to read it
    return text if start < 0 else f'{text[:start]}"samples_ms": []{text[text.index("]]", start) + 2 :]}'
