"""`autocompress device probe`: what a device is and which kernels it has, as a profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli.options import Json, console_of, guarded, print_json
from autocompress.errors import unknown_name
from autocompress.records.kernels import BUILT_IN, DELEGATED

if TYPE_CHECKING:
    from autocompress.devices.probe import KernelTrial, Probed

_FACTS = (
    "board",
    "cpu",
    "cpu_features",
    "machine",
    "system",
    "python",
    "os_bits",
    "cores",
    "memory_bytes",
    "memory_available_bytes",
    "governor",
    "clock_mhz",
    "temperature_c",
    "throttled",
    "load_average",
)


@guarded
def probe(
    destination: Annotated[str, typer.Argument(help="local, or user@name[:PYTHON] over ssh.")],
    name: Annotated[str, typer.Option(help="Name of the profile.")] = "probed",
    runtime: Annotated[
        str | None, typer.Option(help="ai-edge-litert or tflite-runtime; default: the first that loads there.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Default: all cores there.", min=1, max=256)] = None,
    as_json: Json = False,
) -> None:
    """Log in to a device, read what it is, try every kernel there and write a ready profile.

    The profile goes to your own profiles ($XDG_CONFIG_HOME/autocompress/device_profiles, by default below ~/.config); a
    former one of that name is kept as NAME.yaml.bak."""
    from autocompress.devices.probe import probe as run
    from autocompress.latency.host.agent import RUNTIMES
    from autocompress.latency.host.ssh import host_of
    from autocompress.specs import check_device_name, save_device

    if runtime is not None and runtime not in RUNTIMES:
        raise unknown_name("runtime", runtime, RUNTIMES)
    host = host_of(destination)
    console = console_of(stderr=True)

    def said(trial: KernelTrial) -> None:
        console.print(_line(trial), soft_wrap=True)

    found = run(check_device_name(name), host, runtime=runtime, threads=threads, on_kernel=said)
    path = save_device(found.profile)
    if as_json:
        print_json(_document(found, path))
    else:
        _show(found, path)


def _line(trial: KernelTrial) -> str:
    what = f"{trial.op} {trial.bits} bits, {trial.activations} activations: "
    if trial.fault:
        return what + f"left out, {trial.fault}"
    where = "" if trial.delegated is None else f", {DELEGATED if trial.delegated else BUILT_IN}"
    return what + f"{trial.latency_ms:.3f} ms ({trial.times_float:.2f} times float), off by {trial.error:.2%}{where}"


def _show(found: Probed, path: Path) -> None:
    console, facts = console_of(), found.facts
    for key in _FACTS:
        if facts.get(key) not in (None, [], ""):
            console.print(f"{key}: {facts[key]}", soft_wrap=True)
    for runtime, report in facts["runtimes"].items():
        console.print(f"{runtime}: {report.get('version', 'does not load')}", soft_wrap=True)
    working = sum(trial.fault is None for trial in found.kernels)
    profile = found.profile
    console.print(f"{working} of {len(found.kernels)} kernels work with {profile.runtime.name}", soft_wrap=True)
    console.print(f"Profile: {path}", soft_wrap=True)
    console.print(f"Next:    autocompress search --device {profile.name}", soft_wrap=True)


def _document(found: Probed, path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    kernels = [asdict(trial) for trial in found.kernels]
    for kernel in kernels:  # JSON has no infinity
        kernel["error"] = kernel["error"] if kernel["error"] != float("inf") else None
    facts = {key: found.facts.get(key) for key in _FACTS} | {"runtimes": found.facts["runtimes"]}
    return {"schema": 1, "profile": str(path), "device": found.profile.name, "facts": facts, "kernels": kernels}
