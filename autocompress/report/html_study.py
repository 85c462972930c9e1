"""The web page of one study: what Python writes of it as markup, and the data that its script draws."""

from __future__ import annotations

import html
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from string import Template
from typing import Any

from autocompress.errors import AutocompressError
from autocompress.records.configuration import LayerChoice
from autocompress.records.constraint import value_of
from autocompress.records.front import STATES, complete, feasible, front_of, why_empty
from autocompress.records.study import CONSTRAINT_NAMES, Evaluation, StudyRecord, TrialRecord
from autocompress.report import card, ship, study_document
from autocompress.report.html import asset, page, table
from autocompress.report.importance import advice_lines, whole_channel_lines
from autocompress.report.progress import hypervolume_steps
from autocompress.report.units import latency_words, milliseconds, score

_TITLES = {
    "latency_ms": "latency, ms",
    "download_bytes": "download, bytes",
    "file_bytes": "file, bytes",
    "peak_memory_bytes": "peak memory, bytes",
    "energy_mj": "energy, mJ (estimated)",
}
_LEAST = {True: "higher is better", False: "lower is better"}


def study_page(
    record: StudyRecord, *, ops: Sequence[Mapping[str, Any]] = (), options: Sequence[str] = (), written_s: float
) -> str:
    """One self-contained HTML page of a study. `ops`: documents of `autocompress measure --json` of files of this
    study; `options`: what a command needs to find the study (`--runs DIR`); `written_s`: now, in seconds since the
    epoch. AutocompressError for a document of another file."""
    return page(
        title=f"{record.name} - autocompress",
        main=_main(record, options, written_s),
        data=study_data(record, ops=ops, options=options),
        script="study.js",
    )


def study_data(
    record: StudyRecord, *, ops: Sequence[Mapping[str, Any]] = (), options: Sequence[str] = ()
) -> dict[str, Any]:
    """What the page's script draws, as plain JSON data. Layers and layer choices stand once, trials name them by their
    index."""
    choices: dict[LayerChoice, int] = {}
    front = front_of(record)
    layers = list(record.baseline.configuration.layers)
    trials = [_point(record, trial, evaluation, layers, choices) for trial, evaluation in complete(record)]
    baseline = _values(record, record.baseline) | {
        "summary": "the float network as given",
        "sha256": record.baseline.sha256,
        "layers": _layers(record.baseline, layers, choices),
        "activations": "float32",
    }
    found: dict[str, Any] = study_document.as_json(
        {
            "study": record.name,
            "higher_is_better": record.higher_is_better,
            "axes": _axes(record),
            "layers": layers,
            "choices": [[c.sparsity, c.granularity, c.bits, c.clusters] for c in choices],
            "trials": trials,
            "front": [trial.number for trial in front.trials],
            "picks": {name: trial.number for name, trial in front.picks.items()},
            "baseline": baseline,
            "samples": _samples(record, front.trials),
            "ops": _ops(record, ops),
            "hypervolume": [asdict(step) for step in hypervolume_steps(record)],
            "importance": [asdict(row) for row in record.importance],
            "export": shlex.join(["autocompress", "export", record.name, *options, "--pick"]),
        }
    )
    return found


def _axes(record: StudyRecord) -> list[dict[str, str]]:
    """The values that can be drawn: those that some complete trial has. Modelled latency says so in its name."""
    known = [
        name
        for name in CONSTRAINT_NAMES
        if any(value_of(evaluation, name) is not None for _, evaluation in complete(record))
    ]
    titles = _TITLES | {"accuracy": f"validation {record.metric_name}"}
    titles["latency_ms"] += f" ({latency_words(record.baseline.measurement)})"
    return [{"name": name, "title": titles[name]} for name in known]


def _values(record: StudyRecord, evaluation: Evaluation) -> dict[str, Any]:
    """All values of a file that the page shows."""
    sha256, measured = evaluation.sha256, evaluation.measurement
    return {name: value_of(evaluation, name) for name in CONSTRAINT_NAMES} | {
        "accuracy_ci": evaluation.accuracy_ci,
        "accuracy_delta_ci": evaluation.accuracy_delta_ci,
        "test_accuracy": record.test_accuracy.get(sha256),
        "test_ci": record.test_ci.get(sha256),
        "latency_ci_ms": measured.latency_ci_ms,
        "latency_words": latency_words(measured),
        "extrapolated": measured.extrapolated,
        "kernels": record.runs_where(evaluation.configuration),
    }


def _point(
    record: StudyRecord,
    trial: TrialRecord,
    evaluation: Evaluation,
    layers: Sequence[str],
    choices: dict[LayerChoice, int],
) -> dict[str, Any]:
    configuration = evaluation.configuration.normalised()
    return _values(record, evaluation) | {
        "number": trial.number,
        "summary": study_document.words(evaluation),
        "activations": configuration.activations,
        "channels": dict(configuration.channels),
        "layers": _layers(evaluation, layers, choices),
        "sha256": evaluation.sha256,
        "feasible": feasible(record, evaluation),
    }


def _layers(evaluation: Evaluation, layers: Sequence[str], choices: dict[LayerChoice, int]) -> list[int]:
    """The index of each layer's choice among all that occur."""
    chosen = evaluation.configuration.normalised().layers
    return [choices.setdefault(chosen.get(layer, LayerChoice()), len(choices)) for layer in layers]


def _samples(record: StudyRecord, front: Sequence[TrialRecord]) -> dict[str, Any]:
    """The stored latency samples of the baseline and the front, a list a process; only of what was measured."""
    found = {"baseline": record.baseline, **{str(t.number): t.evaluation for t in front if t.evaluation is not None}}
    return {name: e.measurement.samples_ms for name, e in found.items() if e.measurement.samples_ms}


def _ops(record: StudyRecord, documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per-op times, each beside the file that they are of."""
    names = {f"{e.sha256}.tflite": f"trial {t.number}" for t, e in reversed(complete(record))}
    names[f"{record.baseline.sha256}.tflite"] = "baseline"
    found = []
    for document in documents:
        model = str(document.get("model"))
        if model not in names:
            raise AutocompressError(
                f"'{model}' is no file of study '{record.name}'; measure one of its artifacts, which are named by "
                "their SHA-256: autocompress measure RUNS/STUDY/artifacts/SHA256.tflite --json"
            )
        wanted = ("ops", "ops_note", "ops_runs", "ops_inference_us", "device", "runtime", "runtime_version")
        found.append({"of": names[model]} | {key: document.get(key) for key in wanted})
    return found


def _main(record: StudyRecord, options: Sequence[str], written_s: float) -> str:
    front, states = front_of(record).trials, Counter(trial.state for trial in record.trials)
    counts = ", ".join(f"{states[s]} {s.replace('_', ' ')}" for s in STATES if states[s] or s == "complete")
    failed = [
        (str(t.number), t.state.replace("_", " "), t.reason or "no reason given")
        for t in record.trials
        if t.state in ("failed", "stopped_early", "screened")
    ]
    return Template(asset("study.html")).substitute(
        study=html.escape(record.name),
        what=html.escape(f"{record.task} on {record.device} · space {record.space} · sampler {record.sampler}"),
        metric=html.escape(record.metric_name),
        better=_LEAST[record.higher_is_better],
        float=html.escape(_float_line(record)),
        found=html.escape(f"{len(front)} on the front of {len(record.trials)} trials ({counts})"),
        ship=ship.section([] if (found := ship.shipped(record, options)) is None else [(found, record.metric_scale)]),
        empty="" if front else f"<p><strong>The front is empty: {html.escape(why_empty(record))}.</strong></p>",
        latency=html.escape(latency_words(record.baseline.measurement)),
        notes="".join(f"<p>Note: {html.escape(note)}</p>" for note in record.notes),
        advice="".join(f"<p>{html.escape(line)}</p>" for line in (*advice_lines(record), *_whole_channels(record))),
        failures=table(("trial", "state", "reason"), failed, "Trials that failed or were stopped early"),
        provenance=table(("what", "value"), _provenance(record), "Provenance"),
        environment=table(("what", "value"), environment_lines(record), "The device while the baseline was measured"),
        starts=table(("when (UTC)", "by", "command"), _starts(record), "Starts of this study's search"),
        repeat=html.escape(repeat_command(record, options)),
        written=_time(written_s),
    )


def _whole_channels(record: StudyRecord) -> list[str]:
    return [f"All channels stay in {line}" for line in whole_channel_lines(record)]


def _float_line(record: StudyRecord) -> str:
    baseline = record.baseline
    tested = record.test_accuracy.get(baseline.sha256)
    value, *test = (score(each, record.metric_scale) for each in (baseline.accuracy, tested) if each is not None)
    said = f" (test {test[0]})" if test else ""
    return (
        f"{record.metric_name} {value}{said}, latency {milliseconds(baseline.measurement)} "
        f"({latency_words(baseline.measurement)}), "
        f"{baseline.download_bytes:,} bytes download, {baseline.file_bytes:,} bytes file."
    )


def _provenance(record: StudyRecord) -> list[tuple[str, str]]:
    objectives = ", ".join(record.objectives)
    lines = [
        ("task", record.task),
        ("device", record.device),
        ("space", record.space),
        ("sampler", record.sampler),
        ("seed", str(record.seed)),
        ("objectives", f"{objectives} (size: {record.size})"),
        ("constraints", ", ".join(map(str, record.constraints)) or "none"),
        ("latency", latency_words(record.baseline.measurement)),
        *([] if record.left_out is None else [("kernels not used", record.left_out)]),
        ("baseline file", f"{record.baseline.sha256} (SHA-256)"),
    ]
    if record.output is not None:
        lines.insert(1, ("output", record.output.words))
    lines += [(name.replace("_", " "), f"{digest} (SHA-256)") for name, digest in record.hashes.items()]
    lines += [(f"version of {name}", version) for name, version in record.versions.items()]
    return [*lines, ("time searched", f"{record.wall_s:.0f} s")]


def environment_lines(record: StudyRecord) -> list[tuple[str, str]]:
    """The state of the device with the baseline's measurement; nothing for a modelled one."""
    measured = record.baseline.measurement
    if measured.environment is None:
        return []
    runtime = f"{measured.runtime or 'unknown'} {measured.runtime_version or ''}".strip()
    lines = [("runtime", runtime), ("threads", str(measured.threads)), ("system", f"{measured.os_bits}-bit")]
    for name, value in asdict(measured.environment).items():
        if value not in (None, (), []):
            text = " -> ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            lines.append((name.replace("_", " "), text.replace(" -> ", ", ") if name == "cpu_features" else text))
    return lines


def _starts(record: StudyRecord) -> list[tuple[str, str, str]]:
    return [
        (_time(run.started_s), f"{run.user or 'unknown'} on {run.host or 'unknown'}", shlex.join(run.command) or "-")
        for run in record.runs
    ]


def repeat_command(record: StudyRecord, options: Sequence[str]) -> str:
    """The command that makes this study again: as it was given where the study holds it, else what the study says of
    itself (files that were given are not known then)."""
    given = next((run.command for run in record.runs if run.command), None)
    if given is not None:
        return shlex.join(given)
    named = {"device": record.device, "task": record.task, "space": record.space}
    return " ".join([card.repeat_command(record, named), *map(shlex.quote, options)])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")
