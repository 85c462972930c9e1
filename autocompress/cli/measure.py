"""`autocompress measure`: one file on one device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli.terms import Json, console_of, guarded, print_json
from autocompress.errors import AutocompressError, CandidateError

if TYPE_CHECKING:
    from autocompress.measure.host import Host
    from autocompress.metrics import Metric
    from autocompress.records import DeviceAccuracy, Measurement, OpProfile
    from autocompress.specs import DeviceProfile


@guarded
def measure(
    model: Annotated[Path, typer.Argument(help="The .tflite file, float or quantized.")],
    device: Annotated[
        str, typer.Option(help="Device profile: a name (see: autocompress device list) or a .yaml file.")
    ],
    host: Annotated[
        str | None, typer.Option(help="Measure there: local, or user@name[:PYTHON] over ssh; instead of the profile's.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="A .tflite that is measured in turn: the ratio to it.")] = None,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Also the metric under the device's own kernels; needs --data, --metric.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="An .npz with x_test, y_test, ...")] = None,
    metric: Annotated[
        str | None, typer.Option(help="accuracy, top-5, macro-f1, recall, mae, roc-auc or fidelity (to --baseline).")
    ] = None,
    processes: Annotated[int, typer.Option(help="Fresh processes of a measurement.", min=1, max=100)] = 5,
    as_json: Json = False,
) -> None:
    """Measure one .tflite on a device: latency and its distribution, operators, memory, load time, environment."""
    from autocompress.measure.host import at_host
    from autocompress.report.measurement import document, print_measurement
    from autocompress.specs import load_device

    profile, file = at_host(load_device(device), host), _read(model)
    other = None if baseline is None else _read(baseline)
    asked = _Accuracy(file, other, data, metric) if accuracy else None
    if profile.host is None:
        measured, ops = _modelled(profile, file, other)
        judged = None if asked is None else asked.here()
    else:
        measured, ops, judged = _measured(profile, file, other, processes, asked)
    found = _found(model, profile, measured, ops, file)
    found = replace(
        found, baseline=baseline and baseline.name, accuracy=judged, notes=() if asked is None else tuple(asked.notes)
    )
    if as_json:
        print_json(document(found))
    else:
        print_measurement(console_of(), found)


def _found(path: Path, profile: DeviceProfile, measured: Measurement, ops: OpProfile, file: bytes) -> Any:
    from autocompress.compress.build import download_bytes
    from autocompress.measure.predict import energy_mj
    from autocompress.records import MeasuredFile

    return MeasuredFile(
        model=path.name,
        device=profile.name,
        measurement=measured,
        file_bytes=len(file),
        download_bytes=download_bytes(file),
        profile=ops,
        energy_mj=energy_mj(measured.latency_ms, profile),
    )


def _read(path: Path) -> bytes:
    """A whole TFLite file; AutocompressError, with its path, for anything else."""
    from autocompress.network import flatbuffer

    if not path.is_file():
        raise AutocompressError(f"model '{path}' is no file; give a .tflite")
    try:
        file = path.read_bytes()
        flatbuffer.read(file)
    except OSError as fault:
        raise AutocompressError(f"model '{path}' cannot be read: {fault.strerror}") from fault
    except AutocompressError as fault:
        raise AutocompressError(f"{path}: {fault}") from fault
    return file


def _modelled(profile: DeviceProfile, file: bytes, baseline: bytes | None) -> tuple[Measurement, OpProfile]:
    from autocompress.measure.predict import predict
    from autocompress.records import OpProfile

    if profile.latency_model is None:
        raise AutocompressError(
            f"device '{profile.name}' has no latency model and no host; add --host DEST to measure there"
        )
    measured = predict(file, profile.latency_model)
    if baseline is not None:
        ratio = measured.latency_ms / predict(baseline, profile.latency_model).latency_ms
        measured = replace(measured, ratio_to_baseline=ratio)
    return measured, OpProfile(ops=None, reason="the latency is modelled; add --host DEST to measure there")


def _measured(
    profile: DeviceProfile, file: bytes, baseline: bytes | None, processes: int, asked: _Accuracy | None
) -> tuple[Measurement, OpProfile, DeviceAccuracy | None]:
    from autocompress.measure.host import profile_host

    def waiting(line: str) -> None:
        typer.echo(line, err=True)

    with profile_host(profile, waiting) as there:
        try:
            measured = there.measure(file, baseline=baseline, processes=processes)
            judged = None if asked is None else asked.on(there, profile.name)
        except CandidateError as fault:
            raise AutocompressError(f"the model does not run on '{profile.name}': {fault}") from fault
        return measured, there.profile(file), judged


class _Accuracy:
    """The question what the file is worth on test data. AutocompressError where data or metric do not fit it."""

    def __init__(self, file: bytes, baseline: bytes | None, data: Path | None, metric: str | None) -> None:
        from autocompress.metrics import METRICS, get_metric
        from autocompress.network.run import Runner
        from autocompress.tasks import load_test_data

        if data is None or metric is None:
            names = ", ".join(sorted(METRICS))
            raise AutocompressError(f"--accuracy needs --data FILE.npz and --metric, one of: {names}")
        self._file, self._metric = file, get_metric(metric)
        if baseline is None and not self._metric.needs_labels:
            raise AutocompressError("fidelity compares with another file; add --baseline FILE, the float .tflite")
        try:
            runner = Runner(file)
        except CandidateError as fault:
            raise AutocompressError(f"--accuracy: on this machine {fault}; measure without it") from fault
        self._x, y, self.notes = load_test_data(data, self._metric, runner.inputs, runner.outputs[0].shape)
        self._arrays = [self._x[spec.name] for spec in runner.inputs]
        self._y: Any = self._outputs_here(baseline) if y is None and baseline is not None else y

    def on(self, there: Host, device: str) -> DeviceAccuracy:
        """The answer with the kernels of a device, and how these of this machine differ."""
        outputs = there.outputs(self._file, self._arrays)[0]
        return self._judge(outputs, device, self._outputs_here(self._file))

    def here(self) -> DeviceAccuracy:
        """The answer with the kernels of this machine alone."""
        return self._judge(self._outputs_here(self._file), "this machine (the device is modelled)", None)

    def _outputs_here(self, file: bytes) -> Any:
        from autocompress.measure.host import local_host

        try:
            with local_host("ai-edge-litert", 1) as own:  # in a process that may crash
                return own.outputs(file, self._arrays)[0]
        except CandidateError as fault:
            raise AutocompressError(f"--accuracy: on this machine {fault}; measure without it") from fault

    def _judge(self, outputs: Any, kernels: str, here: Any) -> DeviceAccuracy:
        from autocompress.measure.accuracy import device_accuracy

        metric: Metric = self._metric
        return device_accuracy(metric, outputs, self._y, self._arrays[0], kernels=kernels, here=here)
