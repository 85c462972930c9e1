"""What is said of a latency outside what its model was fitted to: one phrase, no error, in every output."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from rich.console import Console

from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.front import evaluated
from autocompress.records.kernels import BUILT_IN, DELEGATED
from autocompress.records.measurement import MeasuredFile, Measurement, OpProfile
from autocompress.records.study import StudyRecord
from autocompress.report import measurement, study_document, terminal
from autocompress.report.card import Shipped, markdown, model_card
from autocompress.report.html_study import study_data, study_page
from autocompress.report.leaderboard import groups_of
from autocompress.report.leaderboard_html import board_page
from autocompress.report.leaderboard_text import csv_text, document, tables
from autocompress.report.leaderboard_text import markdown as board_markdown
from autocompress.report.units import EXTRAPOLATED, ROUGH, latency_words
from autocompress.specs import VerdictRules
from autocompress.sweep import summary
from autocompress.sweep.night import CellNight, Check, FileFigures, Night
from autocompress.sweep.verdict import verdicts
from tests.builders.records import ALL, make_record, make_trial

DEPTHWISE = {"DEPTHWISE_CONV_2D": ((32, "float32"), (8, "float32"), (8, "int8"))}


def rough(measured: Measurement) -> Measurement:
    return replace(measured, extrapolated=True)


def record_outside() -> StudyRecord:
    """A study of which each latency is extrapolated."""
    record = make_record(*ALL, latency_error=None)
    trials = [
        t
        if (found := t.evaluation) is None
        else replace(t, evaluation=replace(found, measurement=rough(found.measurement)))
        for t in record.trials
    ]
    baseline = replace(record.baseline, measurement=rough(record.baseline.measurement))
    return replace(record, trials=tuple(trials), baseline=baseline)


def on_console(show: Any) -> str:
    shown = io.StringIO()
    show(Console(file=shown, width=200))
    return " ".join(shown.getvalue().split())


def header(record: StudyRecord) -> str:
    return on_console(lambda console: terminal.print_header(console, record, layers=2, configurations_log10=3))


def front(record: StudyRecord) -> str:
    return on_console(lambda console: terminal.print_front(console, record))


def progress(record: StudyRecord) -> str:
    def show(console: Console) -> None:
        with terminal.SearchProgress(console, replace(record, trials=())) as shown:
            shown.update(record)

    return on_console(show)


def card(record: StudyRecord) -> tuple[dict[str, Any], str]:
    layer = {
        "name": "conv_2d_0",
        "op": "CONV_2D",
        "shape": [1],
        "container": "INT8",
        "weights": 1,
        "zeros": 0,
        "levels": 1,
        "tensor_name": None,
    }
    shipped = Shipped(model="a-1.tflite", files={}, layers=[layer], words={}, data_sha256=None, licence=None)
    trial = record.trials[1]
    found = model_card(record, trial, shipped)
    return found, markdown(record, trial, found)


def measured_file(record: StudyRecord) -> MeasuredFile:
    return MeasuredFile(
        model="x.tflite",
        device="rpi4",
        measurement=record.baseline.measurement,
        file_bytes=1,
        download_bytes=1,
        profile=OpProfile(ops=None, reason="modelled"),
    )


def board(record: StudyRecord) -> dict[str, Any]:
    return document(groups_of([record]), [])


TEXTS: dict[str, Callable[[StudyRecord], str]] = {
    "header": header,
    "front": front,
    "progress": progress,
    "page of a study": lambda record: study_page(record, written_s=0.0),
    "card": lambda record: card(record)[1],
    "measure": lambda record: on_console(lambda c: measurement.print_measurement(c, measured_file(record))),
    "leaderboard as JSON": lambda record: json.dumps(board(record), ensure_ascii=False),
    "leaderboard as CSV": lambda record: csv_text(board(record)),
    "page of the leaderboard": lambda record: board_page(groups_of([record]), board(record), written_s=0.0),
}


@pytest.mark.parametrize("name", TEXTS)
def test_an_extrapolated_latency_is_an_order_of_magnitude_and_has_no_error(name: str) -> None:
    said = TEXTS[name](record_outside()).replace("\\u00b1", "±")
    assert EXTRAPOLATED in said or (ROUGH in said and EXTRAPOLATED.split(", ")[1] in said)
    assert "± 3.4" not in said
    inside = TEXTS[name](make_record(*ALL)).replace("\\u00b1", "±")
    assert ROUGH not in inside
    assert "± 3.4 %" in inside


def test_tables_of_the_leaderboard_have_the_short_words() -> None:
    found = board(record_outside())
    fronts = [table for table in tables(found) if table.title.endswith("the front")]
    assert fronts
    assert all(ROUGH in " ".join(line[3].split()) for table in fronts for line in table.lines)
    assert ROUGH in board_markdown(found)
    assert ROUGH not in board_markdown(board(make_record(*ALL)))


@pytest.mark.parametrize("outside", [True, False])
def test_documents_say_it_with_a_flag(outside: bool) -> None:
    record = record_outside() if outside else make_record(*ALL)
    error = None if outside else 0.034
    report, page, points = study_document.document(record), study_data(record), board(record)["groups"][0]
    shipped, single = card(record)[0], measurement.document(measured_file(record))
    entries = [report["baseline"], *report["front"], *points["front"], shipped["measurements"], shipped["baseline"]]
    assert {entry["extrapolated"] for entry in [*entries, single, *page["trials"], page["baseline"]]} == {outside}
    assert {entry["latency_error"] for entry in [*entries, single]} == {error}
    assert points["studies"][0]["float"]["extrapolated"] is outside
    lines = list(csv.DictReader(io.StringIO(csv_text(board(record)))))
    assert {line["extrapolated"] for line in lines} == {str(outside)}


def test_a_stored_latency_of_an_older_version_loses_its_error() -> None:
    old = asdict(evaluated(make_trial(0, 0.9)).measurement) | {"extrapolated": True, "latency_error": 0.0343}
    assert Measurement.from_dict(old).latency_error is None
    assert latency_words(Measurement.from_dict(old)) == f"modelled, {EXTRAPOLATED}"


def test_a_night_says_it_in_markdown_and_junit() -> None:
    words = latency_words(rough(evaluated(make_trial(0, 0.9)).measurement))
    check = Check(
        file="0123456789ab",
        metric="latency_ms",
        before=1.0,
        after=1.2,
        effect=0.2,
        p=0.0,
        certain=True,
        interval=(0.2, 0.2),
        note=words,
    )
    figures = FileFigures(
        trial=1,
        configuration={},
        sha256="0" * 64,
        artifact="x",
        file_bytes=1,
        download_bytes=1,
        accuracy=0.9,
        latency_ms=1.2,
        extrapolated=True,
    )
    cell = CellNight(cell="c", state="done", latency_source="modelled", front=(figures,), checks=(check,))
    night = Night(number=2, sweep="s", began="a", ended="b", accepted=1, cells=(cell,))
    found = summary.Findings(night=night, verdicts=verdicts(night, VerdictRules()), events=(), exit_code=1)
    assert EXTRAPOLATED in summary.junit(found)
    page = summary.markdown(found)
    assert f"done; latencies modelled, {EXTRAPOLATED}" in page
    assert page.count(EXTRAPOLATED) == 2
    assert summary.document(found)["cells"][0]["front"][0]["extrapolated"] is True
    assert FileFigures(**{k: v for k, v in asdict(figures).items() if k != "extrapolated"}).extrapolated is False


# Where layers run


def with_kernels(activations: str) -> StudyRecord:
    """A study whose knee has an 8-bit and a float depthwise layer."""
    layers = {"depthwise_conv_2d_0": LayerChoice(bits=8), "depthwise_conv_2d_1": LayerChoice(bits=32)}
    trial = make_trial(1, 0.91, 0.13, 20_000, configuration=Configuration(activations=activations, layers=layers))
    out = {"DEPTHWISE_CONV_2D": ((8, "float32"),)}
    return make_record(make_trial(0, 0.8), trial, kernels=DEPTHWISE, not_delegated=out, left_out="8-bit X: no price")


def test_the_report_says_where_each_layer_runs() -> None:
    dynamic, static = with_kernels("float32"), with_kernels("int8")
    outside = {"depthwise_conv_2d_0": BUILT_IN, "depthwise_conv_2d_1": DELEGATED}
    assert study_document.document(dynamic)["front"][0]["kernels"] == outside
    assert study_data(dynamic)["trials"][1]["kernels"] == outside
    assert set(study_document.document(static)["front"][0]["kernels"].values()) == {DELEGATED}
    assert "XNNPACK runs 1 of 2 layers; built-in kernel (not delegated): depthwise_conv_2d_0" in front(dynamic)
    assert "XNNPACK runs 2 of 2 layers" in front(static)
    assert "kernels" not in front(make_record(*ALL))
    assert dynamic.kernel_risk(evaluated(dynamic.trials[1]).configuration) == (1, 1)
    assert static.kernel_risk(evaluated(static.trials[1]).configuration) == (0, 1)
    assert "kernels 8-bit X: no price" in header(dynamic)


def test_the_card_says_where_each_layer_runs() -> None:
    found, text = card(with_kernels("float32"))
    assert found["layers"][0]["runs_on"] is None  # a layer that the configuration does not name
    assert text.count("not known") == 1
    named = [{**found["layers"][0], "name": "depthwise_conv_2d_0"}]
    record = with_kernels("float32")
    shipped = Shipped(model="a-1.tflite", files={}, layers=named, words={}, data_sha256=None, licence=None)
    again = model_card(record, record.trials[1], shipped)
    assert again["layers"][0]["runs_on"] == BUILT_IN
    assert BUILT_IN in markdown(record, record.trials[1], again)


def test_an_older_study_does_not_know_where_its_layers_run() -> None:
    assert study_document.document(make_record(*ALL))["front"][0]["kernels"] is None
