"""The front, the JSON document, picks and cards of studies made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.errors import AutocompressError
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.front import evaluated
from autocompress.records.study import Constraint, Evaluation
from autocompress.report import study_document
from tests.builders.records import ALL, FAILED, KNEE, make_configuration, make_record, make_trial


def test_document_has_exactly_the_keys_of_the_design_in_their_order() -> None:
    record = make_record(*ALL, test_accuracy={"baseline": 0.918, evaluated(KNEE).sha256: 0.905})
    document = study_document.document(record)
    assert list(document) == [
        *(
            "schema",
            "study",
            "task",
            "device",
            "latency_source",
            "latency_error",
            "metric",
            "output",
            "space",
            "sampler",
        ),
        *("seed", "baseline", "front", "hypervolume", "trials", "candidates_per_s", "wall_s", "versions"),
        "importance",
        "whole_channels",
    ]
    assert document["schema"] == 1
    assert document["metric"] == {"name": "accuracy", "higher_is_better": True}
    assert document["baseline"] == {
        "accuracy": 0.9186,
        "test_accuracy": 0.918,
        "latency_ms": 0.3,
        "latency_error": 0.034,
        "extrapolated": False,
        "file_bytes": 316_080,
        "download_bytes": 288_000,
        "peak_memory_bytes": None,
    }
    assert document["trials"] == {"complete": 6, "stopped_early": 1, "screened": 0, "failed": 1, "running": 1}
    assert document["versions"] == {
        "autocompress": "0.1.0",
        "optuna": "5.0.0",
        "ai-edge-quantizer": None,
        "runtime": None,
    }
    knee = document["front"][1]
    assert list(knee) == [
        *(
            "trial",
            "accuracy",
            "accuracy_ci",
            "test_accuracy",
            "latency_ms",
            "latency_ci_ms",
            "latency_error",
            "extrapolated",
            "kernels",
        ),
        *(
            "file_bytes",
            "download_bytes",
            "flash_bytes",
            "ram_bytes",
            "peak_memory_bytes",
            "finetuned",
            "configuration",
            "artifact",
            "sha256",
        ),
    ]
    assert knee["trial"] == 1
    assert knee["accuracy_ci"] == [0.91 - 0.01, 0.91 + 0.01]
    assert knee["test_accuracy"] == 0.905
    assert knee["latency_ci_ms"] is None
    assert knee["latency_error"] == 0.034
    assert knee["configuration"] == {
        "activations": "int8",
        "layers": {
            "conv_2d_0": {"sparsity": 0.0, "granularity": "element", "bits": 8, "clusters": None},
            "conv_2d_1": {"sparsity": 0.5, "granularity": "element", "bits": 4, "clusters": 8},
        },
    }
    assert [entry["test_accuracy"] for entry in document["front"]] == [None, 0.905, None, None]


def test_document_of_a_measured_study_has_intervals_and_no_model_error() -> None:
    measured: dict[str, Any] = {"latency_source": "measured", "latency_error": None, "latency_ci_ms": (0.19, 0.21)}
    trial = make_trial(0, 0.9, 0.2, 1000, peak_memory_bytes=123, **measured)
    entry = study_document.document(make_record(trial, latency_source="measured", latency_error=None))["front"][0]
    assert entry["latency_ci_ms"] == [0.19, 0.21]
    assert entry["latency_error"] is None
    assert entry["peak_memory_bytes"] == 123


def test_rate_counts_what_was_evaluated_and_not_what_was_cached() -> None:
    assert study_document.document(make_record(*ALL))["candidates_per_s"] == 6 / 30  # five complete, one stopped early
    assert study_document.document(make_record(wall_s=0.0))["candidates_per_s"] is None


@given(st.text(max_size=20) | st.just("\udc80x"), st.floats(allow_nan=True))
@settings(deadline=None)
def test_document_and_card_are_strict_json_whatever_the_names_and_values(name: str, number: float) -> None:
    trial = make_trial(0, 0.9, 0.2, 10, p90_ms=number, energy_mj=number)
    record = make_record(trial, name=name, task=name, wall_s=abs(number), versions={name: name})
    for plain in (study_document.document(record), study_document.card(record, trial)):
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
        assert json.loads(text.encode()) == plain
    if not any("\ud800" <= c <= "\udfff" for c in name):
        assert study_document.document(record)["study"] == name


def test_numpy_numbers_become_plain_ones() -> None:
    trial = make_trial(int(np.int64(3)), np.float32(0.5), np.float64(0.2), np.int64(10))
    document = json.loads(json.dumps(study_document.document(make_record(trial))))
    assert document["front"][0]["trial"] == 3
    assert document["front"][0]["accuracy"] == 0.5


def test_card_says_what_the_file_is_and_what_was_measured() -> None:
    constraint = Constraint(name="download_bytes", relation="<=", bound=1_234_567)
    record = make_record(*ALL, constraints=(constraint,), test_accuracy={evaluated(KNEE).sha256: 0.905})
    card = study_document.card(record, KNEE)
    assert card["schema"] == 1
    assert (card["study"], card["task"], card["device"], card["trial"]) == ("a", "fashion-mnist", "rpi4", 1)
    assert card["sha256"] == evaluated(KNEE).sha256
    assert Configuration.from_dict(card["configuration"]) == evaluated(KNEE).configuration
    assert card["latency_source"] == "modelled"
    assert card["constraints"] == [{"name": "download_bytes", "relation": "<=", "bound": 1_234_567}]
    assert card["measurements"]["test_accuracy"] == 0.905
    assert card["measurements"]["latency_ms"] == 0.13
    assert card["measurements"]["latency_error"] == 0.034
    assert "samples_ms" not in card["measurements"]
    assert card["baseline"]["accuracy"] == 0.9186
    assert card["int8_download_bytes"] == 80_000
    assert card["versions"] == {"autocompress": "0.1.0", "optuna": "5.0.0"}
    with pytest.raises(AutocompressError, match="trial 6 is failed, without an evaluation"):
        study_document.card(record, FAILED)


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        (make_configuration(), "int8 · 8b×1 4b×1 · 0-50 % zeros · 8 cl"),
        (Configuration(layers={"a": LayerChoice(), "b": LayerChoice()}), "float32 · 32b×2"),
        (
            Configuration(activations="int8", layers={"a": LayerChoice(sparsity=1 / 3, granularity="channel")}),
            "float32 · 32b×1 · 33.3 % zeros (channel)",
        ),
        (
            Configuration(layers={str(c): LayerChoice(bits=8, sparsity=0.5, clusters=c) for c in (16, 64, 255)}),
            "float32 · 8b×3 · 50 % zeros · 16-64 cl",
        ),
        (Configuration(), "float32"),
    ],
)
def test_summary_in_a_few_words(configuration: Configuration, expected: str) -> None:
    assert study_document.summary(configuration) == expected


def test_a_stored_study_gives_the_same_document() -> None:
    trials = [
        replace(t, evaluation=Evaluation.from_dict(json.loads(json.dumps(evaluated(t).to_dict())))) for t in ALL[:6]
    ]
    assert study_document.document(make_record(*trials)) == study_document.document(make_record(*ALL[:6]))
