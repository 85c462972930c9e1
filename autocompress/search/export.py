"""Writing one candidate out for deployment."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from autocompress.compress.download import compressed
from autocompress.errors import AutocompressError
from autocompress.files import write_whole
from autocompress.records import StudyRecord, TrialRecord
from autocompress.report import rows


def write_export(record: StudyRecord, trial: TrialRecord, runs: Path, folder: Path) -> tuple[Path, Path, Path]:
    """Write the candidate's `.tflite`, the very `.tflite.gz` that `download_bytes` counts and the JSON card into
    `folder`,
    each to a temporary name first. AutocompressError where the stored file is gone or changed or `folder` cannot be
    written."""
    assert trial.evaluation is not None
    source = runs / trial.evaluation.artifact
    if not source.is_file():
        raise AutocompressError(f"the candidate's file is missing: {source}; run the search again under a new name")
    model = source.read_bytes()
    if hashlib.sha256(model).hexdigest() != trial.evaluation.sha256:
        raise AutocompressError(f"the candidate's file has changed since it was measured: {source}; do not ship it")
    stem = f"{record.name}-{trial.number}"
    card = json.dumps(rows.card(record, trial), indent=2, allow_nan=False).encode() + b"\n"
    parts = {f"{stem}.tflite": model, f"{stem}.tflite.gz": compressed(model), f"{stem}.json": card}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in parts.items():
            write_whole(folder / name, content)
    except OSError as fault:
        raise AutocompressError(
            f"cannot write into {folder}: {fault.strerror}; give another folder with --out"
        ) from fault
    return tuple(folder / name for name in parts)  # type: ignore[return-value]
