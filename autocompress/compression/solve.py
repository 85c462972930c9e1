"""The layer solver: weights under a constraint that change the layer's output least.

A layer choice is one constraint: at least a share of zeros, and values scale x level with a set of allowed integer
levels.
For target weights W (G, R, n) and the second moment H (G, n, n) of the layer's inputs it looks for V under the
constraint
with a small output error  sum_g tr((W_g - V_g) H_g (W_g - V_g)^T).  Four steps, each a function below:

1. the mask by ADMM on the preconditioned problem (ALPS, arXiv 2406.07831, sec. 3);
2. the weights on it by a column-wise sweep with error feedback (GPTQ, arXiv 2210.17323, eq. 2-3; SparseGPT,
   arXiv 2301.00774, for masked columns), rounding to the levels on the way;
3. scales, and for clusters the levels, as least squares for the assignment found;
4. coordinate descent over the assignment (each weight in turn to its best allowed value, exact in H).

Whatever H and W are, the result is finite and keeps the constraint (`definite`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from autocompress.compression import definite
from autocompress.compression import levels as lv
from autocompress.compression.zero_pattern import ZeroPattern
from autocompress.network.tflite.short_floats import short
from autocompress.network.tflite.sparse import block_of
from autocompress.records.configuration import TWO_OF_FOUR, LayerChoice

Array = np.ndarray[Any, Any]
_ADMM_RHO = (np.float32(0.1), np.float32(0.3), np.float32(0.9))
_ADMM_STEPS = 6  # for each rho
_BLOCK = 32  # columns updated lazily together
_LEAST_SCALE = 2.0**-100  # normal in single precision, and so are its products with scales of activations
_MOST_FLOAT16 = float(np.finfo(np.float16).max)
SWEEPS = 4  # of refitting and descent where levels are few; one where 8 bits leave little to gain


@dataclass(frozen=True, kw_only=True)
class Problem:
    """`weight` (G, R, n) float64, `moment` (G, n, n) float64, as it was computed. `shared_scale`: the G products are
    column blocks of the same R output channels, so that they share scales; else each (g, r) is an output channel of its
    own. `padding`: how many trailing columns of the last block do not exist. `sound`: the moment is known to be
    semidefinite."""

    weight: Array
    moment: Array
    shared_scale: bool = False
    padding: int = 0
    sound: bool = False
    _masks: dict[ZeroPattern, Array | None] = field(default_factory=dict, repr=False, compare=False)
    _inverses: dict[float, Array] = field(default_factory=dict, repr=False, compare=False)

    def of_rows(self, rows: Array) -> Problem:
        """The same inputs and some of the output channels; what is computed of the inputs is shared."""
        found = Problem(
            weight=self.weight[:, rows],
            moment=self.semidefinite,
            shared_scale=self.shared_scale,
            padding=self.padding,
            sound=True,
            _inverses=self._inverses,
        )
        found.__dict__.update(damped=self.damped, feedback=self.feedback)  # where cached properties lie
        return found

    @property
    def size(self) -> int:
        """Number of weights that exist."""
        groups, rows, columns = self.weight.shape
        return rows * (groups * columns - self.padding)

    @cached_property
    def semidefinite(self) -> Array:
        """The moment as its definition has it."""
        return self.moment if self.sound else definite.semidefinite(self.moment)

    @cached_property
    def damped(self) -> Array:
        """The moment with `definite.DAMPING` x its mean diagonal added; columns that are never active get a diagonal of
        one. Positive definite."""
        return definite.damped(self.semidefinite)

    @cached_property
    def energy(self) -> float:
        """The sum of squares of the layer's outputs, a sample: tr(W H W^T); at least 1e-30."""
        return max(float(np.einsum("grn,grn->", self.weight @ self.semidefinite, self.weight)), 1e-30)

    @cached_property
    def unit(self) -> float:
        """In what the weights are ordinary numbers, a power of two: 1 unless they are tiny or huge."""
        return definite.unit_of(float(np.abs(self.weight).max(initial=0.0)), "weight")

    @cached_property
    def ordinary(self) -> Problem:
        """The same problem in units in which weights and moment are ordinary numbers: itself where they are."""
        diagonal = np.einsum("gnn->gn", self.semidefinite)
        of_moment = definite.unit_of(float(diagonal.mean(axis=1).max(initial=0.0)), "moment")
        if self.unit == of_moment == 1.0:
            return self
        return Problem(
            weight=self.weight / self.unit,
            moment=self.semidefinite / of_moment,
            shared_scale=self.shared_scale,
            padding=self.padding,
            sound=True,
        )

    @cached_property
    def feedback(self) -> Array:
        """The upper Cholesky factor of the damped inverse: each row holds a column's error feedback (GPTQ, step 3)."""
        return definite.inverse_factor(self.damped)

    def mask(self, choice: LayerChoice) -> Array | None:
        """`choose_mask` for a choice, remembered: it depends on neither bits nor clusters."""
        pattern = ZeroPattern(
            zeros=math.ceil(choice.sparsity * self.size - 1e-9),
            block=self.block(choice),
            two_of_four=choice.granularity == TWO_OF_FOUR,
            joined=self.shared_scale,
        )
        if pattern not in self._masks:
            self._masks[pattern] = choose_mask(self, pattern)
        return self._masks[pattern]

    def block(self, choice: LayerChoice) -> int:
        """How many output channels are pruned together."""
        return block_of(self.weight.shape[1]) if choice.granularity == "block" else 1

    def shifted_inverse(self, unit_moment: Array, rho: np.float32) -> Array:
        """(H + rho)^-1 of the moment in units of its diagonal: one for all masks."""
        if (found := self._inverses.get(float(rho))) is None:
            found = definite.inverse(unit_moment + rho * np.eye(unit_moment.shape[-1], dtype=np.float32))
            self._inverses[float(rho)] = found
        return found


@dataclass(frozen=True, kw_only=True)
class Solution:
    """`values` (G, R, n) float64 are what the exported layer computes with. Integer layers: `values = scale x levels`,
    `scale` (G or 1, R, 1)."""

    values: Array
    levels: Array | None = None
    scale: Array | None = None


def output_error(problem: Problem, values: Array) -> float:
    """The output error of `values`: sum over groups and channels of d H d^T with d = W - V."""
    gap = problem.weight - values
    return float(np.einsum("grn,grn->", gap @ problem.semidefinite, gap))


def solve(problem: Problem, choice: LayerChoice, sweeps: int = SWEEPS) -> Solution:
    """The solution of one layer choice: at least ceil(sparsity x size) zeros, at most `clusters` levels. `sweeps`: how
    often scales and levels are fitted again, at most."""
    if not choice.is_integer:
        return Solution(values=_rounded_to_storage(_solve_float(problem, choice), choice.bits))
    solution = _solve_integer(problem.ordinary, problem.ordinary.mask(choice), choice, sweeps)
    return solution if problem.unit == 1.0 else _storable(solution, problem.unit)


def _solve_float(problem: Problem, choice: LayerChoice) -> Array:
    if choice.sparsity == 0:
        return problem.weight
    mask = problem.ordinary.mask(choice)
    values: Array = problem.weight if mask is None else _descend_float(problem.ordinary, mask) * problem.unit
    return values


def _rounded_to_storage(values: Array, bits: int) -> Array:
    """What a container leaves of values; those beyond half precision get its largest."""
    stored = np.clip(values, -_MOST_FLOAT16, _MOST_FLOAT16).astype(np.float16) if bits == 16 else values
    return stored.astype(np.float32).astype(np.float64)


def _storable(solution: Solution, unit: float) -> Solution:
    """A solution in units of weights as the file holds it: with scales that are normal numbers of single precision."""
    assert solution.levels is not None
    assert solution.scale is not None
    scale = np.maximum(solution.scale * unit, _LEAST_SCALE)
    levels = np.rint(solution.levels * (solution.scale * unit / scale)).astype(np.int64)
    return replace(solution, values=levels * scale, levels=levels, scale=scale)


def choose_mask(problem: Problem, pattern: ZeroPattern) -> Array | None:
    """Which weights stay (True), all but those of the pattern; None where none has to go.

    ADMM on min tr((W - D) H (W - D)^T) with D sparse, in units where H has a unit diagonal; rho grows until the
    support settles (ALPS, arXiv 2406.07831, algorithm 1). In single precision: only the support is taken from it."""
    if pattern.zeros <= 0:
        return None
    unit = np.sqrt(np.einsum("gnn->gn", problem.damped))[:, None, :]
    H = (problem.damped / (unit * unit.transpose(0, 2, 1))).astype(np.float32)
    target = (problem.weight * unit).astype(np.float32)
    pull, exists = target @ H, _existing(problem)
    D, V = target, np.zeros_like(target)
    for rho in _ADMM_RHO:
        inverse = problem.shifted_inverse(H, rho)
        for _ in range(_ADMM_STEPS):
            W = (pull + rho * D - V) @ inverse
            D = _keep_largest(W + V / rho, exists, pattern)
            V = V + rho * (W - D)
    kept = np.ones(target.size, bool)
    kept[pattern.smallest(D, exists)] = False
    return kept.reshape(target.shape)


def _existing(problem: Problem) -> Array:
    exists = np.ones(problem.weight.shape, bool)
    if problem.padding:
        exists[-1, :, -problem.padding :] = False
    return exists


def _keep_largest(values: Array, exists: Array, pattern: ZeroPattern) -> Array:
    """`values` with the smallest of the pattern set to zero, and all padding."""
    kept = np.where(exists, values, np.float32(0)).ravel()
    kept[pattern.smallest(values, exists)] = 0.0
    return kept.reshape(values.shape)


def _solve_integer(problem: Problem, mask: Array | None, choice: LayerChoice, sweeps: int) -> Solution:
    damped = problem.damped
    limit = 2 ** (choice.bits - 1) - 1
    weights = np.einsum("gnn->gn", damped)[:, None, :]
    kept = _existing(problem) if mask is None else mask
    wanted = lv.initial_scale(problem.weight, weights, kept, limit, choice.clusters, problem.shared_scale)
    scale = short(wanted, up=limit > 63)  # a smaller one would clip the largest weights by more than a step
    table = lv.initial_levels(problem.weight / scale, weights, kept, limit, choice.clusters)
    values = _sweep(problem.weight, problem.feedback, kept, table, scale)
    for _ in range(sweeps if choice.clusters is not None or limit < 63 else 1):
        q = np.rint(values / scale)
        table, q = lv.refit_levels(problem.weight, damped, q, scale, table, limit, choice.clusters)
        scale = short(lv.refit_scale(problem.weight, damped, q, scale, problem.shared_scale))
        values = _descend(problem.weight, damped, kept, table, scale, q * scale)
    return Solution(values=values, levels=np.rint(values / scale).astype(np.int64), scale=scale)


def _sweep(target: Array, factor: Array, kept: Array, table: Array, scale: Array) -> Array:
    """Round column after column, each column's error spread over those that follow (GPTQ with lazy blocks)."""
    work, keeps, unit = _by_column(target), _by_column(kept), scale[:, :, 0]
    columns = work.shape[1]
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = np.zeros_like(work[:, start:stop])
        for j in range(start, stop):
            rounded = lv.nearest(work[:, j] / unit, table) * unit
            rounded *= keeps[:, j]
            errors[:, j - start] = error = (work[:, j] - rounded) / factor[:, j, j, None]
            work[:, j] = rounded
            work[:, j + 1 : stop] -= factor[:, j, j + 1 : stop, None] * error[:, None, :]
        work[:, stop:] -= factor[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    return _by_column(work)


def _by_column(matrix: Array) -> Array:
    """(G, R, n) as (G, n, R) or back, always a contiguous copy: the loops walk over columns and write into it."""
    return matrix.transpose(0, 2, 1).copy()


def _descend(target: Array, damped: Array, kept: Array, table: Array, scale: Array, values: Array) -> Array:
    """One pass of coordinate descent: each weight in turn to its best allowed value given all others."""
    now, keeps, unit = _by_column(values), _by_column(kept), scale[:, :, 0]
    pull: Array = damped @ _by_column(target - values)
    columns = now.shape[1]
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        moved = np.zeros_like(now[:, start:stop])
        for j in range(start, stop):
            best = now[:, j] + pull[:, j] / damped[:, j, j, None]
            step: Array = lv.nearest(best / unit, table) * unit
            step *= keeps[:, j]
            step -= now[:, j]
            now[:, j] += step
            moved[:, j - start] = step
            pull[:, j + 1 : stop] -= damped[:, j, j + 1 : stop, None] * step[:, None, :]
        pull[:, stop:] -= damped[:, stop:, start:stop] @ moved
    return _by_column(now)


def _descend_float(problem: Problem, mask: Array, steps: int = 25) -> Array:
    """The least-squares weights on a fixed mask, by conjugate gradients preconditioned with the diagonal (ALPS,
    3.3)."""
    damped = problem.damped
    inverse = 1.0 / np.einsum("gnn->gn", damped)[:, None, :]
    values = np.where(mask, problem.weight, 0.0)
    residual = np.where(mask, (problem.weight - values) @ damped, 0.0)
    direction = residual * inverse
    energy = (residual * direction).sum(-1, keepdims=True)
    for _ in range(steps):
        image = np.where(mask, direction @ damped, 0.0)
        curvature = (direction * image).sum(-1, keepdims=True)
        length = np.divide(energy, curvature, out=np.zeros_like(energy), where=curvature > 0)
        values, residual = values + length * direction, residual - length * image
        after = (residual * residual * inverse).sum(-1, keepdims=True)
        momentum = np.divide(after, energy, out=np.zeros_like(energy), where=energy > 0)
        direction, energy = residual * inverse + momentum * direction, after
    return values
