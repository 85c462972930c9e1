"""The page of a study in a real browser: hover, click, filter, keyboard, phone, both colour schemes, hostile names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from autocompress.errors import AutocompressError
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.front import Front, complete, evaluated
from autocompress.records.measurement import Environment
from autocompress.records.study import Importance, SearchRun, StudyRecord
from autocompress.report.html import json_block
from autocompress.report.html_study import repeat_command, study_data, study_page
from autocompress.report.progress import hypervolume_steps
from tests.builders.browser import chromium, opened, text_of
from tests.builders.hostile import EVIL
from tests.builders.records import ALL, make_record, make_trial

Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def written(folder: Path, record: StudyRecord, **more: Any) -> Path:
    file = folder / "page.html"
    file.write_text(study_page(record, written_s=0.0, **more), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bargain = Importance(layer="conv_2d_1", technique="bits", value=4, saves_bytes=900.0, costs=0.01)
    narrower = Importance(
        layer="conv_2d_0",
        technique="channels",
        value=8,
        of=32,
        used=False,
        saves_bytes=700.0,
        costs=0.02,
        saves_latency_ms=0.125,
        sensitivity=0.03,
        table_sensitivity=0.05,
        trials=4,
    )
    return written(tmp_path_factory.mktemp("modelled"), make_record(*ALL, importance=(bargain, narrower)))


def hostile() -> StudyRecord:
    layers = {EVIL: LayerChoice(bits=8), "conv_2d_1": LayerChoice(sparsity=0.5, bits=4, clusters=8)}
    baseline = replace(make_record().baseline, configuration=Configuration(layers=dict.fromkeys(layers, LayerChoice())))
    changes: dict[str, Any] = {
        "configuration": Configuration(activations="int8", layers=layers),
        "latency_source": "measured",
        "samples_ms": ((0.2, 0.3, 0.25), (0.21, 0.2)),
    }
    trials = [make_trial(n, 0.9 + n / 100, 0.2 + n / 10, 30_000, **changes) for n in range(2)]
    failed = make_trial(2, state="failed", reason=EVIL)
    run = SearchRun(command=("autocompress", "search", "--task", EVIL), user=EVIL, host=EVIL, started_s=0.0)
    bargain = Importance(layer=EVIL, technique="bits", value=8, saves_bytes=100.0, costs=0.01)
    return make_record(
        *trials,
        failed,
        task=EVIL,
        name=EVIL,
        metric_name=EVIL,
        baseline=baseline,
        notes=(EVIL,),
        runs=(run,),
        importance=(bargain,),
        versions={EVIL: EVIL},
        hashes={EVIL: EVIL},
    )


def point_at(page: Page, number: int) -> tuple[float, float]:
    """Where on the screen the mark of a trial is."""
    page.locator("#pareto").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """(n) => { const plot = byId("pareto"), box = plot.getBoundingClientRect(), full = plot._fullLayout;
        const t = trials.get(n); return [box.x + full.xaxis._offset + full.xaxis.d2p(t[byId("x").value]),
        box.y + full.yaxis._offset + full.yaxis.d2p(t[byId("y").value])]; }""",
        number,
    )
    return x, y


def test_hover_shows_the_configuration(browser: Browser, modelled: Path) -> None:
    with opened(browser, modelled) as page:
        page.mouse.move(*point_at(page, 0))
        label = page.locator(".hoverlayer .hovertext").first
        label.wait_for()
        for words in ("trial 0", "int8 · 8b×1 4b×1 · 0-50 % zeros · 8 cl", "modelled ± 3.4 %", "10,000"):
            assert words in text_of(label)


def test_click_shows_the_layer_table(browser: Browser, modelled: Path) -> None:
    with opened(browser, modelled) as page:
        assert text_of(page.locator("#point-h")) == "Layers of trial 1"  # the knee
        page.mouse.click(*point_at(page, 2))
        assert text_of(page.locator("#point-h")) == "Layers of trial 2"
        lines = [row.locator("td").all_text_contents() for row in page.locator("#point tbody tr").all()]
        assert lines == [["conv_2d_0", "0", "-", "8", "all levels"], ["conv_2d_1", "0.5", "element", "4", "8"]]
        assert text_of(page.locator("#trials tr[aria-current=true] button")) == "2"


def test_channels_that_a_trial_lost_stand_in_its_table_and_on_the_map(browser: Browser, tmp_path: Path) -> None:
    layers = {name: LayerChoice(bits=8) for name in ("conv_2d_0", "conv_2d_1")}
    narrow = Configuration(layers=layers, channels={EVIL: 8})
    trials = [
        make_trial(0, 0.92, 0.3, 30_000, configuration=Configuration(layers=layers)),
        make_trial(1, 0.91, 0.2, 20_000, configuration=narrow),
    ]
    with opened(browser, written(tmp_path, make_record(*trials))) as page:
        for trial, width in ((0, "all"), (1, "8")):
            page.locator(f"#trials button[data-trial='{trial}']").click()
            assert page.locator("#point-body table").nth(1).locator("td").all_text_contents() == [EVIL, width]
        page.select_option("#technique", "channels")
        assert page.evaluate("byId('heatmap').data[0].z") == [[None, 8]]
        assert page.locator("#heat-table tbody td").all_text_contents() == [EVIL, "-", "8"]
        assert page.locator("img").count() == 0


def test_filters_change_chart_and_table_alike(browser: Browser, modelled: Path) -> None:
    record = make_record(*ALL)
    accurate = [t for t, e in complete(record) if e.accuracy >= 0.9]
    with opened(browser, modelled) as page:
        counted = "byId('pareto').data.slice(0, 2).reduce((sum, trace) => sum + trace.x.length, 0)"
        page.fill("#bound", "")
        assert page.locator("#trials tbody tr").count() == page.evaluate(counted) == len(complete(record))
        page.fill("#bound", "0.9")
        assert page.locator("#trials tbody tr").count() == page.evaluate(counted) == len(accurate)
        page.fill("#bound", "")
        page.check("#with-float")
        assert page.evaluate("byId('pareto').data[2].x") == [make_record().baseline.download_bytes]
        page.check("#only-front")
        assert page.locator("#trials tbody tr").count() == page.evaluate(counted) == len(Front(record).trials)
        page.fill("#contains", "16b")
        assert page.locator("#trials tbody tr").count() == page.evaluate(counted) == 0
        assert text_of(page.locator("#shown")).startswith("0 of ")


def test_any_two_objectives_and_a_colour(browser: Browser, modelled: Path) -> None:
    with opened(browser, modelled) as page:
        page.select_option("#x", "latency_ms")
        page.select_option("#y", "file_bytes")
        page.select_option("#colour", "accuracy")
        drawn = page.evaluate(
            "() => { const d = byId('pareto'); return [d.layout.xaxis.title.text, d.layout.yaxis.title.text, "
            "d.data[1].x, d.data[1].y, d.data[1].marker.color]; }"
        )
    front = [e for e in map(evaluated, Front(make_record(*ALL)).trials) if e.accuracy >= 0.819]
    order = sorted(front, key=lambda e: e.sha256)
    assert drawn[:2] == ["latency, ms (modelled ± 3.4 %)", "file, bytes"]
    points = sorted(zip(*drawn[2:], strict=True))
    assert points == sorted((e.measurement.latency_ms, e.file_bytes, e.accuracy) for e in order)


def test_everything_by_keyboard(browser: Browser, modelled: Path) -> None:
    with opened(browser, modelled) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.trial") == "3":
                break
        page.keyboard.press("Enter")
        assert text_of(page.locator("#point-h")) == "Layers of trial 3"
        assert page.evaluate("document.activeElement.id") == "point-h"
        page.locator("#trials thead button").nth(4).focus()
        page.keyboard.press("Enter")
        sizes = [int(t.replace(",", "")) for t in page.locator("#trials tbody td:nth-child(5)").all_text_contents()]
        assert sizes == sorted(sizes)
        assert page.locator("#trials th[aria-sort=ascending]").count() == 1
        assert page.evaluate("document.activeElement.closest('th') !== null")  # the focus stays


def test_what_users_name_stays_text(browser: Browser, tmp_path: Path) -> None:
    document = {
        "ops": [
            {
                "kernel": EVIL,
                "kind": "builtin",
                "index": 0,
                "op": EVIL,
                "layer": EVIL,
                "median_us": 1.0,
                "mean_us": 1.0,
                "share": 1.0,
            }
        ],
        "ops_note": EVIL,
        "device": EVIL,
        "runtime": EVIL,
    }
    record = hostile()
    document["model"] = f"{evaluated(record.trials[0]).sha256}.tflite"
    with opened(browser, written(tmp_path, record, ops=[document], options=["--runs", EVIL])) as page:
        page.wait_for_timeout(200)
        assert page.evaluate("window.hit") is None
        assert page.locator("img").count() == 0
        assert text_of(page.locator("h1")) == EVIL
        assert text_of(page.locator("#point tbody td").first) == EVIL
        assert text_of(page.locator("#heat-table tbody td").first) == EVIL
        assert EVIL in page.evaluate("byId('heatmap').querySelector('.yaxislayer-above').textContent")
        page.select_option("#x", "accuracy")
        assert EVIL in text_of(page.locator("#pareto .xtitle"))
        assert page.evaluate("document.querySelectorAll('script').length") == 4  # plotly, two of ours, the data


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


text = st.text() | st.sampled_from([EVIL, "<!--", "<![CDATA[", "</SCRIPT >", "\u2028"])


@given(st.dictionaries(text, text | st.lists(text)))
@settings(deadline=None)
def test_a_json_block_is_its_data_and_ends_where_it_ends(value: dict[str, Any]) -> None:
    block = json_block(value)
    assert json.loads(block) == value
    tags = Tags()
    tags.feed(f'<script type="application/json">{block}</script><p>')
    assert tags.found == ["script", "p"]
    assert "<!--" not in block


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_never_scrolls_sideways(browser: Browser, modelled: Path, width: int) -> None:
    phone = {"viewport": {"width": width, "height": 700}, "is_mobile": True, "has_touch": True}
    with opened(browser, modelled, **phone) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("Math.max(...[...document.querySelectorAll('.plot')].map((p) => p.scrollWidth))") <= width
        page.touchscreen.tap(*point_at(page, 2))
        assert text_of(page.locator("#point-h")) == "Layers of trial 2"


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, WCAG 2.2."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_colour_schemes(browser: Browser, modelled: Path, scheme: Scheme) -> None:
    with opened(browser, modelled, color_scheme=scheme) as page:
        shades = {name: page.evaluate(f"shade('--{name}')") for name in ("text", "soft", "accent", "back", "panel")}
        other: Scheme = "light" if scheme == "dark" else "dark"
        assert page.evaluate("byId('pareto').layout.paper_bgcolor") == shades["back"]
        page.emulate_media(color_scheme=other)
        page.wait_for_function("(before) => byId('pareto').layout.paper_bgcolor !== before", arg=shades["back"])
    for above in ("text", "soft", "accent"):
        for below in ("back", "panel"):
            light, dark = sorted((luminance(shades[above]), luminance(shades[below])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (above, below)


def test_landmarks_labels_and_text_alternatives(browser: Browser, modelled: Path) -> None:
    with opened(browser, modelled) as page:
        assert [page.locator(name).count() for name in ("h1", "header", "main", "footer", "nav")] == [1] * 5
        unlabelled = "[...document.querySelectorAll('select, input')].filter((f) => f.labels.length === 0).length"
        assert page.evaluate(unlabelled) == 0
        unnamed = "[...document.querySelectorAll('.plot')].filter((p) => !p.getAttribute('aria-label')).length"
        assert page.evaluate(unnamed) == 0
        assert page.locator("table").count() == page.locator("table caption").count()
        assert page.evaluate("document.documentElement.lang") == "en"


def test_what_groups_of_channels_save_stands_beside_layers(browser: Browser, modelled: Path) -> None:
    with opened(browser, modelled) as page:
        lines = [row.locator("td").all_text_contents() for row in page.locator("#importance-table tbody tr").all()]
        assert lines[0] == ["conv_2d_1", "bits", "4", "900", "-", "0.01", "-", "-", "-"]
        assert lines[1] == ["conv_2d_0", "channels", "8 of 32 (next)", "700", "0.125", "0.02", "0.05", "0.03", "4"]
        assert page.evaluate("byId('bargains').data.map((t) => t.name)") == ["bits", "channels"]
        assert page.evaluate("byId('bargains').data[1].marker.symbol") == ["diamond-open"]
        assert "faster: 8 of 32 channels of conv_2d_0" in text_of(page.locator("#importance"))


def test_modelled_is_said_and_nothing_is_made_up(browser: Browser, modelled: Path) -> None:
    with opened(browser, modelled) as page:
        assert "modelled" in text_of(page.locator("#latency-body"))
        assert "measures no single operators" in text_of(page.locator("#ops-body"))
        assert "modelled ± 3.4 %" in text_of(page.locator("header"))
        page.locator("details").last.locator("summary").click()
        assert "no kernel for int4 CONV_2D" in text_of(page.locator("#provenance"))


def test_measured_latencies_operators_and_the_device(browser: Browser, tmp_path: Path) -> None:
    there = Environment(machine="aarch64", python="3.11", cpu="Cortex-A72", temperature_c=(48.0, 52.5))
    baseline = make_record().baseline
    measured = replace(
        baseline.measurement, environment=there, latency_source="measured", samples_ms=((0.4, 0.5, 0.6),)
    )
    trial = make_trial(0, 0.9, 0.2, 30_000, latency_source="measured", samples_ms=((0.1, 0.2, 0.3), (0.2, 0.4)))
    record = make_record(trial, baseline=replace(baseline, measurement=measured), latency_source="measured")
    op = {
        "kernel": "Convolution (NHWC, F32) IGEMM",
        "kind": "delegate",
        "index": 3,
        "op": "CONV_2D",
        "layer": "conv_2d_1",
        "median_us": 7.0,
        "mean_us": 7.5,
        "share": 1.0,
    }
    document = {
        "model": f"{evaluated(trial).sha256}.tflite",
        "ops": [op],
        "device": "rpi4",
        "runtime": "ai-edge-litert",
    }
    with opened(browser, written(tmp_path, record, ops=[document])) as page:
        lines = [row.locator("td").all_text_contents() for row in page.locator("#latency-table tbody tr").all()]
        assert lines == [["float", "1", "3", "0.5", "0.4", "0.6"], ["trial 0", "2", "5", "0.25", "0.1", "0.4"]]
        assert text_of(page.locator("#ops-body tbody td").first) == "3 conv_2d_1"
        assert page.locator("#ops-0 .bars path").count() == 1
        assert "48.0 -> 52.5" in text_of(page.locator("#provenance"))


def test_a_study_without_a_front_is_a_page_too(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, make_record(make_trial(0, state="failed", reason="no kernel")))) as page:
        assert "The front is empty: none of 1 trials is complete" in text_of(page.locator("header"))


def test_operators_of_another_file_are_refused() -> None:
    with pytest.raises(AutocompressError, match=r"'x\.tflite' is no file of study 'a'"):
        study_data(make_record(*ALL), ops=[{"model": "x.tflite"}])


def test_the_command_to_repeat_is_the_given_one_else_what_the_study_says() -> None:
    run = SearchRun(command=("autocompress", "search", "--data", "my data.npz"), user="a", host="b", started_s=0.0)
    assert repeat_command(make_record(runs=(replace(run, command=()), run)), []) == (
        "autocompress search --data 'my data.npz'"
    )
    assert repeat_command(make_record(*ALL), ["--runs", "r"]) == (
        "autocompress search --device rpi4 --task fashion-mnist --space default --sampler tpe --seed 1 --trials 6 "
        "--study a --runs r"
    )


values = st.tuples(st.integers(0, 4).map(lambda v: 0.9 + v / 50), st.integers(1, 4), st.integers(1, 4))


@given(st.lists(values, max_size=10), st.booleans(), st.sampled_from([None, 1, 3]))
@settings(deadline=None)
def test_steps_are_the_hypervolumes_of_the_trials_so_far(
    points: list[tuple[float, int, int]], higher: bool, most: int | None
) -> None:
    trials = [make_trial(n, a, 0.1 * lat, 20_000 * size) for n, (a, lat, size) in enumerate(points)]
    record = make_record(*trials, higher_is_better=higher)
    steps = hypervolume_steps(record, most)
    so_far = [Front(replace(record, trials=tuple(trials[: n + 1]))).hypervolume for n in range(len(trials))]
    assert [step.hypervolume for step in steps] == pytest.approx([so_far[step.number] for step in steps])
    if most is None:
        changed = {n for n, volume in enumerate(so_far) if volume != (so_far[n - 1] if n else 0.0)}
        assert changed <= {step.number for step in steps}
    else:
        assert len(steps) <= most
    assert not trials or steps[-1].number == len(trials) - 1
    assert hypervolume_steps(make_record()) == ()


def test_evaluations_without_an_axis_value_are_left_out_of_that_chart_only() -> None:
    known = make_trial(0, 0.9, 0.2, 30_000, peak_memory_bytes=1000)
    data = study_data(make_record(known, make_trial(1, 0.8)))
    assert [a["name"] for a in data["axes"]] == [
        "accuracy",
        "latency_ms",
        "download_bytes",
        "file_bytes",
        "peak_memory_bytes",
    ]
    assert [t["peak_memory_bytes"] for t in data["trials"]] == [1000, None]
