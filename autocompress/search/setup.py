"""Opening a study: new or going on, what it was made with, and what must stand before its first trial."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib import metadata
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection

from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.network.graph.xnnpack_sparse import SparsePath
from autocompress.records.kernels import op_of
from autocompress.records.measurement import Measurement
from autocompress.search.request import Request
from autocompress.search.sampler.stock import WHOLE, Choices, Widths
from autocompress.search.storage import study_records
from autocompress.search.storage.patient import open_storage, retry
from autocompress.specs import left_out_line, not_delegated, offered_kernels

_DESCRIPTIVE = ("cores", "clock_mhz", "sources", "not_delegated")  # of a device profile


def open_study(request: Request, sampler: BaseSampler, identity: study_records.Identity) -> optuna.Study:
    """The study that the request names, made where there is none; AutocompressError where it was made with something
    else."""
    url = study_records.storage_url(request.runs, request.study_name, request.storage)
    storage = open_storage(url, retry)
    known = {study.study_name for study in storage.get_all_studies()}
    if request.study_name not in known:
        rises = request.task.metric.higher_is_better
        directions = [
            StudyDirection.MAXIMIZE if name == "metric" and rises else StudyDirection.MINIMIZE
            for name in request.objectives
        ]
        return optuna.create_study(
            study_name=request.study_name, storage=storage, sampler=sampler, directions=directions
        )
    study = optuna.load_study(study_name=request.study_name, storage=storage, sampler=sampler)
    before = study_records.identity_of(study)
    changed = before.differences(identity) if before is not None else []
    if changed:
        raise AutocompressError(
            f"study '{request.study_name}' was made with something else: {'; '.join(changed)}; "
            "choose another --study name"
        )
    return study


def identity_of(
    request: Request, activations: tuple[str, ...], choices: Choices, widths: Widths = WHOLE
) -> study_records.Identity:
    """What a study of this request is made with."""
    task, offered = request.task, [{name: [c.to_json() for c in row] for name, row in choices.items()}]
    # Of the profile what a result depends on: not the way by which the device is reached, nor what describes it, nor
    # its latency model, which stands beside.
    leaves_out = left_out(request, map(op_of, choices), activations)
    kernels = offered_kernels(request.profile, modelled=leaves_out is not None)
    told = asdict(replace(request.profile, host=None, latency_model=None, kernels=kernels))
    device: dict[str, Any] = {key: value for key, value in told.items() if key not in _DESCRIPTIVE}
    return study_records.Identity(
        task=task.name,
        network_sha256=task.network_sha256,
        data_sha256=task.data_sha256,
        metric=task.metric.name,
        higher_is_better=task.metric.higher_is_better,
        device=request.profile.name,
        device_sha256=study_records.digest_of(device),
        latency_source=request.latency_source,
        latency_model_sha256=_latency_model(request),
        space=request.space.name,
        choices_sha256=study_records.digest_of([list(activations), *offered, *([widths] if widths else [])]),
        objectives=request.objectives,
        size=request.size,
        constraints=tuple(str(constraint) for constraint in request.constraints),
        sampler=request.sampler,
        seed=request.seed,
        output=None if task.output is None else task.output.named,
    )


def _latency_model(request: Request) -> str | None:
    """The digest of the model that latencies come from; None where they are measured."""
    model = request.profile.latency_model
    if request.latency_source == "measured" or model is None:
        return None
    return study_records.digest_of(asdict(model))


def lay_ground(
    study: optuna.Study,
    request: Request,
    evaluator: Evaluator,
    identity: study_records.Identity,
    activations: tuple[str, ...],
) -> None:
    """What must stand before the first trial: identity, reference size, baseline, and who started it."""
    attrs = study.user_attrs
    if "identity" not in attrs:
        study.set_user_attr("schema", study_records.SCHEMA)
        # Where there is but one output, the identity is what it was before there was a choice.
        told = {key: value for key, value in asdict(identity).items() if key != "output" or value is not None}
        study.set_user_attr("identity", told)
    if "baseline" not in attrs:
        _look_at_data(request, evaluator)
        study.set_user_attr("int8_download_bytes", evaluator.plain_int8_download_bytes())
        study.set_user_attr("notes", [*request.task.notes, *request.notes, *evaluator.notes])
        study.set_user_attr("versions", versions())
        modelled = request.latency_source == "modelled"
        study.set_user_attr("kernels", offered_kernels(request.profile, modelled=modelled))
        study.set_user_attr("not_delegated", not_delegated(request.profile))
        study.set_user_attr("left_out", left_out(request, (layer.op for layer in evaluator.layers), activations))
        if request.task.output is not None:
            study.set_user_attr("output", request.task.output.to_dict())
        study.set_user_attr("baseline", evaluator.baseline.to_dict())
    if evaluator.base_networks.staying and "whole_channels" not in attrs:
        study.set_user_attr("whole_channels", evaluator.base_networks.staying)
    if request.words and dict(request.words) != study.user_attrs.get("words"):
        study.set_user_attr("words", dict(request.words))
    study_records.note_run(study, request.command)


def _look_at_data(request: Request, evaluator: Evaluator) -> None:
    """All splits, before anything is made of them; AutocompressError for one that cannot be used."""
    try:
        evaluator.check_splits()
    except CandidateError as fault:
        name = request.profile.name
        raise AutocompressError(f"the float network cannot be evaluated on '{name}': {fault}") from fault


def left_out(request: Request, ops: Iterable[str], activations: tuple[str, ...]) -> str | None:
    """The kernels that a search over a network of these ops does not use because the latency model has no price for
    them, in a line; None where that is nothing."""
    return left_out_line(request.profile, frozenset(ops), activations) if request.latency_source == "modelled" else None


def note(study: optuna.Study, text: str) -> None:
    """Add a note to the study, once."""
    notes = study.user_attrs["notes"]
    if text not in notes:
        study.set_user_attr("notes", [*notes, text])


def sparse_note(request: Request, path: SparsePath, measurement: Measurement) -> str | None:
    """Why rules for sparse kernels bring no speed in this study; None where they may, or there are none."""
    if not any(rule.sparse_kernels for rule in request.space.rules):
        return None
    if not path.layers:
        return f"no sparse kernels: {path.reason}; zeros make files smaller, not faster"
    if request.latency_source == "modelled":
        return "sparse kernels are not modelled: sparse layers are counted as dense ones; measure with --host"
    environment = measurement.environment
    if environment is not None and any(feature.startswith("avx") for feature in environment.cpu_features):
        return "XNNPACK runs no sparse kernels on processors with AVX, as this device is: zeros make files smaller only"
    return None


def queue(study: optuna.Study, uniform_baselines: Iterable[dict[str, Any]]) -> None:
    """Put the uniform baselines (their parameters) that the study has not seen yet in front of what the sampler proposes."""
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
