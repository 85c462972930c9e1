"""The training loop: distillation steps under the constraints, looks at held-out data, the best state at the end."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.compression.reconstruct import SolvedLayer
from autocompress.errors import AutocompressError, CandidateError
from autocompress.finetune import checkpoint, losses
from autocompress.finetune.batches import HELD_OUT_BATCH, Batches, samples_trained_on
from autocompress.finetune.checkpoint import State
from autocompress.finetune.heads import Heads
from autocompress.finetune.memory import available_bytes, fitting_batch, out_of_memory_told
from autocompress.finetune.networks import Ranges, Student, Teacher
from autocompress.finetune.promises import check_kept
from autocompress.finetune.recipe import Lesson, Progress, Recipe, Tuned, Watch, check_recipe
from autocompress.finetune.schedule import RISES_UNTIL
from autocompress.metrics import Metric
from autocompress.network.graph.layers import Layer
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.outputs import FIRST, Signature
from autocompress.records.configuration import Configuration

Array = np.ndarray[Any, Any]
_LOOKS = 12  # at the held-out data, over the whole plan
_PATIENCE = 9  # looks in a row without a better loss
_WARM_UP = 0.05  # of the plan: the learning rate rises
_MASK_EVERY = 50  # steps, a mask that may move follows the weights
_SAVE_EVERY_S = 15.0
_RESERVED = 0.03  # of the budget, for the last look


def finetune(
    network: bytes,
    layers: Sequence[Layer],
    configuration: Configuration,
    start: Sequence[SolvedLayer],
    lesson: Lesson,
    metric: Metric,
    recipe: Recipe,
    *,
    ranges: Ranges | None,
    path: Path,
    watch: Watch,
    teacher: bytes | None = None,
    towards: Configuration | None = None,
    signature: Signature = FIRST,
) -> Tuned:
    """Train the layers of a candidate of `network` (float) on, from `start`, within what its configuration allows.

    `teacher`: the float network whose outputs are the aim, where it is not `network` itself but the one that this is
    narrower than. `towards`: the configuration with more zeros (`schedule.sparser`) that the result is to hold; they
    come gradually, and the best state is looked for once all are there. `signature`: the outputs, all of which are
    trained, and which of them the labels are for.

    `path`: where the state is kept while it runs; a state that is there already is gone on with. `ranges`: those of
    static activations, None for float ones. AutocompressError where the network or the data do not allow it;
    CandidateError where the loss becomes NaN: the best state before is kept at `path`, and what comes next starts
    from it; and where memory runs out, which what was kept last is gone on from."""
    with out_of_memory_told():
        return _Training(
            network,
            layers,
            configuration,
            start,
            lesson,
            metric,
            recipe,
            ranges,
            path,
            teacher or network,
            towards or configuration,
            signature,
        ).run(watch)


class _Training:
    def __init__(
        self,
        network: bytes,
        layers: Sequence[Layer],
        configuration: Configuration,
        start: Sequence[SolvedLayer],
        lesson: Lesson,
        metric: Metric,
        recipe: Recipe,
        ranges: Ranges | None,
        path: Path,
        teacher: bytes,
        towards: Configuration,
        signature: Signature,
    ) -> None:
        self._began_s = time.monotonic()
        self._towards, self._rises = towards, towards != configuration
        check_recipe(recipe, lesson.y is not None, rises=self._rises)
        graph = read_graph(network)
        heads = Heads(graph, metric, signature)
        _check_head(heads.judged, recipe, metric)
        self._layers, self._configuration, self._start = layers, configuration, start
        self._recipe, self._path = recipe, path
        batch = min(recipe.batch, samples_trained_on(lesson))
        batch = fitting_batch(graph, lesson.samples, batch, available_bytes())
        whole = read_graph(teacher)
        taught = Teacher(whole, Heads(whole, metric, signature).ends, list(lesson.x.values()), HELD_OUT_BATCH)
        self._batches = Batches(
            lesson, taught, recipe, batch, classes=heads.columns if heads.judged.kind == "classes" else None
        )
        self._student = Student(
            graph,
            layers,
            configuration,
            start,
            ends=heads.ends,
            fixed=recipe.assignments == "fixed",
            free_mask=recipe.mask == "free",
            ranges=ranges,
            towards=towards,
        )
        self._loss = heads.loss(recipe, metric)
        self._make_steps()
        self._resume(_key(network + teacher, (configuration, towards), start, recipe))

    def _make_steps(self) -> None:
        import tensorflow as tf
        import tf_keras

        student, loss_of = self._student, self._loss
        self._optimizer = tf_keras.optimizers.Adam(self._recipe.learning_rate)
        self._optimizer.build(student.variables)

        def step(x: Any, teacher: Any, labels: Any) -> Any:
            put = student.put()
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(loss_of(student.outputs(x), teacher, labels))
            gradients = student.gradients(tape, loss, put)
            self._optimizer.apply_gradients(zip(gradients, student.variables, strict=True))
            return loss

        self._step = tf.function(step, reduce_retracing=True, autograph=False)
        self._look = tf.function(
            lambda x, t, y: loss_of(student.outputs(x), t, y), reduce_retracing=True, autograph=False
        )

    def _resume(self, key: str) -> None:
        self._state = checkpoint.load(self._path, key) or State(key=key)
        if self._state.values:
            checkpoint.assign(self._student.state, self._state.values)
        if self._state.moments:
            checkpoint.assign(self._optimizer.variables, self._state.moments)
        self._elapsed_before_s = self._state.elapsed_s

    def run(self, watch: Watch) -> Tuned:
        state = self._state
        if not math.isfinite(state.first_loss):
            state.first_loss = self._held_out_loss()
        if not state.best and not self._rises:
            state.best_loss, state.best = state.first_loss, checkpoint.values_of(self._student.state)
        if not state.steps:
            state.began_s = self._elapsed_s()  # what it took to get ready is no part of the schedule
        self._saved_s = time.monotonic()
        while not self._finished():
            self._train_on(watch)
        if not state.best:  # gone on with a budget that is spent already
            self._move_masks(1.0)
            self._look_at_held_out()
        checkpoint.assign(self._student.state, state.best)
        solved = self._checked()
        self._path.unlink(missing_ok=True)
        return Tuned(
            layers=solved,
            loss_before=state.first_loss,
            loss_after=state.best_loss,
            steps=state.steps,
            epochs=state.steps / self._batches.steps_an_epoch,
            seconds=self._elapsed_s(),
        )

    def _train_on(self, watch: Watch) -> None:
        """One step, and whatever is due behind it."""
        state = self._state
        self._optimizer.learning_rate.assign(self._recipe.learning_rate * _schedule(self._share()))
        if state.steps and (state.steps % _MASK_EVERY == 0 or self._share() >= RISES_UNTIL):
            self._move_masks(self._share())
        loss = float(self._step(*self._batches.at_step(state.steps)))
        state.steps += 1
        self._check_finite(loss)
        last = self._finished()
        if last:
            self._move_masks(1.0)
        if last or self._share() * _LOOKS >= state.looks + 1:
            self._look_at_held_out()
        elif time.monotonic() - self._saved_s > _SAVE_EVERY_S:
            self._save()
        watch(self._progress(loss))

    def _move_masks(self, done: float) -> None:
        """Let the masks follow until they are as sparse as asked for; then they stay."""
        if self._state.masks_at < RISES_UNTIL:
            self._state.masks_at = min(done, RISES_UNTIL)
            self._student.move_masks(self._state.masks_at)

    @property
    def _arrived(self) -> bool:
        """Whether the masks are as sparse as asked for."""
        return not self._rises or self._state.masks_at >= RISES_UNTIL

    def _share(self) -> float:
        """How much of the plan is done: of the epochs or of the time, whichever is further. Steps are not counted on
        in advance: those of the first epoch wait for the teacher, later ones do not."""
        by_steps = self._state.steps / (self._recipe.epochs * self._batches.steps_an_epoch)
        began_s, ends_s = self._state.began_s, self._recipe.budget_s * (1 - _RESERVED)
        by_time = (self._elapsed_s() - began_s) / max(ends_s - began_s, 1e-9)
        return min(1.0, max(by_steps, by_time))

    def _finished(self) -> bool:
        done = self._state.steps > 0 and self._share() >= 1.0
        return done or self._state.since_best >= _PATIENCE

    def _elapsed_s(self) -> float:
        return self._elapsed_before_s + time.monotonic() - self._began_s

    def _held_out_loss(self) -> float:
        """The mean loss of the network as it would be exported now."""
        self._student.put()
        return float(np.mean(np.concatenate([self._look(*batch).numpy() for batch in self._batches.held_out()])))

    def _look_at_held_out(self) -> None:
        state, loss = self._state, self._held_out_loss()
        self._check_finite(loss)
        # A loss may stay finite: what becomes of NaN in a ReLU depends on the processor.
        if not all(np.isfinite(values).all() for values in checkpoint.values_of(self._student.variables)):
            self._give_up("weights became infinite or NaN")
        self._checked()
        state.looks = max(state.looks + 1, int(self._share() * _LOOKS))
        moving = (self._rises or self._recipe.mask == "free") and state.masks_at < RISES_UNTIL
        state.since_best += not moving  # a mask that moves costs before it pays
        if self._arrived and loss < state.best_loss:
            state.best_loss, state.since_best = loss, 0
            state.best = checkpoint.values_of(self._student.state)
        self._save()

    def _checked(self) -> tuple[SolvedLayer, ...]:
        solved = self._student.solved()
        check_kept(self._layers, self._configuration, None if self._recipe.mask == "free" else self._start, solved)
        if self._arrived:
            check_kept(self._layers, self._towards, None, solved)
        return solved

    def _save(self) -> None:
        state = self._state
        state.elapsed_s = self._elapsed_s()
        state.values = checkpoint.values_of(self._student.state)
        state.moments = checkpoint.values_of(self._optimizer.variables)
        checkpoint.save(self._path, state)
        self._saved_s = time.monotonic()

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            self._give_up(f"the loss became {loss}")

    def _give_up(self, what: str) -> None:
        """Keep the best state as a new beginning, and say why it ended."""
        state, steps = self._state, self._state.steps
        state.values, state.moments, state.steps, state.elapsed_s, state.looks = state.best, [], 0, 0.0, 0
        state.masks_at = RISES_UNTIL if state.best and self._rises else 0.0
        checkpoint.save(self._path, state)
        kept = "the best state before it is kept, go on from it" if state.best else "none had all zeros yet, try again"
        raise CandidateError(
            f"{what} in step {steps} of fine-tuning; {kept} with a smaller --learning-rate than "
            f"{self._recipe.learning_rate:g}"
        )

    def _progress(self, loss: float) -> Progress:
        state = self._state
        return Progress(
            share=self._share(),
            steps=state.steps,
            loss=loss,
            first_loss=state.first_loss,
            best_loss=state.best_loss if state.best else None,
        )


def _schedule(share: float) -> float:
    """Up in a short warm-up, then down to zero by half a cosine (SGDR, arXiv 1608.03983, eq. 5)."""
    if share < _WARM_UP:
        return (share + 0.01) / (_WARM_UP + 0.01)
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP)))


def _check_head(head: losses.Head, recipe: Recipe, metric: Metric) -> None:
    if recipe.loss != "distillation" and head.kind == "values" and metric.name != "mae":
        raise AutocompressError(
            f"the loss '{recipe.loss}' does not fit a network with plain outputs and the metric {metric.name}; "
            "use --loss distillation"
        )


def _key(networks: bytes, held: Sequence[Configuration], start: Sequence[SolvedLayer], recipe: Recipe) -> str:
    """What is trained and how; learning rate and budget may differ when it goes on."""
    digest = hashlib.sha256(networks)
    how = [
        *[each.digest for each in held],
        recipe.loss,
        recipe.temperature,
        recipe.assignments,
        recipe.mask,
        recipe.batch,
        recipe.seed,
        recipe.augment,
    ]
    digest.update(json.dumps(how).encode())
    for layer in start:
        for values in (layer.weight, layer.bias, layer.levels, layer.scale):
            digest.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
