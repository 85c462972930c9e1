"""`autocompress finetune`: train one candidate of a study on, and what `search --finetune` does with the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli.options import (
    DEFAULT_RUNS,
    HOST_WAIT,
    HostWait,
    Json,
    Runs,
    Storage,
    Waits,
    console_of,
    guarded,
    seconds,
)
from autocompress.cli.study import show
from autocompress.errors import AutocompressError

if TYPE_CHECKING:
    from rich.console import Console

    from autocompress.finetune.recipe import Progress, Recipe
    from autocompress.search.finetuned import Train
    from autocompress.search.study import Search
    from autocompress.tasks import LoadedTask

_SAY_EVERY_S = 10.0


@guarded
def finetune(
    study: Annotated[str, typer.Argument(help="Study name.")],
    trial: Annotated[int, typer.Option(help="Number of the trial to train on.", min=0)],
    time_budget: Annotated[str, typer.Option(help="Train at most this long, earlier runs included: 90s, 3m.")] = "3m",
    epochs: Annotated[
        int,
        typer.Option(help="Go through the training data at most so often: on a busy machine the same result, later."),
    ] = 60,
    loss: Annotated[str, typer.Option(help="distillation (from the float network), labels or both.")] = "distillation",
    temperature: Annotated[float, typer.Option(help="Of the distillation (arXiv 1503.02531).", min=0.1)] = 4.0,
    learning_rate: Annotated[float, typer.Option(help="A step's size, relative to a layer's weights.")] = 0.01,
    batch: Annotated[int, typer.Option(help="Samples a step; fewer where memory asks for it.", min=1)] = 32,
    assignments: Annotated[
        str, typer.Option(help="free, or fixed: train the shared centroids alone (arXiv 1510.00149).")
    ] = "free",
    mask: Annotated[str, typer.Option(help="fixed, or free: pruned weights may come back for others.")] = "fixed",
    augment: Annotated[
        str, typer.Option(help="Vary the training inputs: mirror and shift (images), mix (two of any kind), by commas.")
    ] = "",
    sparsity: Annotated[
        float | None, typer.Option(help="Prune gradually while training, until so many of all weights are 0: 0.9.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Measure there instead: local, or user@name[:PYTHON].")] = None,
    host_wait: HostWait = HOST_WAIT,
    runs: Runs = DEFAULT_RUNS,
    storage: Storage = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of the training data.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Train a candidate on, within its configuration or towards one with more zeros; the result is a trial of its
    own."""
    from autocompress.finetune.recipe import Recipe
    from autocompress.search.finetuned import finetune_trial
    from autocompress.session import reopen

    recipe = Recipe(
        loss=loss,
        temperature=temperature,
        learning_rate=learning_rate,
        assignments=assignments,
        mask=mask,
        batch=batch,
        epochs=epochs,
        budget_s=seconds(time_budget),
        seed=seed,
        augment=tuple(name.strip() for name in augment.split(",") if name.strip()),
    )
    console = console_of(stderr=as_json)
    wait_s = seconds(host_wait, "--host-wait")
    with reopen(study, runs, storage, host=host, host_wait_s=wait_s, say=Waits(console)) as opened:
        with _bar(console, f"trial {trial}") as watch:
            found = finetune_trial(opened, trial, trainer(opened.specification.task, recipe, watch, sparsity))
        record = opened.finish()
        _say_result(console, opened, trial, found.number)
        show(record, console, runs, storage, as_json)
    if found.state == "failed":
        raise typer.Exit(1)


def finetune_best(opened: Search, count: int, console: Console) -> bool:
    """Train the best of the front on; True where what was asked for could not be done, which is said."""
    from autocompress.finetune.recipe import Recipe
    from autocompress.search.finetuned import finetune_trial, worth_training

    missed = False
    for number in worth_training(opened, count) if count else []:
        try:
            with _bar(console, f"trial {number}") as watch:
                found = finetune_trial(opened, number, trainer(opened.specification.task, Recipe(), watch))
        except AutocompressError as fault:  # the search is done and stays
            console.print(f"not fine-tuned: {fault}", style="yellow", markup=False, soft_wrap=True)
            return True
        opened.finish()
        missed = missed or found.state == "failed"
        _say_result(console, opened, number, found.number)
    return missed


def trainer(
    task: LoadedTask, recipe: Recipe, watch: Callable[[Progress], None], sparsity: float | None = None
) -> Train:
    """Trains candidates of a task on its training data, pruning on the way until `sparsity` of all weights are 0."""
    from autocompress.finetune.recipe import Lesson, check_recipe
    from autocompress.finetune.schedule import sparser
    from autocompress.search.finetuned import Trained

    def train(configuration: Any, material: Any, path: Path) -> Trained:
        if task.train is None:
            raise AutocompressError(
                f"task '{task.name}' has no training data; fine-tuning needs x_train, inputs as the network takes them "
                "(in the .npz or in the Task); y_train is not needed"
            )
        x, y = task.train()
        check_recipe(recipe, y is not None, rises=sparsity is not None)
        towards = configuration
        if sparsity is not None:
            towards = sparser(configuration, material.layers, material.float_weights, sparsity)
        from autocompress.finetune.train import finetune as run

        tuned = run(
            material.network,
            material.layers,
            configuration,
            material.solved,
            Lesson(x=x, y=y),
            task.metric,
            recipe,
            ranges=material.ranges,
            path=path,
            watch=watch,
            teacher=material.teacher,
            towards=towards,
            signature=task.signature,
        )
        facts = {
            "loss": recipe.loss,
            "temperature": recipe.temperature,
            "assignments": recipe.assignments,
            "mask": recipe.mask,
            "sparsity": sparsity,
            "augment": list(recipe.augment),
            "learning_rate": recipe.learning_rate,
            "batch": recipe.batch,
            "seed": recipe.seed,
            "steps": tuned.steps,
            "epochs": tuned.epochs,
            "seconds": tuned.seconds,
            "loss_before": tuned.loss_before,
            "loss_after": tuned.loss_after,
        }
        return Trained(configuration=towards, layers=tuned.layers, facts=facts)

    return train


@contextmanager
def _bar(console: Console, name: str) -> Iterator[Callable[[Any], None]]:
    """A progress bar on a terminal, elsewhere a line every ten seconds."""
    import time

    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("fine-tuning {task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task, said_s = bar.add_task(name, total=1.0), time.monotonic()

        def watch(now: Progress) -> None:
            nonlocal said_s
            best = "still pruning" if now.best_loss is None else f"{now.best_loss:.4g}"
            text = f"{name} · step {now.steps} · held-out loss {now.first_loss:.4g} -> {best}"
            bar.update(task, completed=now.share, description=text)
            if not console.is_terminal and time.monotonic() - said_s > _SAY_EVERY_S:
                said_s = time.monotonic()
                console.print(f"fine-tuning {text} · {100 * now.share:.0f} %", soft_wrap=True)

        yield watch


def _say_result(console: Console, opened: Search, parent: int, number: int) -> None:
    """What the training changed, on validation data."""
    from autocompress.report.units import score

    record = opened.record()
    trials, scale = {trial.number: trial for trial in record.trials}, record.metric_scale
    before, after = trials[parent].evaluation, trials[number].evaluation
    if after is None or before is None:
        text = f"trial {number}: fine-tuning of trial {parent} failed: {trials[number].reason}"
    else:
        text = (
            f"trial {number}: trial {parent} fine-tuned, {opened.specification.task.metric.name} "
            f"{score(before.accuracy, scale)} -> {score(after.accuracy, scale)} on validation data, download "
            f"{before.download_bytes:,} -> {after.download_bytes:,} B"
        )
    console.print(text, style="yellow" if after is None else None, markup=False, soft_wrap=True)
