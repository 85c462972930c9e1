"""The model card of an exported candidate: as JSON for `verify.py` and machines, as Markdown for people. Pure."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.records.constraint import value_of
from autocompress.records.front import complete
from autocompress.records.measurement import Measurement
from autocompress.records.study import CONSTRAINT_NAMES, StudyRecord, TrialRecord
from autocompress.report import study_document
from autocompress.report.units import certainty, compiled_words, digits, kilobytes, score

_ESCAPED = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]#|~!$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """What a bundle holds beside the study's own words. `model` names the `.tflite` among `files` (name to content);
    `layers` say what each layer holds, as read from that file; `words` how the search named task, device, host and
    space."""

    model: str
    files: Mapping[str, bytes]
    layers: Sequence[Mapping[str, Any]]
    words: Mapping[str, str | None]
    data_sha256: str | None
    licence: str | None


def model_card(record: StudyRecord, trial: TrialRecord, shipped: Shipped) -> dict[str, Any]:
    """The card of `study_document.card` with intervals, deltas to the float network, what is stored and asked layer by
    layer, hashes, licence and the command to repeat."""
    card = study_document.card(record, trial)
    assert trial.evaluation is not None
    asked = trial.evaluation.configuration.normalised().layers
    where = record.runs_where(trial.evaluation.configuration) or {}
    more = {
        "model": shipped.model,
        "licence": shipped.licence,
        "objectives": record.objectives,
        "search": {"sampler": record.sampler, "seed": record.seed, "complete_trials": len(complete(record))},
        "deltas": _deltas(record, trial),
        "layers": [
            {
                **layer,
                "asked": asked[layer["name"]].to_dict() if layer["name"] in asked else None,
                "runs_on": where.get(layer["name"]),
            }
            for layer in shipped.layers
        ],
        "hashes": {"network": record.baseline.sha256, "data": shipped.data_sha256, "model": trial.evaluation.sha256},
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in shipped.files.items()
        },
        "repeat": repeat_command(record, shipped.words),
        "notes": record.notes,
    }
    card["measurements"]["test_accuracy_ci"] = study_document.as_json(record.test_ci.get(trial.evaluation.sha256))
    card["baseline"]["accuracy_ci"] = study_document.as_json(record.baseline.accuracy_ci)
    card["baseline"]["test_accuracy_ci"] = study_document.as_json(record.test_ci.get(record.baseline.sha256))
    plain: dict[str, Any] = study_document.as_json(more)
    return card | plain


def _deltas(record: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    """Candidate against float network: differences of the metric, ratios of the rest; null where one is missing."""
    evaluation, baseline = trial.evaluation, record.baseline
    assert evaluation is not None
    tests = [record.test_accuracy.get(e.sha256) for e in (evaluation, baseline)]
    ratios = {
        f"{name}_ratio": value / base if value is not None and base else None
        for name in CONSTRAINT_NAMES[1:]
        for value, base in [(value_of(evaluation, name), value_of(baseline, name))]
    }
    return {
        "accuracy": evaluation.accuracy - baseline.accuracy,
        "accuracy_ci": evaluation.accuracy_delta_ci,
        "test_accuracy": None if tests[0] is None or tests[1] is None else tests[0] - tests[1],
        **ratios,
    }


def repeat_command(record: StudyRecord, words: Mapping[str, str | None]) -> str:
    """The search that leads to this study's trials, one line. The user's own files stand without their folders and a
    host as HOST: a card goes where those are nobody's business."""
    command = ["autocompress", "search"]
    for name in ("device", "task", "model", "data", "metric", "space"):
        value = words.get(name)
        command += [] if value is None else [f"--{name}", value.rsplit("/", 1)[-1]]
    for name in ("output", "signature"):
        value = words.get(name)
        command += [] if value is None else [f"--{name}", value]
    command += [] if words.get("host") is None else ["--host", "HOST"]
    command += ["--sampler", record.sampler, "--seed", str(record.seed)]
    if record.objectives != ("metric", "latency", "size"):
        command += [word for objective in record.objectives for word in ("--objective", objective)]
    command += [word for constraint in record.constraints for word in ("--constraint", str(constraint))]
    command += ["--size", record.size] if record.size != "download" else []
    command += ["--trials", str(len(complete(record))), "--study", record.name]
    return shlex.join(_one_line(word) for word in command)


def markdown(record: StudyRecord, trial: TrialRecord, card: Mapping[str, Any]) -> str:
    """The card for people. Whatever a user named things, it stays text."""
    assert trial.evaluation is not None
    measurement = trial.evaluation.measurement
    parts = [
        f"# Model card: {escaped(card['model'])}",
        f"Trial {card['trial']} of study {escaped(record.name)}: {escaped(record.task)}, compressed by autocompress "
        f"{escaped(str(card['versions'].get('autocompress')))} for {escaped(record.device)}. "
        f"Configuration: {escaped(study_document.summary(trial.evaluation.configuration))}.",
        f"Licence of the model: {escaped(card['licence'] or 'not stated')}.",
        *_judged(record),
        "## Figures",
        _table(["", "float network", "this file", "difference"], _figures(record, card)),
        f"Latency on {escaped(record.device)}: {_latency_said(measurement)}",
        "Validation data were used to choose this file, test data were not: the test value is the claim. Intervals are "
        "95 %; that of the validation difference is paired over samples.",
        *_notes(card),
        "## Layers",
        "As read back from the file; `asked` is what the configuration wanted at least (zeros) and at most (levels).",
        _table(["layer", "tensor", "shape", "stored as", "zeros", "levels", "asked", "runs on"], _layers(card)),
        "## Files",
        _table(
            ["file", "bytes", "SHA-256"],
            [[escaped(name), f"{told['bytes']:,}", told["sha256"]] for name, told in card["files"].items()],
        ),
        f"Float network: SHA-256 {card['hashes']['network']}. Data: {card['hashes']['data'] or 'unknown'} (over the "
        "arrays, not the file).",
        "`python verify.py --data DATA.npz` checks all of this; `python predict.py SAMPLES.npy` runs the network.",
        "## How to repeat",
        f"```sh\n{card['repeat']}\n```",
        "Versions: " + ", ".join(f"{escaped(name)} {escaped(told)}" for name, told in card["versions"].items()) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _judged(record: StudyRecord) -> list[str]:
    return [] if record.output is None else [f"Judged output: {escaped(record.output.words)}."]


def escaped(text: str) -> str:
    """Text as one line of Markdown that stands for itself: no markup, no HTML, no table cell broken."""
    return _one_line(text).translate(_ESCAPED)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *lines])


def _figures(record: StudyRecord, card: Mapping[str, Any]) -> list[list[str]]:
    base, this, deltas = card["baseline"], card["measurements"], card["deltas"]
    name, scale = escaped(record.metric_name), record.metric_scale
    lines = [
        [
            f"{name}, test data",
            _value(base, "test_accuracy", scale),
            _value(this, "test_accuracy", scale),
            _signed(deltas["test_accuracy"], scale),
        ],
        [
            f"{name}, validation data",
            _value(base, "accuracy", scale),
            _value(this, "accuracy", scale),
            _signed(deltas["accuracy"], scale, deltas["accuracy_ci"]),
        ],
    ]
    written = {
        "latency_ms": _milliseconds,
        "download_bytes": kilobytes,
        "file_bytes": kilobytes,
        "peak_memory_bytes": kilobytes,
    }
    for key, write in written.items():
        before, after, ratio = base[key], this[key], deltas[f"{key}_ratio"]
        shown = ["-" if value is None else write(value) for value in (before, after)]
        lines.append([key.rsplit("_", 1)[0].replace("_", " "), *shown, "-" if ratio is None else f"× {ratio:.3f}"])
    return lines


def _value(owner: Mapping[str, Any], key: str, scale: float) -> str:
    value, interval = owner[key], owner[f"{key}_ci"]
    if value is None:
        return "not computed"
    return score(value, scale) + (
        "" if interval is None else f" ({' to '.join(score(end, scale) for end in interval)})"
    )


def _signed(value: float | None, scale: float, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "-"
    ends = "" if interval is None else f" ({' to '.join(score(end, scale, '+') for end in interval)})"
    return score(value, scale, "+") + ends


def _milliseconds(latency_ms: float) -> str:
    return f"{digits(latency_ms)} ms"


def _latency_said(measurement: Measurement) -> str:
    """Whether a latency was measured or modelled, and how sure it is."""
    if measurement.latency_source == "modelled":
        return f"**modelled**, {certainty(measurement)}. Nothing ran on the device."
    if measurement.latency_source == "compiled":
        return f"**compiled**: {escaped(compiled_words(measurement))}. Nothing ran on the device."
    interval = measurement.latency_ci_ms
    within = "" if interval is None else f" (95 %: {digits(interval[0])} to {digits(interval[1])} ms)"
    where = measurement.environment
    board = "" if where is None else f" on {escaped(where.board or where.cpu or where.machine)}"
    doubtful = " **Doubtful**: the baseline drifted meanwhile." if measurement.doubtful else ""
    return (
        f"**measured**{within}{board} with {escaped(str(measurement.runtime))} "
        f"{escaped(str(measurement.runtime_version))}, {measurement.threads} threads.{doubtful}"
    )


def _notes(card: Mapping[str, Any]) -> list[str]:
    notes = [f"- {escaped(note)}" for note in card["notes"]]
    return ["\n".join(["Notes:", "", *notes])] if notes else []


def _layers(card: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for layer in card["layers"]:
        asked = layer["asked"]
        share = layer["zeros"] / layer["weights"] if layer["weights"] else 0.0
        lines.append(
            [
                escaped(layer["name"]),
                escaped(_shortened(layer["tensor_name"] or "-")),
                "×".join(map(str, layer["shape"])),
                layer["container"],
                f"{layer['zeros']:,} of {layer['weights']:,} ({100 * share:.1f} %)",
                f"{layer['levels']:,}",
                "-" if asked is None else _asked(asked),
                layer["runs_on"] or "not known",
            ]
        )
    return lines


def _shortened(name: str) -> str:
    """The first of the operators that a converter merged, at most 60 characters."""
    first = name.split(";", 1)[0]
    return first if len(first) <= 60 else f"{first[:59]}…"


def _asked(asked: Mapping[str, Any]) -> str:
    parts = [f"{asked['bits']} bits"]
    if asked["sparsity"]:
        kind = "" if asked["granularity"] == "element" else f" {escaped(asked['granularity'])}"
        parts.append(f"{100 * asked['sparsity']:.3g} %{kind} zeros")
    if asked["clusters"] is not None:
        parts.append(f"{asked['clusters']} levels")
    return ", ".join(parts)
