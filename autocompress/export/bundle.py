"""Writing one candidate out for deployment: a bundle that can be run and checked without us."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autocompress.compression.download import compressed
from autocompress.errors import AutocompressError, CandidateError, UnmetError, unknown_name
from autocompress.export import android
from autocompress.export.c_source import c_files, identifier, mixed_layers
from autocompress.export.stored_weights import stored_weights
from autocompress.files import unchanged, write_whole
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.micro import MicroRun, check_in_micro, is_installed
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord
from autocompress.report import study_document
from autocompress.report.card import Shipped, markdown, model_card
from autocompress.tasks.load import BUILT_IN

FORMATS = ("tflite", "c", "android")
_FOLDER = Path(__file__).parent / "programs"
_PROGRAMS = {"predict.py": ".tflite", "verify.py": ".json"}  # and what each works on
_OURS = '"""Made by autocompress export.'  # how the programs of a bundle begin


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is asked of a bundle beside its candidate. `formats` of FORMATS, `normalisation` (mean, standard deviation)
    goes into Android's metadata, `data_sha256` names the study's data, `words` are those of the search's command."""

    formats: tuple[str, ...] = ("tflite",)
    licence: str | None = None
    normalisation: tuple[float, float] | None = None
    data_sha256: str | None = None
    words: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A written bundle: the `.tflite`, its `.gz` and its JSON card, the other files, and what is to be said of it."""

    model: Path
    packed: Path
    card: Path
    others: tuple[Path, ...]
    notes: tuple[str, ...]


def write_bundle(record: StudyRecord, trial: TrialRecord, runs: Path, folder: Path, options: ExportOptions) -> Bundle:
    """Write a candidate into `folder`: the very `.tflite` that was measured, the `.tflite.gz` that `download_bytes`
    counts, the card as JSON and Markdown, `predict.py`, `verify.py` and what `options.formats` adds. Each file is
    written to a temporary name first. AutocompressError where the stored file is gone or changed, the folder cannot be
    written or holds a program of that name that is not ours."""
    check_options(options)
    model = _artifact(trial, runs)
    stem, notes = _stem(record, trial), list[str]()
    parts = {f"{stem}.tflite": model, f"{stem}.tflite.gz": compressed(model)}
    _note_other_size(trial, parts[f"{stem}.tflite.gz"], notes)
    extra = _c_parts(model, record, trial, stem, notes) if "c" in options.formats else {}
    extra |= _android_part(model, record, trial, stem, options, notes) if "android" in options.formats else {}
    shipped = Shipped(
        model=f"{stem}.tflite",
        files=parts | extra,
        layers=_layers(model, record.baseline, runs),
        words=_words(record, options.words),
        data_sha256=options.data_sha256,
        licence=options.licence,
    )
    card = model_card(record, trial, shipped)
    parts[f"{stem}.json"] = json.dumps(card, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    others = {**extra, f"{stem}.md": markdown(record, trial, card).encode(), **_programs(stem, record)}
    _write(folder, parts | others)
    first, packed, described = (folder / name for name in parts)
    return Bundle(
        model=first, packed=packed, card=described, others=tuple(folder / n for n in others), notes=tuple(notes)
    )


def check_options(options: ExportOptions) -> None:
    """AutocompressError for options that no bundle can meet."""
    for name in options.formats:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
    if options.normalisation is not None and "android" not in options.formats:
        raise AutocompressError("--normalise is written into Android's metadata only; add --format android")
    if options.normalisation is not None and not options.normalisation[1] > 0:
        raise AutocompressError(f"--normalise: the standard deviation {options.normalisation[1]:g} is not above 0")


def _artifact(trial: TrialRecord, runs: Path) -> bytes:
    assert trial.evaluation is not None
    source = runs / trial.evaluation.artifact
    if not source.is_file():
        raise AutocompressError(f"the candidate's file is missing: {source}; run the search again under a new name")
    model = unchanged(source, trial.evaluation.sha256)
    if model is None:
        raise UnmetError(f"the candidate's file has changed since it was measured: {source}; do not ship it")
    return model


def _note_other_size(trial: TrialRecord, packed: bytes, notes: list[str]) -> None:
    assert trial.evaluation is not None
    counted = trial.evaluation.download_bytes
    if len(packed) != counted:
        notes.append(
            f"the .tflite.gz has {len(packed)} bytes, the study counted {counted} with another version of autocompress"
        )


def _stem(record: StudyRecord, trial: TrialRecord) -> str:
    # A study in a foreign storage may have any name.
    plain = "".join(c if c.isalnum() or c in "._-+=@" else "_" for c in record.name).lstrip(".")
    return f"{plain}-{trial.number}"


def _layers(model: bytes, baseline: Evaluation, runs: Path) -> list[dict[str, Any]]:
    """What each layer holds, with its name in the original network where that is still at hand."""
    source, names = runs / baseline.artifact, dict[str, str]()
    if source.is_file():
        original = read_graph(flatbuffer.normalise(source.read_bytes()))
        names = {layer.name: layer.tensor_name for layer in layers_of(original)}
    return [weight.to_dict() | {"tensor_name": names.get(weight.name)} for weight in stored_weights(model)]


def _words(record: StudyRecord, words: Mapping[str, str | None]) -> dict[str, str | None]:
    """How a command names the study's task, device and space: as its search did, else by what the study knows."""
    named: dict[str, str | None] = {"device": record.device, "space": record.space, **words}
    if named.get("task") or named.get("model"):
        return named
    if record.task in BUILT_IN:
        return named | {"task": record.task}
    return named | {"model": "NETWORK", "data": "DATA.npz", "metric": record.metric_name}


def _c_parts(model: bytes, record: StudyRecord, trial: TrialRecord, stem: str, notes: list[str]) -> dict[str, bytes]:
    name, checked = identifier(stem), _checked_in_micro(model, notes)
    sha256 = hashlib.sha256(model).hexdigest()
    about = f"Trial {trial.number} of study {record.name}, sha256 of the .tflite {sha256}"
    source, header = c_files(model, name, about, checked)
    return {f"{name}.c": source.encode(), f"{name}.h": header.encode()}


def _checked_in_micro(model: bytes, notes: list[str]) -> MicroRun | None:
    """What TensorFlow Lite Micro made of the file; AutocompressError for one that it does not run as LiteRT does. None,
    and a note, where it is not installed."""
    if is_installed():
        try:
            return check_in_micro(model)
        except CandidateError as fault:
            raise AutocompressError(
                f"no C source for a microcontroller: {fault}; pick a trial with int8, int16 or only float layers"
            ) from fault
    said = "not run in TensorFlow Lite Micro, which is not installed (pip install 'autocompress[mcu]')"
    if mixed := mixed_layers(model):
        said += (
            f"; {mixed} layers have integer weights and float inputs, which it refuses or computes with wrong scales: "
            "pick a trial whose activations are int8"
        )
    notes.append(said)
    return None


def _android_part(
    model: bytes, record: StudyRecord, trial: TrialRecord, stem: str, options: ExportOptions, notes: list[str]
) -> dict[str, bytes]:
    """The network with metadata as a file of its own: the measured one stays what was measured."""
    name = f"{stem}-android.tflite"
    if android.has_metadata(model):
        notes.append(f"{name}: the network carried metadata already, they are kept as they are")
        return {name: model}
    assert trial.evaluation is not None
    words = study_document.summary(trial.evaluation.configuration)
    about = android.About(
        name=stem,
        description=f"{record.task}, compressed by autocompress: {words}",
        version=trial.evaluation.sha256[:12],
        licence=options.licence,
        normalisation=options.normalisation,
    )
    described = android.with_metadata(model, about)
    same = [a.to_dict() for a in stored_weights(model)] == [b.to_dict() for b in stored_weights(described)]
    assert same, "metadata changed the weights"
    if options.normalisation is None:
        notes.append(f"{name}: the metadata hold no input normalisation; add --normalise MEAN STD if the app needs one")
    return {name: described}


def _programs(stem: str, record: StudyRecord) -> dict[str, bytes]:
    """The programs, each with the name of the file that it is for, and the judged outputs, written into it."""
    made = {}
    judged = {} if record.output is None else dict(zip(record.output.names, record.output.positions, strict=True))
    for name, file in _PROGRAMS.items():
        text = (_FOLDER / name).read_text(encoding="utf-8")
        text = text.replace(f'"model{file}"', repr(f"{stem}{file}"))
        made[name] = (text.replace('{"": 0}', repr(judged)) if judged else text).encode()
    return made


def _write(folder: Path, parts: dict[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _PROGRAMS:
            there = folder / name
            if there.exists() and not there.read_bytes().startswith(_OURS.encode()):
                raise AutocompressError(f"{there} is there already and not of a bundle; give another folder with --to")
        for name, content in parts.items():
            write_whole(folder / name, content)
    except OSError as fault:
        raise AutocompressError(
            f"cannot write into {folder}: {fault.strerror}; give another folder with --to"
        ) from fault
