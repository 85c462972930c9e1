"""A real browser for tests: Debian's Chromium, headless, without a network."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tests.builders.edge_host import unavailable
from tests.builders.network_data import UnavailableError, apt

PATIENCE_MS = 180_000  # a busy machine loads a page of 5 MB slowly


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; installed where that is possible and it is missing, else the test is skipped with the reason, with
    CI=true it fails."""
    try:
        if shutil.which("chromium") is None and os.geteuid() == 0:
            apt("install", "-y", "--no-install-recommends", "chromium", "fonts-dejavu-core")
    except UnavailableError as reason:
        unavailable(str(reason))
    found = shutil.which("chromium")
    if found is None:
        unavailable("no Chromium on this machine; apt-get install chromium")
    with sync_playwright() as playwright:
        # As root it has no sandbox, and a container's /dev/shm is small.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:
    """The page of a file once its script is through. At the end: nothing was said on the console, no error was raised
    and nothing was fetched."""
    settings: dict[str, Any] = {"offline": True, "viewport": {"width": 1200, "height": 900}}
    context = browser.new_context(**settings | options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda request: said.append(f"fetched {request.url}") if _is_fetched(request.url) else None)
    page.goto(file.resolve().as_uri())
    page.wait_for_selector("html[data-ready=true]", state="attached")
    yield page
    context.close()
    assert said == [], said


def text_of(locator: Locator) -> str:
    """All text in an element, shown or not."""
    return locator.text_content() or ""


def _is_fetched(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))
