"""`autocompress device calibrate`: measures a device and stores a latency model of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli.options import HOST_WAIT, HostWait, Json, Waits, console_of, guarded, print_json, seconds

if TYPE_CHECKING:
    from autocompress.devices.calibrate import Calibration
    from autocompress.specs import DeviceProfile


@guarded
def calibrate(
    device: Annotated[str, typer.Argument(help="Profile name or .yaml file to calibrate.")],
    host: Annotated[
        str | None, typer.Option("--host", help="Where to measure: local or user@name; default: the profile's host.")
    ] = None,
    host_wait: HostWait = HOST_WAIT,
    save_as: Annotated[
        str | None, typer.Option("--as", help="Name of the calibrated profile; default: the profile's own.")
    ] = None,
    share: Annotated[
        float,
        typer.Option("--share", help="Part of the designed set to measure, in (0, 1]: less is sooner and rougher."),
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Measure a designed set of networks on a device and store a latency model of it in your own profile.

    Takes about six minutes. The profile goes to $XDG_CONFIG_HOME/autocompress/device_profiles (by default below
    ~/.config) and is found by name from then on, before the one that comes with autocompress; a former one of yours is
    kept as NAME.yaml.bak."""
    from autocompress.devices.calibrate import calibrate as run
    from autocompress.specs import save_device

    profile, wait_s = _profile(device, host, save_as), seconds(host_wait, "--host-wait")
    try:
        with _progress(profile.name) as on_progress:
            say = Waits(console_of(stderr=True))
            found = run(profile, share=share, on_progress=on_progress, wait_s=wait_s, say=say)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was stored, the same command starts anew", err=True)
        raise typer.Exit(130) from None
    sources = {
        **profile.sources,
        "latency_model": f"measured there with `device calibrate`, {len(found.samples)} files",
    }
    path = save_device(replace(profile, latency_model=found.model, sources=sources))
    if as_json:
        print_json(_document(profile.name, path, found))
    else:
        _show(profile.name, path, found)


def _profile(device: str, host: str | None, name: str | None) -> DeviceProfile:
    """The profile to calibrate, at the host and under the name asked for."""
    from autocompress.latency.host.client import at_host
    from autocompress.specs import check_device_name, load_device

    profile = at_host(load_device(device), host)
    return profile if name is None else replace(profile, name=check_device_name(name))


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A line that says how far the measuring is, on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console_of(stderr=True), transient=True)
    task = progress.add_task(f"measuring {name}", total=None)

    def update(done: int, total: int) -> None:
        progress.start()  # not before: a fault in what was asked for is one line
        progress.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        if progress.live.is_started:
            progress.stop()


def _show(name: str, path: Path, found: Calibration) -> None:
    """The cross-validated errors by kind of design and dtype, and where the profile lies."""
    from rich.table import Table

    console, model = console_of(), found.model
    runtime = (
        f"{model.runtime.name} {model.runtime.version}, {model.runtime.threads} threads, {model.runtime.os_bits} bits"
    )
    table = Table(title=f"{name}: errors on designs left out of the fit, median / 90th percentile (files)")
    table.add_column("designed for")
    for dtype in model.cross_validation:
        table.add_column(dtype, justify="right")
    for kind in found.kinds:
        table.add_row(kind, *(_error(found.error_of(dtype, kind)) for dtype in model.cross_validation))
    table.add_section()
    table.add_row("all", *map(_error, model.cross_validation.values()))
    console.print(table)
    for line in found.refused:
        console.print(f"not measured: {line}", soft_wrap=True)
    files = len(found.samples)
    console.print(f"{files} files in {found.wall_s:.0f} s ({runtime}); stored in {path}", soft_wrap=True)


def _error(each: Any) -> str:
    return "-" if each is None else f"{each.median:.1%} / {each.p90:.1%} ({each.files})"


def _document(name: str, path: Path, found: Calibration) -> dict[str, Any]:
    return {
        "schema": 1,
        "device": name,
        "profile": str(path),
        "files": len(found.samples),
        "wall_s": found.wall_s,
        "refused": list(found.refused),
        "runtime": asdict(found.model.runtime),
        "cross_validation": {dtype: asdict(each) for dtype, each in found.model.cross_validation.items()},
    }
