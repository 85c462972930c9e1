"""The leaderboard as one web page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from string import Template
from typing import Any

from autocompress.report import ship, study_document
from autocompress.report.html import asset, page, table
from autocompress.report.leaderboard import Group
from autocompress.report.leaderboard_text import group_title


def board_page(groups: Sequence[Group], board: Mapping[str, Any], *, written_s: float) -> str:
    """One self-contained HTML page. `board` is the document of the same groups; `written_s` is now, in seconds since
    the epoch."""
    left = [(item["what"], item["reason"]) for item in board["left_out"]]
    studies = sum(len(group["studies"]) for group in board["groups"])
    trials = sum(study["complete_trials"] for group in board["groups"] for study in group["studies"])
    main = Template(asset("leaderboard.html")).substitute(
        found=f"{studies} studies with {trials:,} complete trials, in {len(groups)} groups that can be compared.",
        ship=ship.section([(g["ship"], g["metric_scale"]) for g in board["groups"] if g["ship"]]),
        left=table(("what", "reason"), left, "Left out"),
        written=datetime.fromtimestamp(written_s, timezone.utc).strftime("%Y-%m-%d %H:%M"),
    )
    data = [
        found | {"title": group_title(found), "others": _others(group)}
        for group, found in zip(groups, board["groups"], strict=True)
    ]
    for found in data:
        found["front"] = [{k: v for k, v in point.items() if k != "configuration"} for point in found["front"]]
    return page(title="Leaderboard - autocompress", main=main, data={"groups": data}, script="leaderboard.js")


def _others(group: Group) -> list[dict[str, Any]]:
    """What the chart shows of the points that are on the front of their study only."""
    found: list[dict[str, Any]] = study_document.as_json(
        [
            {
                "study": point.record.name,
                "trial": point.trial.number,
                "accuracy": point.evaluation.accuracy,
                "latency_ms": point.evaluation.measurement.latency_ms,
                "file_bytes": point.evaluation.file_bytes,
                "download_bytes": point.evaluation.download_bytes,
            }
            for point in group.others
        ]
    )
    return found
