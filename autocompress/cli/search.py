"""`autocompress search`: from a task, a device and a space to a front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli import screen
from autocompress.cli.finetune import finetune_best
from autocompress.cli.options import (
    DEFAULT_RUNS,
    HOST_WAIT,
    DeviceName,
    HostWait,
    Json,
    Output,
    Runs,
    SignatureKey,
    Storage,
    Waits,
    console_of,
    given_words,
    guarded,
    named,
    progress_console,
    seconds,
)
from autocompress.cli.study import show
from autocompress.cli.worker import worker_command
from autocompress.errors import unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from autocompress.records.study import StudyRecord
    from autocompress.search.study import Search
    from autocompress.search.workers.processes import WorkerProcesses


@guarded
def search(
    context: typer.Context,
    device: DeviceName,
    host: Annotated[
        str | None, typer.Option(help="Measure there: local, or user@name[:PYTHON] over ssh; instead of the profile's.")
    ] = None,
    host_wait: HostWait = HOST_WAIT,
    task: Annotated[str | None, typer.Option(help="digits, fashion-mnist or FILE.py[:ATTR]; default: digits.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="A .tflite, .keras, .h5 or SavedModel, with --data and --metric.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="An .npz with x_validation, y_validation, x_test, y_test, ...")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="accuracy, top-5, f1, macro-f1, recall, mean-iou, mae, roc-auc or fidelity.")
    ] = None,
    output: Output = None,
    signature: SignatureKey = None,
    space: Annotated[str, typer.Option(help="Search space: a name or a .yaml file.")] = "default",
    trials: Annotated[int | None, typer.Option(help="Complete trials the study shall hold; default 100.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Stop after this long: 90s, 10m, 2h.")] = None,
    until_flat: Annotated[
        bool, typer.Option("--until-flat", help="Stop when 20 trials in a row gained less than 0.5 % hypervolume.")
    ] = False,
    sampler: Annotated[str, typer.Option(help="guided, tpe, nsga2, random or gp.")] = "guided",
    objective: Annotated[
        list[str] | None, typer.Option(help="metric, latency, size, memory, energy, ram; may be repeated.")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help="As 'latency_ms<=8' or 'accuracy>=float - 1 point'; may be repeated.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="What size means: download (gzip), file, or flash, where the device has a compiler."),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Study name; the same name goes on where it stopped.")] = None,
    finetune: Annotated[
        int, typer.Option(help="Train so many of the front's best on, each at most 3 minutes.", min=0)
    ] = 0,
    runs: Runs = DEFAULT_RUNS,
    storage: Storage = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.", min=0)] = 0,
    processes: Annotated[
        int, typer.Option("--workers", help="Processes that search together; they share the cores.", min=1)
    ] = 1,
    as_json: Json = False,
) -> None:
    """Search the Pareto front of compressed networks for a task on a device."""
    screen.stage("reading the task %s", model or task or "digits")
    from autocompress.latency.host.client import at_host
    from autocompress.latency.source import latency_on
    from autocompress.records.constraint import parse_constraint
    from autocompress.records.front import front_of
    from autocompress.records.study import SIZES
    from autocompress.search.specification import (
        Budget,
        Provenance,
        Resources,
        Specification,
        default_size,
        objectives_for,
    )
    from autocompress.search.workers.processes import WorkerProcesses
    from autocompress.session import cores, open_search
    from autocompress.specs import load_device, load_space
    from autocompress.tasks import SignatureChoice, load_task

    profile, chosen = at_host(load_device(device), host), load_space(space)
    patience_s = seconds(host_wait, "--host-wait")
    compiled = profile.tells_flash
    limits = tuple(parse_constraint(text, compiled=compiled) for text in constraint or ())
    budget_s = None if time_budget is None else seconds(time_budget)
    counted = size or default_size(profile)
    if counted not in SIZES:
        raise unknown_name("size", counted, SIZES)
    loaded = load_task(task, model, data, metric, SignatureChoice(output=output, signature=signature))
    console = progress_console(as_json)
    resources = Resources(runs=runs, name=study, storage=storage, threads=max(1, cores() // processes))
    waits = Waits(console_of(stderr=as_json))
    with screen.unbroken(console), latency_on(profile, wait_s=patience_s, say=waits, needed=False) as latency:
        specification = Specification(
            task=loaded,
            profile=profile,
            space=chosen,
            latency_source=latency.source,
            sampler=sampler,
            seed=seed,
            objectives=objectives_for(latency.source, objective),
            size=counted,
            constraints=limits,
        )
        budget = Budget(trials=trials, time_budget_s=budget_s, until_flat=until_flat)
        provenance = Provenance(command=given_words(context), named=named(device=device, host=host, space=space))
        with open_search(specification, resources, latency, budget=budget, provenance=provenance) as opened:
            command = worker_command(opened, host_wait)
            with WorkerProcesses(command, processes - 1, resources.threads) as workers:
                second = None if screen.is_quiet() else latency.second_runtime(loaded.original)
                missed = _run(opened, workers, console, second, finetune)
                record = opened.record()
    show(record, console_of(stderr=as_json), runs, storage, as_json)
    if missed or not front_of(record).trials:
        raise typer.Exit(1)


def _run(opened: Search, workers: WorkerProcesses, console: Console, second_runtime: Any, finetune: int) -> bool:
    """Run an opened search with its header and progress on screen; True where what was asked for could not be done."""
    from rich.text import Text

    from autocompress.report import terminal

    budget, record = opened.budget, opened.record()
    terminal.print_header(
        console,
        record,
        layers=len(opened.choices),
        configurations_log10=_log10_size(opened),
        second_runtime=second_runtime,
    )
    if is_complete(record, budget.trials):
        console.print(complete_line(record))
        opened.run(lambda _: None)
        return finetune_best(opened, finetune, console)
    with terminal.SearchProgress(console, record, trials=budget.trials, time_budget_s=budget.time_budget_s) as progress:

        def on_trial(record: StudyRecord) -> None:
            progress.update(record)
            for line in workers.tend():
                console.print(Text(line, style="yellow"), soft_wrap=True)

        opened.run(on_trial)
    return finetune_best(opened, finetune, console)


def is_complete(record: StudyRecord, trials: int | None) -> bool:
    """Whether a study holds the complete trials that are asked for before it is searched."""
    from autocompress.records.front import complete

    return trials is not None and len(complete(record)) >= trials


def complete_line(record: StudyRecord) -> str:
    """What is said instead of a search: how to go on."""
    from autocompress.records.front import complete

    count = len(complete(record))
    return (
        f"study {record.name} is complete, with {count} trials; --trials {count + 100 if count >= 100 else 100} goes on"
    )


def _log10_size(opened: Search) -> float:
    import math

    counts = [len(opened.activations), *map(len, (*opened.choices.values(), *opened.widths.values()))]
    return sum(math.log10(count) for count in counts)
