"""`autocompress device ...`: the device profiles."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from autocompress.cli.calibrate import calibrate
from autocompress.cli.options import Json, guarded, print_json
from autocompress.cli.probe import probe

app = typer.Typer(no_args_is_help=True, help="The device profiles.")
app.command("calibrate")(calibrate)
app.command("probe")(probe)


@app.command("list")
@guarded
def device_list() -> None:
    """List the device profiles: your own ("yours") and those that come with autocompress."""
    from autocompress.specs import device_names, load_device, own_device_names

    names, own = device_names(), own_device_names()
    width = max(map(len, names))
    for name in names:
        profile = load_device(name)
        words = f"{_latency_words(profile)}{', yours' if name in own else ''}"
        typer.echo(f"{name:<{width}}  {words:<36}  {profile.description}")


def _latency_words(profile: Any) -> str:
    from autocompress.specs import CalibratedModel

    if isinstance(profile.latency_model, CalibratedModel):
        return "measured, calibrated" if profile.host is not None else "latency modelled, calibrated"
    if profile.compiler is not None:
        return "latency compiled"
    if profile.host is not None:
        return "latency measured"
    return "latency modelled" if profile.latency_model is not None else "needs a host"


@app.command("show")
@guarded
def device_show(
    device: Annotated[str, typer.Argument(help="Profile name or .yaml file.")], as_json: Json = False
) -> None:
    """Show a device profile, as a file: a copy of it is a profile of your own."""
    from dataclasses import asdict

    from autocompress.specs import device_yaml, load_device

    profile = load_device(device)
    if as_json:
        print_json(asdict(profile))
    else:
        typer.echo(device_yaml(profile), nl=False)
