"""Optuna's relational storage, patient: what a lock or a server that is away cuts is done again."""

from __future__ import annotations

import contextlib
import functools
import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Container, Iterator
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import StudyModel, TrialModel
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)

from autocompress import interrupts
from autocompress.errors import AutocompressError
from autocompress.search.storage.stored_trial import RETRY_OF, stored_trial
from autocompress.search.storage.trial_reader import TrialReader, of_study

WAIT_S = 900.0  # for a storage that is away, then the search ends
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
# A worker on this machine is known to be dead by its lock; heartbeats are for those on others. A heartbeat that waits
# for a busy database or processor must not make a live worker's trial be run twice.
_HEARTBEAT_S, _GRACE_S = 5, 60
_SQLITE_WAIT_S = 30.0  # for a lock, before the database says that it is locked
_MOST_OPENINGS = 20  # each finds more of the tables that others are making
_log = logging.getLogger(__name__)


class StorageAwayError(AutocompressError):
    """The storage was away for too long."""


def _patiently(method: Callable[..., Any]) -> Any:
    """The method, done again while the storage is locked or away. What was written just before a connection broke may
    be written already: a trial that is finished as wanted is finished."""

    @functools.wraps(method)
    def patiently(storage: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        end_s, pause_s = None, _FIRST_PAUSE_S
        while True:
            try:
                with interrupts.held():  # Ctrl-C in the middle would leave SQLAlchemy's locks held
                    return method(storage, *args, **kwargs)
            except (StorageInternalError, SQLAlchemyError) as fault:
                reason = _passing(fault)
                if reason is None:
                    raise
                now_s = time.monotonic()
                end_s = now_s + WAIT_S if end_s is None else end_s
                if now_s + pause_s > end_s:
                    raise StorageAwayError(
                        f"the storage is away ({reason}), gave up after {WAIT_S / 60:.0f} min; the same command goes "
                        "on later"
                    ) from fault
                _log.warning("the storage does not answer (%s); trying again in %.1f s", reason, pause_s)
                with contextlib.suppress(SQLAlchemyError):  # what is left of the broken connection
                    storage.scoped_session.remove()
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except UpdateFinishedTrialError:
                if end_s is None or method.__name__ != "set_trial_state_values":
                    raise
                return True  # finished by the try whose answer was lost

    return patiently


def _passing(fault: BaseException) -> str | None:
    """The database's words for a fault that may pass: a lock, a connection that broke or cannot be made; None for one
    that will not."""
    for each in _causes(fault):
        broken = isinstance(each, DBAPIError) and each.connection_invalidated
        if broken or isinstance(each, (OperationalError, InterfaceError, PendingRollbackError)):
            return " ".join(str(getattr(each, "orig", each)).split())[:120]
    return None


def _made_meanwhile(fault: BaseException) -> bool:
    """Whether the database says that what should be made is there already."""
    return any(
        isinstance(each, IntegrityError) or (isinstance(each, DBAPIError) and "already exists" in str(each.orig))
        for each in _causes(fault)
    )


def _causes(fault: BaseException | None) -> Iterator[BaseException]:
    """The fault, what it came from, and so on."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__


class PatientStorage(RDBStorage):
    """RDBStorage whose every operation is patient, and that reads thousands of trials in a second."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._open_beside_others(*args, **kwargs)
        self._reader = TrialReader()

    def _open_beside_others(self, *args: Any, **kwargs: Any) -> None:
        """Optuna looks which tables are missing and then makes them: where others open a new database in the same
        moment, whoever comes second fails, but finds them when it looks again."""
        for opening in range(1, _MOST_OPENINGS + 1):
            try:
                super().__init__(*args, **kwargs)
                return
            except (StorageInternalError, SQLAlchemyError) as fault:
                if opening == _MOST_OPENINGS or not _made_meanwhile(fault):
                    raise
                time.sleep(_FIRST_PAUSE_S)

    @_patiently
    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's."""
        with _create_scoped_session(self.scoped_session) as session:
            found = self._reader.read(session, TrialModel.trial_id == trial_id)
        if not found:
            raise KeyError(f"there is no trial of id {trial_id}")
        return found[0]

    @_patiently
    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        with _create_scoped_session(self.scoped_session) as session:
            StudyModel.find_or_raise_by_id(study_id, session)
            condition = of_study(session, study_id, states, included_trial_ids, trial_id_greater_than)
            return [] if condition is None else self._reader.read(session, condition)

    get_all_studies = _patiently(RDBStorage.get_all_studies)
    get_study_id_from_name = _patiently(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _patiently(RDBStorage.get_study_name_from_id)
    get_study_directions = _patiently(RDBStorage.get_study_directions)
    get_study_user_attrs = _patiently(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _patiently(RDBStorage.get_study_system_attrs)
    set_study_user_attr = _patiently(RDBStorage.set_study_user_attr)
    set_study_system_attr = _patiently(RDBStorage.set_study_system_attr)
    _create_new_trial = _patiently(RDBStorage._create_new_trial)
    _set_trial_param = _patiently(RDBStorage._set_trial_param)
    set_trial_state_values = _patiently(RDBStorage.set_trial_state_values)
    set_trial_user_attr = _patiently(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _patiently(RDBStorage.set_trial_system_attr)
    get_trial_id_from_study_id_trial_number = _patiently(RDBStorage.get_trial_id_from_study_id_trial_number)
    record_heartbeat = _patiently(RDBStorage.record_heartbeat)
    _get_stale_trial_ids = _patiently(RDBStorage._get_stale_trial_ids)


def open_storage(url: str, on_stale: Callable[[optuna.Study, FrozenTrial], None] | None = None) -> PatientStorage:
    """Optuna's storage at `url`; AutocompressError where it cannot be opened."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sqlite = url.startswith("sqlite")
    engine: dict[str, Any] = {"connect_args": {"timeout": _SQLITE_WAIT_S}} if sqlite else {"pool_pre_ping": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # heartbeats are marked experimental
        try:
            storage = PatientStorage(
                _with_driver(url),
                engine_kwargs=engine,
                heartbeat_interval=_HEARTBEAT_S,
                grace_period=_GRACE_S,
                heartbeat_stale_trial_callback=on_stale,
            )
        except ImportError as fault:
            extra = "pip install 'autocompress[postgresql]'" if "postgres" in url else "install the database's driver"
            raise AutocompressError(f"the storage '{url}' needs a package that is missing; {extra}") from fault
        except Exception as fault:  # every database driver has errors of its own
            reason = " ".join(str(fault).split())[:200]
            raise AutocompressError(f"the storage '{url}' cannot be opened: {reason}") from fault
    if sqlite:
        sqlalchemy.event.listen(storage.engine, "connect", _log_ahead)
        storage.engine.dispose()  # the connections that made the tables
    return storage


def _with_driver(url: str) -> str:
    """A PostgreSQL URL that names no driver gets the one of our extra: SQLAlchemy's default differs by version."""
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in ("postgresql", "postgres") else url


def _log_ahead(connection: Any, _: Any) -> None:
    # A trial is some twenty small commits. With a write-ahead log they need not wait for the disk one by one; a killed
    # process still loses nothing that was committed.
    end_s = time.monotonic() + _SQLITE_WAIT_S
    while not _switched(connection, patient=time.monotonic() < end_s):
        time.sleep(0.02)
    connection.execute("PRAGMA synchronous=NORMAL")


def _switched(connection: Any, patient: bool) -> bool:
    """Whether the file has a write-ahead log now. Switching takes the whole file, and SQLite does not wait for others;
    its error where that is not to be waited for."""
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as fault:
        if not patient or "locked" not in str(fault):
            raise
        return False
    return True


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial that died again: its parameters only (a copied constraint or evaluation would stand in the way);
    of one that died before it had any, those that it was queued with."""
    if parameters := stored_trial(trial).parameters:
        study.enqueue_trial(parameters, user_attrs={RETRY_OF: trial.number})


def running(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that run."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
