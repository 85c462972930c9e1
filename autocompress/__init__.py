"""Search per-layer sparsity, bit-width and cluster count; return the Pareto front as verified `.tflite` files.

The Python interface (`autocompress.open_study`, `task`, `device`, `compress`, `measure`, ...) is described in
docs/python.md. It is imported when it is first used: `import autocompress` itself loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from autocompress.api import (
        AutocompressError,
        Compressed,
        DeviceError,
        DeviceProfile,
        Front,
        Latency,
        LoadedTask,
        SearchSpace,
        Study,
        StudyView,
        Task,
        Trial,
        UnmetError,
        compress,
        device,
        measure,
        open_study,
        read_study,
        register_device_kind,
        register_metric,
        register_sampler,
        space,
        task,
    )

__all__ = [
    "AutocompressError",
    "Compressed",
    "DeviceError",
    "DeviceProfile",
    "Front",
    "Latency",
    "LoadedTask",
    "SearchSpace",
    "Study",
    "StudyView",
    "Task",
    "Trial",
    "UnmetError",
    "compress",
    "device",
    "measure",
    "open_study",
    "read_study",
    "register_device_kind",
    "register_metric",
    "register_sampler",
    "space",
    "task",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'autocompress' has no attribute '{name}'")
    from autocompress import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
