"""The leaderboard's page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from autocompress.records.study import SearchRun
from autocompress.report.leaderboard import groups_of
from autocompress.report.leaderboard_html import board_page
from autocompress.report.leaderboard_text import document
from tests.builders.browser import chromium, opened, text_of
from tests.builders.hostile import EVIL
from tests.builders.records import ALL, make_record, make_trial


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies that can be compared, one of another device with hostile names, and one that was left out."""
    dated = [replace(trial, finished_s=86_400.0 * trial.number) for trial in ALL]
    run = SearchRun(command=("autocompress",), user=EVIL, host="h", started_s=0.0)
    records = [
        make_record(*dated, name="a", device="a"),
        make_record(make_trial(0, 0.9, 0.05, 9_000), name="b", device="a"),
        make_record(*ALL, name=EVIL, task=f"z{EVIL}", device="z", metric_name=EVIL, runs=(run,), versions={EVIL: EVIL}),
    ]
    groups = groups_of(records)
    file = tmp_path_factory.mktemp("site") / "index.html"
    page = board_page(groups, document(groups, [(EVIL, EVIL)]), written_s=0.0)
    file.write_text(page, encoding="utf-8")
    return file


def hover(page: Page, trace: int) -> str:
    """What the chart says of the first mark of a trace."""
    page.locator("#pareto").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """(k) => { const plot = byId("pareto"), box = plot.getBoundingClientRect(), trace = plot.data[k];
        const { xaxis, yaxis } = plot._fullLayout;
        return [box.x + xaxis._offset + xaxis.d2p(trace.x[0]), box.y + yaxis._offset + yaxis.d2p(trace.y[0])]; }""",
        trace,
    )
    page.mouse.move(x, y)
    label = page.locator(".hoverlayer .hovertext").first
    label.wait_for()
    return label.text_content() or ""


def test_it_shows_front_best_studies_and_what_is_left_out(browser: Browser, site: Path) -> None:
    with opened(browser, site) as page:
        assert page.locator("#groups tbody tr").count() == 2
        assert page.locator("#front-table tbody tr").count() == 3
        ranks = [row.locator("td").all_text_contents()[:2] for row in page.locator("#studies-table tbody tr").all()]
        assert ranks == [["1", "b"], ["2", "a"]]
        smallest = page.locator("#best-table tbody tr", has_text="smallest").locator("td").all_text_contents()
        assert smallest[2] == "a, trial 1"
        assert "×0.07" in smallest[6]
        assert page.locator("#nights-table tbody tr").count() == 6
        assert EVIL in text_of(page.locator("#left td").first)
        links = page.evaluate("[...document.querySelectorAll('footer a')].map((a) => a.getAttribute('href'))")
        assert links == ["leaderboard.json", "leaderboard.csv", "nights.csv", "leaderboard.md"]
        assert "modelled" in text_of(page.locator("#pareto .xaxislayer-above, #front-table").last)
        said = hover(page, 1)
        assert "a, trial 2" in said
        assert "modelled" in said


def test_filters_axes_and_another_group(browser: Browser, site: Path) -> None:
    with opened(browser, site) as page:
        page.select_option("#only", "b")
        assert page.locator("#front-table tbody tr").count() == 1
        page.select_option("#x", "latency_ms")
        assert page.evaluate("byId('pareto').data[1].x") == [0.05]
        page.select_option("#over", "trial")
        assert page.evaluate("byId('volume').data.map((t) => t.name)") == ["b", "a"]
        page.locator("#groups tbody button").nth(1).focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "best-h"
        assert page.locator("#front-table tbody tr").count() == 4


def test_what_users_name_stays_text(browser: Browser, site: Path) -> None:
    with opened(browser, site) as page:
        page.locator("#groups tbody button").nth(1).click()
        assert EVIL in text_of(page.locator("#best-h"))
        assert EVIL in hover(page, 1)
        assert page.evaluate("window.hit") is None
        assert page.locator("img").count() == 0
        assert EVIL in text_of(page.locator("#studies-table"))
        assert EVIL in text_of(page.locator("#pareto .ytitle"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_never_scrolls_sideways(browser: Browser, site: Path, scheme: str) -> None:
    phone = {"viewport": {"width": 360, "height": 700}, "is_mobile": True, "has_touch": True, "color_scheme": scheme}
    with opened(browser, site, **phone) as page:
        page.wait_for_function("byId('volume').data !== undefined")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("Math.max(...[...document.querySelectorAll('.plot')].map((p) => p.scrollWidth))") <= 360
        assert page.evaluate("byId('volume').layout.paper_bgcolor") == page.evaluate("shade('--back')")


def test_a_board_without_a_study_is_a_page_too(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(board_page((), document((), [("x", "no database")]), written_s=0.0), encoding="utf-8")
    with opened(browser, file) as page:
        assert "no database" in text_of(page.locator("#left"))
