"""How far the memory that is estimated from a file lies from what its process takes on this machine.

python -m benchmarks.latency.memory FILE.tflite ..."""

from __future__ import annotations

import sys
from pathlib import Path

from autocompress.latency.model.memory import estimate_memory
from autocompress.latency.source import patient_host
from autocompress.records.measurement import RUNTIME_BYTES
from autocompress.specs import load_device


def main(paths: list[str]) -> None:
    """A line a file: measured (peak over an idle process) and estimated, the runtime's share added."""
    with patient_host(load_device("local")) as host:
        for path in map(Path, paths):
            model = path.read_bytes()
            measured = host.measure(model, processes=3).peak_memory_bytes
            estimated = estimate_memory(model).total_bytes + RUNTIME_BYTES
            if measured is not None:
                print(
                    f"{path.name}: measured {measured / 1e6:.1f} MB, estimated {estimated / 1e6:.1f} MB, "
                    f"ratio {estimated / measured:.2f}"
                )


if __name__ == "__main__":
    main(sys.argv[1:])
