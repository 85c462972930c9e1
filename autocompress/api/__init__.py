"""The Python interface: tasks, devices, studies, single configurations and measurements as functions and objects.

Everything here is reached as `autocompress.NAME`; the package imports this room when it is first asked for."""

from autocompress.api.functions import (
    device,
    measure,
    open_study,
    read_study,
    space,
    task,
)
from autocompress.api.one_configuration import Compressed, compress
from autocompress.api.results import Front, Latency, StudyView, Trial
from autocompress.api.study import Study
from autocompress.errors import AutocompressError, DeviceError, UnmetError
from autocompress.latency.source import register_device_kind
from autocompress.metrics import register_metric
from autocompress.search.sampler.stock import register_sampler
from autocompress.specs import DeviceProfile, SearchSpace
from autocompress.tasks import LoadedTask, Task

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
