"""The study in Optuna's storage, the only database: opening, resuming, and reading it back as plain records.

User attributes of a study: `schema` (of all that follows), `identity` (digests of what it was made with),
`specification` (what it is: see stored_specification.py), `baseline`, `output` (what of the network is judged; none:
its first output), `metric_scale` (none: 1), `int8_download_bytes`, `notes`, `versions`, `importance`, `runs` (each
start of a search: command, user, host, time), `test:SHA256` (metric on the test split and its interval),
`measured:PATTERN` (the careful latency of front members, by their kernel pattern), `pattern:PATTERN` (latencies as they
are measured) and `search` (what the present search goes on to, see workers/goal.py). Those of a trial are in
stored_trial.py."""

from __future__ import annotations

import getpass
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.errors import AutocompressError, CandidateError, unknown_name
from autocompress.records.constraint import parse_constraint, resolved
from autocompress.records.kernels import Kernels
from autocompress.records.measurement import Measurement
from autocompress.records.output import JudgedOutput
from autocompress.records.study import Evaluation, Importance, SearchRun, StudyRecord, TrialRecord
from autocompress.search.storage.patient import open_storage, retry, running
from autocompress.search.storage.stored_trial import REASON, STATES, stored_trial, union_s

SCHEMA = 2  # raise it when what is stored of a study cannot be read as before
READABLE = (1, 2)  # 1 held the words of a command where 2 has a specification


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a study was made with. Resuming with anything else is refused; `seed` and `sampler` may differ."""

    task: str
    network_sha256: str
    data_sha256: str
    metric: str
    higher_is_better: bool
    device: str
    device_sha256: str
    latency_source: str
    latency_model_sha256: str | None
    space: str
    choices_sha256: str
    objectives: tuple[str, ...]
    size: str
    constraints: tuple[str, ...]
    sampler: str
    seed: int
    output: str | None = None  # what is judged, where the network has several outputs; older studies: the first

    def differences(self, other: Identity) -> list[str]:
        """What is not the same in `other`, in words."""
        shown = {
            "network_sha256": "network",
            "data_sha256": "data",
            "device_sha256": "device",
            "latency_model_sha256": "latency model",
            "choices_sha256": "space",
        }
        found: dict[str, str] = {}
        before, now = (asdict(each) | {"output": each.output or "the first"} for each in (self, other))
        for key, mine in before.items():
            theirs = now[key]
            if key not in ("seed", "sampler") and mine != theirs:
                found.setdefault(
                    shown.get(key, key), f"{shown.get(key, key)}: {_short(mine)} then, {_short(theirs)} now"
                )
        return list(found.values())


def _short(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return f"{text[:12]}..." if re.fullmatch(r"[0-9a-f]{64}", text) else text or "none"


class UnknownStudyError(AutocompressError):
    """There is no study of that name; one may be made yet."""


def study_folder(runs: Path, name: str) -> Path:
    """Where a study's files lie; AutocompressError for a name that is no plain file name."""
    if not re.fullmatch(r"[\w.+=@-]+", name) or name.startswith("."):
        raise AutocompressError(f"study name '{name}' is no plain name; use letters, digits and . _ + = @ - only")
    return runs / name


def storage_url(runs: Path, name: str, storage: str | None) -> str:
    """The storage's URL: SQLite in the study's folder unless one is given."""
    return storage or f"sqlite:///{study_folder(runs, name).resolve()}/study.db"


def is_failed(study: optuna.Study, number: int | None) -> bool:
    """Whether the trial of this number has failed."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return any(trial.number == number for trial in failed)


def recover(
    study: optuna.Study, values_of: Callable[[Evaluation], tuple[float, ...]], is_dead: Callable[[str], bool]
) -> None:
    """Settle every trial whose worker died: told from its stored evaluation, else failed and queued again. Only who
    holds the study's trial lock may do this: a trial that nobody has taken as his yet is nobody's then."""
    for trial in running(study):
        stored = stored_trial(trial)
        if stored.worker is not None and not is_dead(stored.worker):
            continue
        if (evaluation := stored.evaluation) is not None:
            _tell(study, trial, values_of, evaluation)
        else:
            study.tell(trial.number, state=TrialState.FAIL)
            retry(study, trial)


def _tell(
    study: optuna.Study, trial: FrozenTrial, values_of: Callable[[Evaluation], tuple[float, ...]], found: Evaluation
) -> None:
    try:
        values = values_of(found)
    except CandidateError as fault:  # its worker was about to say so
        optuna.Trial(study, trial._trial_id).set_user_attr(REASON, str(fault))
        study.tell(trial.number, state=TrialState.FAIL)
    else:
        study.tell(trial.number, values)


def load_study(runs: Path, name: str, storage: str | None) -> optuna.Study:
    """A study that exists; UnknownStudyError with the nearest name where it does not."""
    url = storage_url(runs, name, storage)
    if storage is None and not (study_folder(runs, name) / "study.db").is_file():
        known = sorted(path.parent.name for path in runs.glob("*/study.db")) if runs.is_dir() else []
        if not known:
            raise UnknownStudyError(
                f"no study '{name}' in {runs}; it holds none yet, start one with: autocompress search"
            )
        raise UnknownStudyError(str(unknown_name("study", name, known)))
    opened = open_storage(url)
    names = [study.study_name for study in opened.get_all_studies()]
    if name not in names:
        opened.engine.dispose()
        said = str(unknown_name("study", name, names)) if names else f"the storage holds no study: {url}"
        raise UnknownStudyError(said)
    return optuna.load_study(study_name=name, storage=opened)


def read_record(study: optuna.Study, trials: Sequence[TrialRecord] | None = None) -> StudyRecord:
    """The whole study as plain data; `trials` where they are at hand already. Front members carry their careful
    latency. AutocompressError for a study whose baseline was never evaluated or that another program made."""
    check_schema(study.study_name, study.user_attrs)
    stored = [stored_trial(trial) for trial in study.get_trials(deepcopy=False, states=tuple(STATES))]
    rows = [trial.record() for trial in stored] if trials is None else trials
    return record_of(study.study_name, study.user_attrs, rows, union_s(stored))


def record_of(name: str, attrs: Mapping[str, Any], trials: Sequence[TrialRecord], wall_s: float) -> StudyRecord:
    """The record of a study with these user attributes and trials; AutocompressError as `read_record`."""
    check_schema(name, attrs)
    if "identity" not in attrs or "baseline" not in attrs:
        raise AutocompressError(f"study '{name}' has no baseline yet; run the search again, it goes on")
    identity = _identity(attrs["identity"])
    baseline = Evaluation.from_dict(attrs["baseline"])
    tests = {key.removeprefix("test:"): value for key, value in attrs.items() if key.startswith("test:")}
    return StudyRecord(
        name=name,
        task=identity.task,
        device=identity.device,
        latency_source=identity.latency_source,
        latency_error=baseline.measurement.latency_error,
        metric_name=identity.metric,
        higher_is_better=identity.higher_is_better,
        space=identity.space,
        sampler=identity.sampler,
        seed=identity.seed,
        objectives=identity.objectives,
        size=identity.size,
        constraints=resolved(map(parse_constraint, identity.constraints), baseline),
        baseline=baseline,
        int8_download_bytes=attrs.get("int8_download_bytes"),
        trials=tuple(_with_careful_latency(row, attrs) for row in trials),
        test_accuracy={sha256: tested[0] for sha256, tested in tests.items()},
        test_ci={sha256: (tested[1], tested[2]) for sha256, tested in tests.items()},
        wall_s=wall_s,
        versions=attrs.get("versions", {}),
        notes=tuple(attrs.get("notes", ())),
        importance=tuple(_importance(row) for row in attrs.get("importance", ())),
        hashes={
            key.removesuffix("_sha256"): value
            for key, value in asdict(identity).items()
            if key.endswith("_sha256") and value is not None
        },
        alternatives=tuple(_importance(row) for row in attrs.get("alternatives", ())),
        layer_names=attrs.get("layer_names", {}),
        runs=tuple(SearchRun(**row | {"command": tuple(row["command"])}) for row in attrs.get("runs", ())),
        whole_channels=attrs.get("whole_channels", {}),
        left_out=attrs.get("left_out"),
        kernels=_kernels(attrs["kernels"]) if "kernels" in attrs else None,
        not_delegated=_kernels(attrs.get("not_delegated", {})),
        output=None if attrs.get("output") is None else JudgedOutput.from_dict(attrs["output"]),
        metric_scale=attrs.get("metric_scale", 1.0),
    )


def _kernels(table: Mapping[str, Any]) -> Kernels:
    return {op: tuple((int(bits), str(kind)) for bits, kind in pairs) for op, pairs in table.items()}


def _importance(row: Mapping[str, Any]) -> Importance:
    """A stored row; what is called sensitivity now was called damage in schema 1."""
    return Importance(**{key.replace("damage", "sensitivity"): value for key, value in row.items()})


def check_schema(name: str, attrs: Mapping[str, Any]) -> None:
    """AutocompressError for a study that this version cannot read. The first ones say nothing: theirs is 1."""
    found = attrs.get("schema", 1)
    if found not in READABLE:
        wrote = attrs.get("versions", {}).get("autocompress")
        raise AutocompressError(
            f"study '{name}' has schema {found}, this version reads {SCHEMA} and older; read it with the version of "
            f"autocompress that wrote it{f' ({wrote})' if wrote else ''}, or search again under a new name"
        )


def without_password(text: str) -> str:
    """The text with the password of a URL in it left out."""
    return re.sub(r"(://[^/:@\s]*):[^@\s]*@", r"\1:***@", text)


def note_run(study: optuna.Study, command: Sequence[str]) -> None:
    """Add this start of a search to the study: who, where, when, and the command without a storage's password."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = None
    run = SearchRun(
        command=tuple(map(without_password, command)), user=user, host=socket.gethostname(), started_s=time.time()
    )
    study.set_user_attr("runs", [*study.user_attrs.get("runs", ()), asdict(run)])


def careful_key(evaluation: Evaluation) -> str:
    """Where the study keeps the careful latency of a front member: by what decides it, else by the file."""
    return f"measured:{evaluation.measurement.kernel_pattern or evaluation.sha256}"


def measurements_of(study: optuna.Study, evaluations: Iterable[Evaluation]) -> Iterator[Measurement]:
    """All latencies that a study has measured, the careful ones too."""
    for evaluation in evaluations:
        yield evaluation.measurement
    for key, value in study.user_attrs.items():
        if key.startswith(("measured:", "pattern:")):
            yield Measurement.from_dict(value)


def store_pattern(study: optuna.Study, measurement: Measurement) -> None:
    """Tell all workers of a study what a kernel pattern takes."""
    key = f"pattern:{measurement.kernel_pattern}"
    study.set_user_attr(key, measurement.thinned().to_dict())


def _with_careful_latency(row: TrialRecord, attrs: Mapping[str, Any]) -> TrialRecord:
    if row.evaluation is None or (careful := attrs.get(careful_key(row.evaluation))) is None:
        return row
    measurement, energy_mj = Measurement.from_dict(careful), row.evaluation.energy_mj
    if energy_mj is not None:  # latency times the busy power
        energy_mj *= measurement.known_latency_ms / row.evaluation.measurement.known_latency_ms
    return replace(row, evaluation=replace(row.evaluation, measurement=measurement, energy_mj=energy_mj))


def identity_of(study: optuna.Study) -> Identity | None:
    """What the study was made with; None for one that is new."""
    check_schema(study.study_name, study.user_attrs)
    stored = study.user_attrs.get("identity")
    return None if stored is None else _identity(stored)


def _identity(stored: Mapping[str, Any]) -> Identity:
    lists = ("objectives", "constraints")
    known = {field.name for field in fields(Identity)}
    if odd_names := known - {"output"} ^ set(stored) - {"output"}:
        odd = ", ".join(sorted(odd_names))
        raise AutocompressError(
            f"the study was made by another version of autocompress ({odd}); read it with that version, or search "
            "again under a new name"
        )
    values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in stored.items()}
    return Identity(**values)


def digest_of(value: Any) -> str:
    """SHA-256 of a value's JSON, keys sorted."""
    import hashlib

    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
