"""The command line: arguments in, one call, exit code out. Whatever is heavy is imported inside the handlers."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from autocompress.errors import AutocompressError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from autocompress.records import StudyRecord
    from autocompress.search.study import Search

app = typer.Typer(
    name="autocompress", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Search per-layer sparsity, bit-width and cluster count; get the Pareto front as verified .tflite files.",
)  # fmt: skip
device_app = typer.Typer(no_args_is_help=True, help="The device profiles.")
app.add_typer(device_app, name="device")

P = ParamSpec("P")
Runs = Annotated[Path, typer.Option("--runs", help="Folder of all studies.")]
Storage = Annotated[
    str | None, typer.Option("--storage", help="Optuna storage URL; default: SQLite in the study's folder.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
_DEFAULT_RUNS = Path("runs")


def _guarded(handler: Callable[P, None]) -> Callable[P, None]:
    """Errors that are the user's or the device's become one line and their exit code; Ctrl-C becomes 130."""

    @functools.wraps(handler)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            handler(*args, **kwargs)
        except AutocompressError as fault:
            typer.echo(f"error: {fault}", err=True)
            raise typer.Exit(fault.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; the study is whole, the same command goes on with it", err=True)
            raise typer.Exit(130) from None

    return guarded


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from autocompress import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
@_guarded
def search(
    device: Annotated[
        str, typer.Option(help="Device profile: a name (see: autocompress device list) or a .yaml file.")
    ],
    task: Annotated[str | None, typer.Option(help="digits, fashion-mnist or FILE.py[:ATTR]; default: digits.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="A .tflite, .keras, .h5 or SavedModel, with --data and --metric.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="An .npz with x_validation, y_validation, x_test, y_test, ...")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="accuracy, top-5, macro-f1, recall, mae, roc-auc or fidelity.")
    ] = None,
    space: Annotated[str, typer.Option(help="Search space: a name or a .yaml file.")] = "default",
    trials: Annotated[int | None, typer.Option(help="Complete trials the study shall hold; default 100.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Stop after this long: 90s, 10m, 2h.")] = None,
    sampler: Annotated[str, typer.Option(help="tpe, nsga2, random or gp.")] = "tpe",
    objective: Annotated[
        list[str] | None, typer.Option(help="metric, latency, size, memory, energy; may be repeated.")
    ] = None,
    constraint: Annotated[list[str] | None, typer.Option(help="As 'latency_ms<=8'; may be repeated.")] = None,
    size: Annotated[str, typer.Option(help="What size means: download (gzip) or file.")] = "download",
    study: Annotated[str | None, typer.Option(help="Study name; the same name goes on where it stopped.")] = None,
    runs: Runs = _DEFAULT_RUNS,
    storage: Storage = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Search the Pareto front of compressed networks for a task on a device."""
    from autocompress.search.latency import latency_on
    from autocompress.search.request import Request, with_limits
    from autocompress.search.store import parse_constraint
    from autocompress.search.study import Search
    from autocompress.specs import load_device, load_space
    from autocompress.tasks import load_task

    profile, chosen = load_device(device), load_space(space)
    limits = tuple(parse_constraint(text) for text in constraint or ())
    budget = None if time_budget is None else seconds(time_budget)
    if size not in ("download", "file"):
        raise unknown_name("size", size, ("download", "file"))
    loaded = load_task(task, model, data, metric)
    with latency_on(profile) as latency:
        request = with_limits(
            Request(
                task=loaded,
                profile=profile,
                space=chosen,
                latency_source=latency.source,
                runs=runs,
                sampler=sampler,
                seed=seed,
                name=study,
                storage=storage,
                trials=trials,
                time_budget_s=budget,
                objectives=tuple(objective or ("metric", "latency", "size")),
                size=size,
                constraints=limits,
                threads=_cores(),
            )
        )
        with Search(request, latency.bind(loaded.original)) as opened:
            _run(opened, as_json, latency.second_runtime(loaded.original))


def _run(opened: Search, as_json: bool, second_runtime: Any) -> None:
    """Run an opened search with its header, progress and front on screen."""
    from autocompress.report import rows, terminal

    request, console = opened.request, _console(stderr=as_json)
    record = opened.record()
    terminal.print_header(
        console, record, layers=len(opened.choices), configurations_log10=_log10_size(opened),
        second_runtime=second_runtime,
    )  # fmt: skip
    with terminal.SearchProgress(
        console, record, trials=request.trials, time_budget_s=request.time_budget_s
    ) as progress:
        record = opened.run(progress.update)
    _show(record, console, request.runs, request.storage, as_json)
    if not rows.front(record):
        raise typer.Exit(1)


def _show(record: StudyRecord, console: Console, runs: Path, storage: str | None, as_json: bool) -> None:
    from autocompress.report import rows, terminal

    if as_json:
        _print_json(rows.document(record))
        return
    options = [] if runs == _DEFAULT_RUNS else ["--runs", str(runs)]
    options += [] if storage is None else ["--storage", storage]
    terminal.print_front(console, record, runs=str(runs), options=options)


def _log10_size(opened: Search) -> float:
    import math

    counts = [len(opened.activations), *(len(row) for row in opened.choices.values())]
    return sum(math.log10(count) for count in counts)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _print_json(document: Any) -> None:
    import json

    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def seconds(text: str) -> float:
    """Seconds of `90s`, `10m`, `1h30m` or a bare number of seconds; AutocompressError for anything else."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise AutocompressError(f"time budget '{text}' is no duration; write it as 90s, 10m or 1h30m")
    return sum(float(number) * units[unit] for number, unit in parts)


@app.command()
@_guarded
def report(
    study: Annotated[str, typer.Argument(help="Study name.")],
    runs: Runs = _DEFAULT_RUNS,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show a study's front."""
    from autocompress.search.store import load_study, read_record

    record = read_record(load_study(runs, study, storage))
    _show(record, _console(stderr=as_json), runs, storage, as_json)


@app.command()
@_guarded
def export(
    study: Annotated[str, typer.Argument(help="Study name.")],
    pick: Annotated[str, typer.Option(help="knee, fastest, smallest, best or a trial number.")] = "knee",
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
    runs: Runs = _DEFAULT_RUNS,
    storage: Storage = None,
) -> None:
    """Write one candidate of a study: the .tflite, its .gz for download, and a JSON card."""
    from autocompress.report import rows
    from autocompress.search.export import write_export
    from autocompress.search.store import load_study, read_record

    record = read_record(load_study(runs, study, storage))
    trial = rows.pick(record, pick)
    for path in write_export(record, trial, runs, out):
        typer.echo(str(path))


@device_app.command("list")
@_guarded
def device_list() -> None:
    """List the device profiles that come with autocompress."""
    from autocompress.specs import device_names, load_device

    width = max(map(len, device_names()))
    for name in device_names():
        profile = load_device(name)
        typer.echo(f"{name:<{width}}  {_latency_words(profile):<22}  {profile.description}")


def _latency_words(profile: Any) -> str:
    if profile.host is not None:
        return "latency measured"
    return "latency modelled" if profile.latency_model is not None else "needs a host"


@device_app.command("show")
@_guarded
def device_show(
    device: Annotated[str, typer.Argument(help="Profile name or .yaml file.")], as_json: Json = False
) -> None:
    """Show a device profile."""
    from dataclasses import asdict

    from autocompress.specs import load_device

    profile = asdict(load_device(device))
    if as_json:
        _print_json(profile)
        return
    import yaml

    typer.echo(yaml.safe_dump(_plain(profile), sort_keys=False, allow_unicode=True).rstrip())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """The console script."""
    app(prog_name="autocompress")


if __name__ == "__main__":
    main()
