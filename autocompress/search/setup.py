"""Opening a study: new or going on, what it was made with, and what must stand before its first trial."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib import metadata
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection

from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.network.graph.xnnpack_sparse import SparsePath
from autocompress.records.kernels import op_of
from autocompress.records.measurement import Measurement
from autocompress.records.study import value_name
from autocompress.search.sampler.encoding import WHOLE, Widths
from autocompress.search.sampler.stock import Choices
from autocompress.search.specification import Provenance, Specification, latency_notes
from autocompress.search.storage import stored_specification, study_records
from autocompress.search.storage.patient import open_storage, retry
from autocompress.specs import CalibratedModel, left_out_line, not_delegated, offered_kernels

_log = logging.getLogger(__name__)
_STAGE = {
    "measured": "measuring the",
    "modelled": "modelling the",
    "compiled": "compiling for the",
    "none": "without a",
}
_DESCRIPTIVE = ("cores", "clock_mhz", "sources", "not_delegated")  # of a device profile


def open_study(
    name: str, url: str, specification: Specification, sampler: BaseSampler, identity: study_records.Identity
) -> optuna.Study:
    """The study of that name in the storage at `url`, made where there is none; AutocompressError where it was made
    with something else."""
    storage = open_storage(url, retry)
    known = {study.study_name for study in storage.get_all_studies()}
    if name not in known:
        rises = specification.task.metric.higher_is_better
        directions = [
            StudyDirection.MAXIMIZE if objective == "metric" and rises else StudyDirection.MINIMIZE
            for objective in specification.objectives
        ]
        study = optuna.create_study(study_name=name, storage=storage, sampler=sampler, directions=directions)
        _name_objectives(study, specification)
        return study
    study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
    before = study_records.identity_of(study)
    changed = before.differences(identity) if before is not None else []
    if changed:
        raise AutocompressError(
            f"study '{name}' was made with something else: {'; '.join(changed)}; choose another --study name"
        )
    return study


def _name_objectives(study: optuna.Study, specification: Specification) -> None:
    """Name the values of the study's trials, for Optuna's own tools."""
    names = [value_name(objective, specification.size) for objective in specification.objectives]
    names = [specification.task.metric.name if name == "accuracy" else name for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(names)


def identity_of(
    specification: Specification, activations: tuple[str, ...], choices: Choices, widths: Widths = WHOLE
) -> study_records.Identity:
    """What a study of this specification is made with."""
    task, offered = specification.task, [{name: [c.to_json() for c in row] for name, row in choices.items()}]
    # Of the profile what a result depends on: not the way by which the device is reached, nor what describes it, nor
    # its latency model, which stands beside.
    leaves_out = left_out(specification, map(op_of, choices), activations)
    kernels = offered_kernels(specification.profile, modelled=leaves_out is not None)
    told = asdict(replace(specification.profile, host=None, latency_model=None, kernels=kernels))
    device: dict[str, Any] = {key: value for key, value in told.items() if key not in _DESCRIPTIVE}
    for key in ("kind", "compiler", "flash_bytes"):
        if device[key] is None:  # as before there were any
            del device[key]
    return study_records.Identity(
        task=task.name,
        network_sha256=task.network_sha256,
        data_sha256=task.data_sha256,
        metric=task.metric.name,
        higher_is_better=task.metric.higher_is_better,
        device=specification.profile.name,
        device_sha256=study_records.digest_of(device),
        latency_source=specification.latency_source,
        latency_model_sha256=_latency_model(specification),
        space=specification.space.name,
        choices_sha256=study_records.digest_of([list(activations), *offered, *([widths] if widths else [])]),
        objectives=specification.objectives,
        size=specification.size,
        constraints=tuple(str(constraint) for constraint in specification.constraints),
        sampler=specification.sampler,
        seed=specification.seed,
        output=None if task.output is None else task.output.named,
    )


def _latency_model(specification: Specification) -> str | None:
    """The digest of the model that latencies come from; None where they are measured."""
    model = specification.profile.latency_model
    if specification.latency_source == "measured" or model is None:
        return None
    return study_records.digest_of(asdict(model))


def lay_ground(
    study: optuna.Study,
    specification: Specification,
    provenance: Provenance,
    evaluator: Evaluator,
    identity: study_records.Identity,
    activations: tuple[str, ...],
) -> None:
    """What must stand before the first trial: identity, reference size, baseline, and who started it."""
    attrs = study.user_attrs
    if "identity" not in attrs:
        # Where there is but one output, the identity is what it was before there was a choice.
        told = {key: value for key, value in asdict(identity).items() if key != "output" or value is not None}
        study.set_user_attr("identity", told)
    if "baseline" not in attrs:
        _log.info("running the float network on calibration, validation and test data")
        _look_at_data(specification, evaluator)
        study.set_user_attr("int8_download_bytes", evaluator.plain_int8_download_bytes())
        study.set_user_attr(
            "notes", [*specification.task.notes, *latency_notes(specification), *provenance.notes, *evaluator.notes]
        )
        study.set_user_attr("versions", versions())
        study.set_user_attr("layer_names", {layer.name: layer.tensor_name for layer in evaluator.layers})
        if not specification.profile.tells_flash:  # what runs there is none of XNNPACK's
            modelled = specification.latency_source == "modelled"
            study.set_user_attr("kernels", offered_kernels(specification.profile, modelled=modelled))
            study.set_user_attr("not_delegated", not_delegated(specification.profile))
        study.set_user_attr("left_out", left_out(specification, (layer.op for layer in evaluator.layers), activations))
        if specification.task.output is not None:
            study.set_user_attr("output", specification.task.output.to_dict())
        _weigh_metric(study, specification, evaluator)
        how = {
            "measured": "measuring the",
            "modelled": "modelling the",
            "compiled": "compiling for the",
            "none": "without a",
        }
        _log.info("%s latency on %s", how[specification.latency_source], specification.profile.name)
        study.set_user_attr("baseline", evaluator.baseline.to_dict())
    if evaluator.base_networks.staying and "whole_channels" not in attrs:
        study.set_user_attr("whole_channels", evaluator.base_networks.staying)
    stored_specification.store(study, specification, provenance)
    study_records.note_run(study, provenance.command)


def _look_at_data(specification: Specification, evaluator: Evaluator) -> None:
    """All splits, before anything is made of them; AutocompressError for one that cannot be used."""
    try:
        evaluator.check_splits()
    except CandidateError as fault:
        name = specification.profile.name
        raise AutocompressError(f"the float network cannot be evaluated on '{name}': {fault}") from fault


def _weigh_metric(study: optuna.Study, specification: Specification, evaluator: Evaluator) -> None:
    """What difference of the metric counts, stored before the first trial; and a note where the float network is no
    better than one that has learned nothing."""
    task, baseline = specification.task, evaluator.baseline.accuracy
    scale = task.metric.scale(task.y_validation, baseline)
    if scale != 1.0:
        study.set_user_attr("metric_scale", scale)
    note(study, task.remark(baseline))


def left_out(specification: Specification, ops: Iterable[str], activations: tuple[str, ...]) -> str | None:
    """The kernels that a search over a network of these ops does not use because the latency model has no price for
    them, in a line; None where that is nothing."""
    return (
        left_out_line(specification.profile, frozenset(ops), activations)
        if specification.latency_source == "modelled"
        else None
    )


def note(study: optuna.Study, text: str | None) -> None:
    """Add a note to the study, once; None: nothing is to be said."""
    notes = study.user_attrs["notes"]
    if text is not None and text not in notes:
        study.set_user_attr("notes", [*notes, text])


def screening_note(specification: Specification) -> str:
    """That what a calibrated model shows to be hopeless is not measured."""
    model = specification.profile.latency_model
    when = f" of {model.measured_on}" if isinstance(model, CalibratedModel) else ""
    return f"latencies were predicted first, by the calibration{when}: what cannot enter the front was not measured"


def sparse_note(specification: Specification, path: SparsePath, measurement: Measurement) -> str | None:
    """Why rules for sparse kernels bring no speed in this study; None where they may, or there are none."""
    if not any(rule.sparse_kernels for rule in specification.space.rules):
        return None
    if not path.layers:
        return f"no sparse kernels: {path.reason}; zeros make files smaller, not faster"
    if specification.latency_source == "modelled":
        return "sparse kernels are not modelled: sparse layers are counted as dense ones; measure with --host"
    environment = measurement.environment
    if environment is not None and any(feature.startswith("avx") for feature in environment.cpu_features):
        return "XNNPACK runs no sparse kernels on processors with AVX, as this device is: zeros make files smaller only"
    return None


def queue(study: optuna.Study, uniform_baselines: Iterable[dict[str, Any]]) -> None:
    """Put the uniform baselines (their parameters) that the study has not seen yet in front of what the sampler
    proposes."""
    for fixed in uniform_baselines:
        if fixed:
            study.enqueue_trial(fixed, skip_if_exists=True)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = {
        "autocompress": "autocompress",
        "optuna": "optuna",
        "ai-edge-quantizer": "ai-edge-quantizer",
        "runtime": "ai-edge-litert",
        "numpy": "numpy",
    }
    return {name: metadata.version(package) for name, package in packages.items()}
