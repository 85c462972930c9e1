"""How a candidate is fine-tuned, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.compression.reconstruct import SolvedLayer
from autocompress.errors import AutocompressError, unknown_name

Array = np.ndarray[Any, Any]
LOSSES = ("distillation", "labels", "both")
ASSIGNMENTS = ("free", "fixed")
HELD_OUT = 0.1  # of the training data, the last ones: they decide when to stop


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`loss`: one of LOSSES; `temperature` of distillation (Hinton, Vinyals and Dean, arXiv 1503.02531, sec. 2).
    `assignments`: "fixed" trains the shared centroids alone (Deep Compression, arXiv 1510.00149, sec. 3), "free" lets a
    weight go over to another level too. `mask`: "fixed" is the solver's; "free" lets pruned weights come back for
    others (trained out of sight, the largest are kept: Top-KAST, arXiv 2106.03517, sec. 2, but with all gradients).
    `augment`: variations of the samples, of augment.AUGMENTS.
    `learning_rate` is relative: of the size of a layer's weights, a step.
    `epochs` at most, `budget_s` at most, all runs together."""

    loss: str = "distillation"
    temperature: float = 4.0
    assignments: str = "free"
    mask: str = "fixed"
    learning_rate: float = 1e-2
    batch: int = 32
    epochs: int = 60
    budget_s: float = 180.0
    seed: int = 0
    augment: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the training stands: `share` of the plan in [0, 1], losses on the held-out training data; `best_loss` None
    while not all zeros are there that were asked for."""

    share: float
    steps: int
    loss: float
    first_loss: float
    best_loss: float | None


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The best state: layers for the builder, and losses on the held-out training data before and after."""

    layers: tuple[SolvedLayer, ...]
    loss_before: float
    loss_after: float
    steps: int
    epochs: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is trained on: inputs by name in the order of the network's inputs, labels or None, and the `head` that
    says how outputs are compared (see `losses.head_of`)."""

    x: Mapping[str, Array]
    y: Array | None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.x.values())))


Watch = Callable[[Progress], None]


def check_recipe(recipe: Recipe, labels: bool, *, rises: bool = False) -> None:
    """AutocompressError for a recipe that cannot be followed. `labels`: whether there are any; `rises`: whether
    weights are to be pruned on the way."""
    if recipe.loss not in LOSSES:
        raise unknown_name("loss", recipe.loss, LOSSES)
    if recipe.assignments not in ASSIGNMENTS:
        raise unknown_name("assignments", recipe.assignments, ASSIGNMENTS)
    if recipe.mask not in ASSIGNMENTS:
        raise unknown_name("mask", recipe.mask, ASSIGNMENTS)
    if recipe.mask == "free" and recipe.assignments == "fixed":
        raise AutocompressError("a free mask moves weights between levels; use --assignments free with it")
    if rises and recipe.assignments == "fixed":
        raise AutocompressError("--sparsity prunes weights while they are trained; use --assignments free with it")
    if recipe.budget_s <= 0:
        raise AutocompressError(f"--time-budget must be more than 0 s, got {recipe.budget_s:g} s")
    if recipe.epochs < 1:
        raise AutocompressError(f"--epochs must be at least 1, got {recipe.epochs}")
    if not recipe.learning_rate > 0:
        raise AutocompressError(f"--learning-rate must be more than 0, got {recipe.learning_rate:g}")
    if recipe.loss != "distillation" and not labels:
        raise AutocompressError(
            f"the loss '{recipe.loss}' needs labels, and the task has no y_train; add it, or use --loss distillation, "
            "which learns from the float network"
        )
