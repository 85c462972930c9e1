"""`autocompress measure`: one file on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import screen
from autocompress.cli.options import (
    HOST_WAIT,
    DeviceName,
    HostWait,
    Json,
    Output,
    SignatureKey,
    Waits,
    console_of,
    guarded,
    print_json,
    seconds,
)


@guarded
def measure(
    model: Annotated[
        Path, typer.Argument(help="A .tflite, float or quantized; a .keras, .h5 or SavedModel is converted.")
    ],
    device: DeviceName,
    host: Annotated[
        str | None, typer.Option(help="Measure there: local, or user@name[:PYTHON] over ssh; instead of the profile's.")
    ] = None,
    host_wait: HostWait = HOST_WAIT,
    baseline: Annotated[Path | None, typer.Option(help="A .tflite that is measured in turn: the ratio to it.")] = None,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Also the metric under the device's own kernels; needs --data, --metric.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="An .npz with x_test, y_test, ...")] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="accuracy, top-5, f1, macro-f1, recall, mean-iou, mae, roc-auc or fidelity (to --baseline)."),
    ] = None,
    output: Output = None,
    signature: SignatureKey = None,
    processes: Annotated[int, typer.Option(help="Fresh processes of a measurement.", min=1, max=100)] = 5,
    as_json: Json = False,
) -> None:
    """Measure one network on a device: latency and its distribution, operators, memory, load time, environment."""
    screen.stage("measuring %s", model)
    from autocompress.devices.measure_file import measure_file
    from autocompress.latency.host.client import at_host
    from autocompress.report.measurement import document, print_measurement
    from autocompress.specs import load_device
    from autocompress.tasks import SignatureChoice

    profile, wait_s = at_host(load_device(device), host), seconds(host_wait, "--host-wait")
    found = measure_file(
        model,
        profile,
        baseline=baseline,
        processes=processes,
        accuracy=accuracy,
        data=data,
        metric=metric,
        meant=SignatureChoice(output=output, signature=signature),
        wait_s=wait_s,
        say=Waits(console_of(stderr=True)),
    )
    if as_json:
        print_json(document(found))
    else:
        print_measurement(console_of(), found)
