"""The samples that a training learns from and is judged on, with what the teacher says about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.finetune.augment import check_augments, varied
from autocompress.finetune.networks import Teacher
from autocompress.finetune.recipe import HELD_OUT, Lesson, Recipe

Array = np.ndarray[Any, Any]
Batch = tuple[list[Array], Array, Array]  # inputs, the teacher's outputs, labels (zeros where there are none)
HELD_OUT_BATCH = 256
_MOST_LOOKED_AT = 2048  # samples, of the held-out ones


class Batches:
    """Batches by the number of their step, the same for the same seed, and the held-out samples."""

    def __init__(self, lesson: Lesson, teacher: Teacher, recipe: Recipe, batch: int, *, classes: int | None) -> None:
        """`batch`: samples a step, no more than are trained on; `classes`: of so many the labels are
        numbers; None: they are none of classes."""
        self._x, self._labels, self._teacher = list(lesson.x.values()), lesson.y, teacher
        self._seed, self._augments, self._classes = recipe.seed, recipe.augment, classes
        check_augments(recipe.augment, self._x)
        train = samples_trained_on(lesson)
        self._train, self._size = np.arange(train), batch
        self._held_out = np.arange(train, lesson.samples)[:_MOST_LOOKED_AT]
        self._order: tuple[int, Array] | None = None  # of the epoch that it is in

    @property
    def steps_an_epoch(self) -> int:
        """Steps in which each sample comes up once, but for those of a last batch that is not full."""
        return len(self._train) // self._size

    def at_step(self, step: int) -> Batch:
        """What a step learns from: a fresh order each epoch, and variations drawn for the step alone."""
        at = self._indices(step)
        if not self._augments:
            return self._batch(at)
        given, rng = [values[at] for values in self._x], np.random.default_rng((self._seed, step, 1))
        x, labels = varied(given, self._mixable(self._labels_of(at)), self._augments, rng)
        return x, self._teacher.outputs(x), labels

    def held_out(self) -> Iterator[Batch]:
        """The samples that decide when to stop, as they are, in pieces of at most HELD_OUT_BATCH."""
        for piece in np.array_split(self._held_out, -(-len(self._held_out) // HELD_OUT_BATCH)):
            yield self._batch(piece)

    def _indices(self, step: int) -> Array:
        epoch, place = divmod(step, self.steps_an_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self._seed, epoch)).permutation(self._train)
        found: Array = np.sort(self._order[1][place * self._size : (place + 1) * self._size])
        return found

    def _batch(self, at: Array) -> Batch:
        return [values[at] for values in self._x], self._teacher(at), self._labels_of(at)

    def _mixable(self, labels: Array) -> Array:
        """Labels that may be mixed: numbers, a class as its row of the unit matrix."""
        if "mix" not in self._augments:
            return labels
        if self._classes is None or self._labels is None:
            return labels.astype(np.float32)
        known = np.eye(self._classes + 1, self._classes, dtype=np.float32)  # the last row: of what is void
        rows: Array = known[np.minimum(labels.astype(int), self._classes)]
        return rows

    def _labels_of(self, at: Array) -> Array:
        return np.zeros(len(at), np.float32) if self._labels is None else self._labels[at]


def samples_trained_on(lesson: Lesson) -> int:
    """How many of the samples, the first ones, are trained on; the last HELD_OUT of them decide when to stop.
    AutocompressError where none is left."""
    left = lesson.samples - max(1, round(HELD_OUT * lesson.samples))
    if left < 1:
        raise AutocompressError(f"fine-tuning needs at least 2 training samples, got {lesson.samples}")
    return left
