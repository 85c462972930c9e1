"""What is believed of a candidate before it is built: the layer tables as a prior, corrected by the trials.

Two regressions, both Bayesian with normal priors, so that they say how sure they are:

*Linear* for latencies, file sizes and memory: the tables' sum is the prior mean, and a few features of the
configuration are regressed on what the trials differ from it (Bishop 2006, eq. 3.53-3.54 and 3.58); downloads have a
regression of their own (size_model.py).
*Sensitivity* for the outputs' divergence from the float network: D = a + sum_l exp(log d_l(choice) + f . theta), with a
the share of the activations' precision, d_l the tables' sensitivity and f features of the choice. Sequential
reconstruction makes up for much of what the tables say, some layers' and some techniques' sensitivity more than
others': that is theta, with prior mean 0. The divergence is far less noisy than the metric (every sample's outputs
move, few change their class), so a few trials teach much. A third, monotone curve leads from sensitivity to loss of the
metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_STEPS, _CLOSE = 12, 0.03  # of Gauss-Newton, at most; a step so small is little against the posterior's deviations
_POWERS = np.linspace(0.6, 1.1, 6)  # of the curve from sensitivity to loss
_POWER, _POWER_DEVIATION = 0.85, 0.12
_FLOOR = 1e-9


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A fitted Bayesian linear regression: weights' mean (p,), their covariance (p, p), and the noise's variance."""

    mean: Array
    covariance: Array
    noise: float

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Mean and variance of what the features (n, p) give, without the noise."""
        return features @ self.mean, ((features @ self.covariance) * features).sum(axis=1)


def fit_linear(features: Array, values: Array, prior: Array, least_noise: float) -> Linear:
    """The regression of values (n,) on features (n, p) with weights of mean 0 and variances `prior` (p,); the noise is
    what the fit leaves, at least `least_noise` (a variance)."""
    noise = max(least_noise, float(np.var(values)) if len(values) > 1 else least_noise)
    for _ in range(4):
        precision = features.T @ features / noise + np.diag(1.0 / prior)
        covariance = np.linalg.inv(precision)
        mean = covariance @ (features.T @ values) / noise
        used = len(prior) - float((np.diag(covariance) / prior).sum())  # effective parameters, Bishop 3.91
        left = values - features @ mean
        noise = max(least_noise, float(left @ left) / max(len(values) - used, 1.0))
    return Linear(mean=mean, covariance=covariance, noise=noise)


@dataclass(frozen=True, kw_only=True)
class ChoiceFeatures:
    """What the sensitivity model knows of n choices of each of L layers: `log_sensitivity` (n, L) of the tables, `own`
    features (n, L, h) whose weights each layer has for itself, `shared` ones (n, L, g) with the same weights in all
    layers."""

    log_sensitivity: Array
    own: Array
    shared: Array

    def __getitem__(self, at: Any) -> ChoiceFeatures:
        return ChoiceFeatures(log_sensitivity=self.log_sensitivity[at], own=self.own[at], shared=self.shared[at])

    def parts(self, own: Array, shared: Array) -> Array:
        """exp(log d + f . theta) for weights (L, h) and (g,): the sensitivity of each, (n, L)."""
        found: Array = np.exp(self.log_sensitivity + np.einsum("nlh,lh->nl", self.own, own) + self.shared @ shared)
        return found


@dataclass(frozen=True, kw_only=True)
class SensitivityModel:
    """A fitted sensitivity model: the parameters' mean (p,) and a square root of their covariance (p, p); `noise` is
    the standard deviation of log D. Parameters: `offsets` log shares of the activations, then L x h own weights, then
    the shared ones."""

    mean: Array
    root: Array
    noise: float
    offsets: int

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """Parameters from the posterior, (count, p); the first is the mean."""
        drawn = rng.standard_normal((count, len(self.mean)))
        drawn[0] = 0.0
        parameters: Array = self.mean + drawn @ self.root.T
        return parameters

    def parts(self, theta: Array, seen: ChoiceFeatures) -> Array:
        """The sensitivity of each (n, L) under parameters `theta` (p,)."""
        return seen.parts(*_split(theta, self.offsets, seen)[1:])


def _split(theta: Array, offsets: int, seen: ChoiceFeatures) -> tuple[Array, Array, Array]:
    layers, each = seen.own.shape[-2:]
    stop = offsets + layers * each
    return theta[:offsets], theta[offsets:stop].reshape(layers, each), theta[stop:]


def fit_sensitivity(
    seen: ChoiceFeatures,
    activations: Array,
    observed: Array,
    prior_mean: Array,
    prior: Array,
    least_noise: float = 0.03,
) -> SensitivityModel:
    """The sensitivity model for n trials: `activations` (n,) indices, `observed` divergences (n,); `prior_mean` and
    `prior` (variances) of all parameters. Gauss-Newton on log D; the covariance is Laplace's approximation."""
    layers, each = seen.own.shape[-2:]
    offsets = len(prior_mean) - layers * each - seen.shared.shape[-1]
    theta, target, noise = prior_mean.copy(), np.log(np.maximum(observed, _FLOOR)), 0.3
    hot, precision = np.eye(offsets)[activations], np.diag(1.0 / prior)
    for _ in range(_STEPS):
        value, slope = _log_sum(theta, seen, hot)
        gap = target - value
        # Robust weights: a candidate that collapsed teaches little of those that work.
        weight = 1.0 / (noise * noise * (1.0 + (gap / (3 * max(noise, 0.1))) ** 2))
        precision = (slope.T * weight) @ slope + np.diag(1.0 / prior)
        step = np.linalg.solve(precision, slope.T @ (weight * gap) + (prior_mean - theta) / prior)
        theta = theta + np.clip(step, -1.5, 1.5)
        noise = max(least_noise, float(np.median(np.abs(gap))) * 1.4826) if len(gap) > 4 else noise
        if np.abs(step).max() < _CLOSE:
            break
    root = np.linalg.inv(np.linalg.cholesky(precision)).T
    return SensitivityModel(mean=theta, root=root, noise=noise, offsets=offsets)


def _log_sum(theta: Array, seen: ChoiceFeatures, hot: Array) -> tuple[Array, Array]:
    """log D (n,) and its derivative in theta (n, p)."""
    layers, each = seen.own.shape[-2:]
    shares, own, shared = _split(theta, hot.shape[1], seen)
    parts, share = seen.parts(own, shared), np.exp(hot @ shares)
    total = np.maximum(parts.sum(axis=1) + share, _FLOOR)
    relative = parts / total[:, None]
    slopes = [
        hot * (share / total)[:, None],
        (relative[:, :, None] * seen.own).reshape(len(total), layers * each),
        np.einsum("nl,nlg->ng", relative, seen.shared),
    ]
    return np.log(total), np.concatenate(slopes, axis=1)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Loss of the metric at a sensitivity z: an offset for the kind of activations plus slope x z^power, averaged over
    powers (K,) with weights `trust`; `offsets` (K, A), `slopes` (K,) and the variances of both. `noise` and `floor`:
    what a loss y seen on validation data varies by, noise x (|y| + floor)."""

    powers: Array
    trust: Array
    offsets: Array
    slopes: Array
    slope_variances: Array
    offset_variances: Array
    noise: float
    floor: float

    def loss(self, sensitivity: Array, activations: Array) -> tuple[Array, Array]:
        """Expected loss and the variance of that expectation, (n,) each."""
        raised = sensitivity[None] ** self.powers[:, None]
        each = self.offsets[:, activations] + self.slopes[:, None] * raised
        mean = self.trust @ each
        own = self.slope_variances[:, None] * raised**2 + self.offset_variances[:, activations]
        return mean, self.trust @ (own + (each - mean) ** 2)

    def slope(self, sensitivity: Array) -> Array:
        """The derivative of the expected loss in log sensitivity, (n,)."""
        found: Array = (self.trust * self.slopes * self.powers) @ sensitivity[None] ** self.powers[:, None]
        return found

    def variance(self, loss: Array) -> Array:
        """The variance of a loss observed on the validation data around what is expected."""
        found: Array = self.noise * (np.abs(loss) + self.floor)
        return found


def fit_curve(sensitivity: Array, activations: Array, loss: Array, deviation: Array, kinds: int, scale: float) -> Curve:
    """The curve through n trials: `deviation` (n,) what a loss may be off by because validation data are few. `scale`
    is the loss that matters (where the reference lies): farther losses count little.

    For each power the rest is a Bayesian linear regression; powers are weighted by how well they fit and by a normal
    prior around _POWER, which holds where few trials lose anything yet."""
    floor = 0.05 * scale
    seen = float(np.mean(deviation**2 / (np.abs(loss) + floor))) if len(loss) else 0.0
    noise = max(seen, 1e-4 * scale)
    features = _of_powers(sensitivity, np.eye(kinds)[activations])
    for _ in range(3):
        weight = 1.0 / (noise * (np.abs(loss) + floor)) / (1.0 + (loss / scale) ** 2)
        costs, means, variances = _fit_powers(features, loss, weight, (0.03 * scale) ** 2, scale)
        costs = costs + ((_POWERS - _POWER) / _POWER_DEVIATION) ** 2
        trust = np.exp(-0.5 * (costs - costs.min()))
        trust /= trust.sum()
        left = loss - np.einsum("k,knp,kp->n", trust, features, means, optimize=True)
        near = np.abs(loss) < 2 * scale
        noise = max(
            seen, float(np.mean(left[near] ** 2 / (np.abs(loss[near]) + floor))) if near.any() else noise, 1e-4 * scale
        )
    return Curve(
        powers=_POWERS,
        trust=trust,
        offsets=means[:, :-1],
        slopes=means[:, -1],
        slope_variances=variances[:, -1],
        offset_variances=variances[:, :-1],
        noise=noise,
        floor=floor,
    )


def _of_powers(sensitivity: Array, hot: Array) -> Array:
    """For each of K powers the features of n trials: the kind of activations (n, A) `hot`, the sensitivity raised; (K,
    n, A + 1)."""
    raised = sensitivity[None] ** _POWERS[:, None]
    kinds = np.broadcast_to(hot, (len(_POWERS), *hot.shape))
    return np.concatenate([kinds, raised[:, :, None]], axis=2)


def _fit_powers(
    features: Array, loss: Array, weight: Array, offset_prior: float, scale: float
) -> tuple[Array, Array, Array]:
    """Misfit (K,), means and variances (K, A + 1) of the offsets and the slope (last) for each power."""
    kinds = features.shape[2] - 1
    start = np.append(np.zeros(kinds), 4.0 * scale)  # a tenth of a nat costs about half of the scale
    prior = np.append(np.full(kinds, offset_prior), (8.0 * scale) ** 2)
    weighted = np.swapaxes(features * weight[:, None], 1, 2)
    covariance = np.linalg.inv(weighted @ features + np.diag(1.0 / prior))
    means = np.einsum("kpq,kq->kp", covariance, weighted @ loss + start / prior)
    means[:, -1] = np.maximum(means[:, -1], 1e-6 * scale)
    left = loss - np.einsum("knp,kp->kn", features, means)
    costs = (weight * left * left).sum(axis=1) + ((means - start) ** 2 / prior).sum(axis=1)
    return costs, means, np.diagonal(covariance, axis1=1, axis2=2)
