"""What a microcontroller keeps of a file: flash, the file itself, and RAM, the arena that TensorFlow Lite Micro takes.

No latency is known: a board would have to be measured. A file that the runtime refuses is a failed candidate."""

from __future__ import annotations

from autocompress.errors import AutocompressError
from autocompress.latency.source import Latency
from autocompress.network.graph.kernel_pattern import kernel_pattern
from autocompress.network.tflite.micro import PACKAGE, MicroRun, is_installed, run_drawn
from autocompress.records.measurement import Measurement


def micro_memory() -> Latency:
    """Flash and RAM of a file; files of one kernel pattern share their arena. AutocompressError where the runtime is
    not installed, CandidateError for a file that it refuses."""
    if not is_installed():
        raise AutocompressError(f"the runtime {PACKAGE} is not installed; run: pip install 'autocompress[mcu]'")
    runs: dict[str, MicroRun] = {}

    def known(file: bytes, _: int) -> Measurement:
        pattern = kernel_pattern(file)
        if pattern not in runs:
            runs[pattern] = run_drawn(file)
        return Measurement(
            latency_ms=None,
            latency_source="none",
            flash_bytes=len(file),
            ram_bytes=runs[pattern].arena_bytes,
            runtime=PACKAGE,
            runtime_version=runs[pattern].version,
        )

    return known
