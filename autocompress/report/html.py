"""Web pages that are one file: markup, style, plotly.js, our script and the data, with nothing to fetch.

Text of users (names of layers, tasks, studies) reaches a page in two ways only: through `html.escape` into markup, or
as JSON in a data block, from which the script takes it as text. The page's own policy allows the scripts written here,
by their SHA-256, and no others, and no connection anywhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any


def page(*, title: str, main: str, data: Any, script: str) -> str:
    """A whole page. `main` is the markup of its body, escaped already; `data` plain JSON data that `script` (a file of
    `report/assets`) finds in the block `data`."""
    scripts = [asset("plotly-cartesian.min.js"), asset("charts.js"), asset(script)]
    assert not any("</script" in code.lower() for code in scripts), "a script cannot hold the end of its element"
    return Template(asset("page.html")).substitute(
        title=html.escape(title),
        policy=html.escape(_policy(scripts)),
        style=asset("page.css"),
        main=main,
        data=json_block(data),
        scripts="\n".join(f"<script>{code}</script>" for code in scripts),
    )


def json_block(data: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def table(headers: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> str:
    """A table of text, escaped; a sentence where it is empty."""
    if not lines:
        return f"<p>{html.escape(caption)}: none.</p>"
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in headers)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return (
        f'<div class="scroll wrap" tabindex="0" role="region" aria-label="{html.escape(caption)}"><table>'
        f"<caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


@cache
def asset(name: str) -> str:
    """The text of a packaged file."""
    return (files("autocompress.report") / "assets" / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
