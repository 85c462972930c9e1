"""The files of candidates on disk: stored under their SHA-256, whole or not there, and read back unchanged."""

from __future__ import annotations

import os
from pathlib import Path

from autocompress.errors import AutocompressError
from autocompress.evaluate.candidate import Candidate
from autocompress.files import unchanged, write_whole
from autocompress.records.study import Evaluation


class ArtifactStore:
    """A study's folder of `.tflite` files; evaluations name them relative to `runs`."""

    def __init__(self, folder: Path, runs: Path) -> None:
        self._folder, self._runs = folder, runs

    def store(self, candidate: Candidate) -> str:
        """Write a candidate's file, if it is not there yet; its path relative to the runs folder."""
        path = self._folder / f"{candidate.sha256}.tflite"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, candidate.model)
        return os.path.relpath(path, self._runs)

    def read(self, evaluation: Evaluation) -> bytes:
        """The file of a stored candidate; AutocompressError where it is missing or another one by now."""
        path = self._runs / evaluation.artifact
        content = unchanged(path, evaluation.sha256)
        if content is None:
            raise AutocompressError(f"the file of a candidate is missing or changed: {path}; start a new study")
        return content
