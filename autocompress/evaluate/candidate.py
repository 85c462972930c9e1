"""A candidate: a configuration and the file that was built of it, with what the file alone tells."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from autocompress.compression.download import download_bytes
from autocompress.records.configuration import Configuration


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """`model` is the `.tflite`; `build_s` what solving and building it took. Hash and sizes are computed once."""

    configuration: Configuration
    model: bytes
    build_s: float

    @property
    def file_bytes(self) -> int:
        """The size of the file as it lies on flash."""
        return len(self.model)

    @cached_property
    def download_bytes(self) -> int:
        """The size of the file as a gzip."""
        return download_bytes(self.model)

    @cached_property
    def sha256(self) -> str:
        """What names the file."""
        return hashlib.sha256(self.model).hexdigest()
