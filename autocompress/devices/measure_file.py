"""One file on one device: its latency there, its operators, and the metric under the kernels there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from autocompress.compression.download import download_bytes
from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate.quality import device_accuracy
from autocompress.latency.host.client import Host, local_host
from autocompress.latency.host.retry import WAIT_S, Say, silent
from autocompress.latency.model.predict import energy_mj, predict
from autocompress.latency.source import latency_on, patient_host, unknown
from autocompress.metrics import METRICS, get_metric
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.convert import is_converted, to_float_tflite
from autocompress.records.measurement import DeviceAccuracy, MeasuredFile, Measurement, OpProfile
from autocompress.specs import DeviceProfile
from autocompress.tasks import SignatureChoice, load_test_data
from autocompress.tasks.signatures import judged_signature, one_signature, ports_of
from autocompress.tasks.task import NOTHING


def measure_file(
    path: Path,
    profile: DeviceProfile,
    *,
    baseline: Path | None = None,
    processes: int = 5,
    accuracy: bool = False,
    data: Path | None = None,
    metric: str | None = None,
    meant: SignatureChoice = NOTHING,
    wait_s: float = WAIT_S,
    say: Say = silent,
) -> MeasuredFile:
    """What a network's file is worth on a device, measured on its host or, without one, modelled; with `baseline` also
    the ratio to that file; with `accuracy` also the `metric` on the test split of `data`; `meant`: of which output, and
    which signature of the file, which is then measured alone. A host that is away is waited
    for, at most `wait_s` seconds; `say` gets a line each time.

    AutocompressError for a file that is none or does not run there, for data or a metric that do not fit it, and for a
    device with neither host nor model; DeviceError where the host fails."""
    file, other = _read(path), None if baseline is None else _read(baseline)
    notes = list[str]()
    if accuracy or meant.signature is not None:
        file, left_out = _meant(path, file, meant)
        other = None if baseline is None or other is None else _meant(baseline, other, meant)[0]
        notes += [f"measured without the signatures {', '.join(left_out)}"] if left_out else []
    asked = _Accuracy(file, other, data, metric, meant.output) if accuracy else None
    judged = None
    if profile.host is None:
        measured, ops = _modelled(profile, file, other)
        judged = None if asked is None else asked.here()
    else:
        with patient_host(profile, wait_s=wait_s, say=say) as host:
            try:
                measured = host.measure(file, baseline=other, processes=processes)
                if asked is not None:
                    judged = host.during(lambda there: asked.on(there, profile.name))
            except CandidateError as fault:
                raise AutocompressError(f"the model does not run on '{profile.name}': {fault}") from fault
            ops = host.during(lambda there: there.profile(file))
    return MeasuredFile(
        model=path.name,
        baseline=None if baseline is None else baseline.name,
        device=profile.name,
        measurement=measured,
        file_bytes=len(file),
        download_bytes=download_bytes(file),
        profile=ops,
        energy_mj=None if measured.latency_ms is None else energy_mj(measured.latency_ms, profile),
        accuracy=judged,
        device_memory_bytes=profile.memory_bytes,
        notes=(*notes, *(() if asked is None else asked.notes)),
    )


def _read(path: Path) -> bytes:
    """A whole TFLite file, converted where it is a network of Keras or a SavedModel; AutocompressError, with its path,
    for anything else."""
    try:
        file = path.read_bytes() if path.is_file() and not is_converted(path) else to_float_tflite(path)
        flatbuffer.read(file)
    except OSError as fault:
        raise AutocompressError(f"model '{path}' cannot be read: {fault.strerror}") from fault
    except AutocompressError as fault:
        raise AutocompressError(f"{path}: {fault}") from fault
    return file


def _meant(path: Path, file: bytes, meant: SignatureChoice) -> tuple[bytes, tuple[str, ...]]:
    try:
        return one_signature(file, meant.signature)
    except AutocompressError as fault:
        raise AutocompressError(f"{path}: {fault}") from fault


def _modelled(profile: DeviceProfile, file: bytes, baseline: bytes | None) -> tuple[Measurement, OpProfile]:
    if profile.tells_flash:
        return _on_chip(profile, file, baseline)
    if profile.latency_model is None:
        return unknown(file, profile), OpProfile(
            ops=None, reason="the device has no latency model; add --host DEST to measure there"
        )
    measured = predict(file, profile.latency_model)
    if baseline is not None:
        ratio = measured.known_latency_ms / predict(baseline, profile.latency_model).known_latency_ms
        measured = replace(measured, ratio_to_baseline=ratio)
    return measured, OpProfile(ops=None, reason="the latency is modelled; add --host DEST to measure there")


def _on_chip(profile: DeviceProfile, file: bytes, baseline: bytes | None) -> tuple[Measurement, OpProfile]:
    """By the device's compiler, or what a microcontroller keeps of the file."""
    with latency_on(profile, needed=False) as latency:
        figures_of = latency.bind(file)
        try:
            found, other = (None if each is None else figures_of(each, 1) for each in (file, baseline))
        except CandidateError as fault:
            raise AutocompressError(f"the model does not run on '{profile.name}': {fault}") from fault
    assert found is not None
    if other is not None and other.latency_ms is not None:
        found = replace(found, ratio_to_baseline=found.known_latency_ms / other.latency_ms)
    return found, OpProfile(ops=None, reason="the device measures no operators")


class _Accuracy:
    """The question what a file is worth on test data. AutocompressError where data or metric do not fit it."""

    def __init__(
        self, file: bytes, baseline: bytes | None, data: Path | None, metric: str | None, output: str | None
    ) -> None:
        if data is None or metric is None:
            names = ", ".join(sorted(METRICS))
            raise AutocompressError(f"--accuracy needs --data FILE.npz and --metric, one of: {names}")
        self._file, self._metric = file, get_metric(metric)
        if baseline is None and not self._metric.needs_labels:
            raise AutocompressError("fidelity compares with another file; add --baseline FILE, the float .tflite")
        try:
            ports = ports_of(self._file)
            self._signature = judged_signature(self._file, self._metric, output)
        except CandidateError as fault:
            raise AutocompressError(f"--accuracy: on this machine {fault}; measure without it") from fault
        judged = self._signature.judged
        read = self._metric if judged is None else self._metric.read_as(self._signature.outputs[judged].kind)
        self._x, y, self.notes = load_test_data(data, read, ports.inputs, self._signature.judged_shape)
        self._arrays = [self._x[spec.name] for spec in ports.inputs]
        self._y: Any = self._signature.chosen(self._outputs_here(baseline)) if y is None and baseline is not None else y

    def on(self, there: Host, device: str) -> DeviceAccuracy:
        """The answer with the kernels of a device, and how these of this machine differ."""
        outputs = self._signature.of_file(there.outputs(self._file, self._arrays))
        return self._judge(outputs, device, self._outputs_here(self._file))

    def here(self) -> DeviceAccuracy:
        """The answer with the kernels of this machine alone."""
        try:
            return self._judge(self._outputs_here(self._file), "this machine (the device is modelled)", None)
        except CandidateError as fault:
            raise AutocompressError(f"--accuracy: {fault}; measure without it") from fault

    def _outputs_here(self, file: bytes) -> Any:
        try:
            with local_host("ai-edge-litert", 1) as own:  # in a process that may crash
                return self._signature.of_file(own.outputs(file, self._arrays))
        except CandidateError as fault:
            raise AutocompressError(f"--accuracy: on this machine {fault}; measure without it") from fault

    def _judge(self, outputs: Any, kernels: str, here: Any) -> DeviceAccuracy:
        return device_accuracy(
            self._metric, outputs, self._y, self._arrays[0], kernels=kernels, here=here, signature=self._signature
        )
