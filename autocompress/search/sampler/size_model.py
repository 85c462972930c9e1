"""A Bayesian linear regression in which every choice of every layer has an effect of its own as well.

What the tables say of a layer's bytes under a choice is off by much the same in all candidates that have this choice
there, and no few features tell by how much. So

    y = f . w + sum_l s_l e_(l, choice of l) + noise

with s_l the layer's bytes by its table (times more for choices that tables know worse), w ~ N(0, prior),
e ~ N(0, effect^2) and noise ~ N(0, (scatter sum_l s_l)^2). Choices that trials had are known well, others as badly as
the tables know them, and the noise is relative: small files are known to a few bytes. With the weights
integrated out it is a Gaussian process, of covariance

    k(x, x') = sum_p prior_p f_p f'_p + effect^2 sum_l s_l s'_l [same choice in l]

(Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", eq. 2.25 and 2.26); `effect` and `scatter` are
those of the greatest marginal likelihood (eq. 2.30) on a grid."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_EFFECTS = (0.003, 0.01, 0.03)  # standard deviations, relative
_SCATTERS = (0.0005, 0.001, 0.002, 0.004, 0.008)
# Before trials tell, the middle ones, as if the logarithm of each were normal with deviation 1.
_USUAL = (0.01, 0.002)
_LEAST = 1e-9  # variance


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What is known of n rows beforehand: `features` (n, p), of each layer its `sizes` (n, L) and `choices` (n, L)."""

    features: Array
    sizes: Array
    choices: Array

    @property
    def squared(self) -> Array:
        """The square of each row's whole size, (n,)."""
        found: Array = self.sizes.sum(axis=1) ** 2
        return found

    def shared(self, other: Coded) -> Array:
        """Their covariance with m other rows by the choices that both have, for an effect of 1, (n, m)."""
        found = np.zeros((len(self.sizes), len(other.sizes)))
        for own, size, others, its in zip(self.choices.T, self.sizes.T, other.choices.T, other.sizes.T, strict=True):
            found += (size[:, None] * its) * (own[:, None] == others)
        return found


@dataclass(frozen=True, kw_only=True)
class SizeModel:
    """The regression fitted to the n rows `seen`: `effect`, `scatter`, the inverse of the values' covariance (n, n),
    and that times the values, (n,)."""

    seen: Coded
    prior: Array
    effect: float
    scatter: float
    inverse: Array
    weights: Array

    def predict(self, rows: Coded) -> tuple[Array, Array]:
        """Mean and variance (m,) of the values of rows, noise included."""
        common = (rows.features * self.prior) @ self.seen.features.T + self.effect**2 * rows.shared(self.seen)
        alone = rows.features**2 @ self.prior + self.effect**2 * (rows.sizes**2).sum(axis=1)
        told = (common @ self.inverse * common).sum(axis=1)
        return common @ self.weights, np.maximum(alone - told, 0.0) + self.scatter**2 * rows.squared + _LEAST


def fit_size_model(seen: Coded, values: Array, prior: Array) -> SizeModel:
    """The regression of `values` (n,), the features' weights having mean 0 and variances `prior` (p,)."""
    linear, shared = (seen.features * prior) @ seen.features.T, seen.shared(seen)

    def covariance(effect: float, scatter: float) -> Array:
        found: Array = linear + effect**2 * shared + np.diag(scatter**2 * seen.squared + _LEAST)
        return found

    def posterior(each: tuple[float, float]) -> float:
        far = np.log(np.array(each) / _USUAL)
        return log_likelihood(covariance(*each), values) - 0.5 * float(far @ far)

    effect, scatter = max(itertools.product(_EFFECTS, _SCATTERS), key=posterior)
    inverse = np.linalg.inv(covariance(effect, scatter))
    return SizeModel(
        seen=seen,
        prior=prior,
        effect=effect,
        scatter=scatter,
        inverse=inverse,
        weights=inverse @ values,
    )


def log_likelihood(covariance: Array, values: Array) -> float:
    """Of values (n,) that are normal with mean 0, but for a constant."""
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, values)
    return -0.5 * float(white @ white) - float(np.log(np.diag(root)).sum())
