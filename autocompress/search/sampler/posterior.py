"""What the trials so far make one believe of any configuration: means and deviations of every value that counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.records.configuration import STATIC_ACTIVATIONS
from autocompress.search.sampler.container_costs import Cost
from autocompress.search.sampler.encoding import EncodedSpace
from autocompress.search.sampler.size_model import Coded, SizeModel, fit_size_model
from autocompress.search.sampler.surrogate import (
    ChoiceFeatures,
    Curve,
    Linear,
    SensitivityModel,
    fit_curve,
    fit_linear,
    fit_sensitivity,
)

Array = np.ndarray[Any, Any]
_DRAWS = 8  # of the sensitivity model's parameters; the first is their mean
MOST_TRIALS = 600  # that the regressions need, the latest: more cost time and teach little
_OWN = (0.1, 0.1)  # prior variances of each layer's corrections: its sensitivity, and more of it with its zeros
_SHARED = (1.0, 0.05, 0.25, 0.1, 0.1, 0.1)  # and of those of all layers
_WIDTH = 1.0  # of one of the widths of all groups of channels
_SHARES = ((-9.0, 4.0), (-5.0, 4.0))  # log share of float and of static activations: mean, variance
# Of the deviation that few validation samples leave. Counted in full, lossless candidates would be drawn again and
# again like lottery tickets: their luck is mostly shared (they fail on the same samples), and it does not carry over
# to test data.
_LUCK = 0.5
_SIZE = 0.002  # prior variance of corrections of the download, in units of the reference
_CLUSTERED = 4.0  # how much farther off the bytes of clusters are: which ones a layer ends with hangs on its inputs
_MOST_SIZES = 128  # downloads that the regression with effects needs, the latest: its time grows faster than they do


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What is known of n trials: rows `x` (n, 1 + L) and values (n,), NaN where a trial has none: `divergence` of its
    outputs, `loss` of the metric against the baseline and the standard deviation that validation data leave in it
    (`doubt`), `latency`, `file`, `download`, `memory` as shares of their references."""

    x: Array
    divergence: Array
    loss: Array
    doubt: Array
    latency: Array
    file: Array
    download: Array
    memory: Array


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Mean and deviation (n,) of each value by its name in `Trials`."""

    mean: Mapping[str, Array]
    deviation: Mapping[str, Array]

    def columns(self, names: Sequence[str]) -> tuple[Array, Array]:
        """Means and deviations of these values, (n, names)."""
        mean, deviation = (np.stack([of[name] for name in names], axis=1) for of in (self.mean, self.deviation))
        return mean, deviation


class Posterior:
    """The surrogate models fitted to trials. `download_unit`: the bytes that a download of 1 stands for; `scale`: the
    loss of the metric that counts as much as 1 of the others. `rng` draws the sensitivity model's parameters."""

    def __init__(
        self,
        encoded_space: EncodedSpace,
        trials: Trials,
        *,
        download_unit: float,
        scale: float,
        rng: np.random.Generator,
    ) -> None:
        self._space, self._unit, self._scale = encoded_space, download_unit, scale
        self._sensitivity = self._fit_sensitivity(trials)
        self.draws = self._sensitivity.draw(rng, _DRAWS)
        tables = [self._sensitivity.parts(theta, _by_choice(encoded_space.seen)).T for theta in self.draws]
        self.parts = np.stack(tables)  # (draws, L, C): the sensitivity of each choice
        self._curve = self._fit_curve(trials)
        self._download = self._fit_download(trials)
        # What follows from a file's kernels and containers, by the cost whose tables say how.
        self._patterns = (
            (encoded_space.latency, {"latency": self._fit_pattern(trials, encoded_space.latency, trials.latency)}),
            (
                encoded_space.file,
                {
                    "file": self._fit_pattern(trials, encoded_space.file, trials.file),
                    "memory": self._fit_pattern(trials, encoded_space.file, trials.memory),
                },
            ),
        )

    def predict(self, x: Array) -> Prediction:
        """What is believed of rows x (n, 1 + L)."""
        found = {"loss": self._loss(x), "download": self._sizes(x)}
        for cost, fits in self._patterns:
            features, usual = self._pattern_features(x, cost), self._pattern_mean(x, cost)
            for name, fit in fits.items():
                mean, variance = fit.predict(features)
                found[name] = mean + usual, variance + fit.noise
        return Prediction(
            mean={name: mean for name, (mean, _) in found.items()},
            deviation={name: np.sqrt(np.maximum(variance, 0.0)) for name, (_, variance) in found.items()},
        )

    def sensitivity(self, x: Array, draw: int = 0) -> Array:
        """The sensitivity of each layer of rows x, (n, L), by one draw of the parameters."""
        return self._space.gather(self.parts[draw], x)

    @property
    def curve(self) -> Curve:
        """From sensitivity to loss."""
        return self._curve

    def _fit_sensitivity(self, trials: Trials) -> SensitivityModel:
        kinds, layers = len(self._space.activations), len(self._space.seen.own)
        common = (*_SHARED, _WIDTH) if self._space.width_effects is not None else _SHARED
        shares = [_SHARES[kind in STATIC_ACTIVATIONS] for kind in self._space.activations]
        prior_mean = np.concatenate([[mean for mean, _ in shares], np.zeros(layers * len(_OWN) + len(common))])
        prior = np.concatenate([[variance for _, variance in shares], np.tile(_OWN, layers), common])
        known = np.isfinite(trials.divergence)
        assert kinds == len(shares)
        seen = _chosen(self._space, trials.x[known])
        return fit_sensitivity(seen, trials.x[known, 0], trials.divergence[known], prior_mean, prior)

    def _fit_curve(self, trials: Trials) -> Curve:
        known = np.isfinite(trials.loss)
        sensitivity, kinds = self.sensitivity(trials.x[known]).sum(axis=1), trials.x[known, 0]
        deviation = np.nan_to_num(trials.doubt[known])
        return fit_curve(sensitivity, kinds, trials.loss[known], deviation, len(self._space.activations), self._scale)

    def _loss(self, x: Array) -> tuple[Array, Array]:
        sensitivity = np.stack([self.sensitivity(x, draw).sum(axis=1) for draw in range(_DRAWS)])
        mean, doubt = self._curve.loss(sensitivity[0], x[:, 0])
        log_variance = np.log(np.maximum(sensitivity, 1e-12)).var(axis=0) + self._sensitivity.noise**2
        steep = self._curve.slope(sensitivity[0])
        return mean, doubt + steep**2 * log_variance + _LUCK**2 * self._curve.variance(mean)

    def _fit_download(self, trials: Trials) -> SizeModel:
        known = np.flatnonzero(np.isfinite(trials.download))[-_MOST_SIZES:]
        x = trials.x[known]
        left = trials.download[known] - self._space.download(x) / self._unit
        coded = self._coded(x)
        prior = np.full(coded.features.shape[1], _SIZE)
        prior[: len(self._space.activations)] = 0.05
        return fit_size_model(coded, left, prior)

    def _coded(self, x: Array) -> Coded:
        sizes = self._space.sizes(x) / self._unit
        loose = np.where(self._space.gather(self._space.clustered, x), _CLUSTERED, 1.0)
        choices = x[:, 1 : 1 + sizes.shape[1]]
        return Coded(features=self._size_features(x, sizes), sizes=loose * sizes, choices=choices)

    def _size_features(self, x: Array, size: Array) -> Array:
        """What may be wrong with the count of blocks: a constant by activations, a factor, and what each layer's size
        (by the tables, (n, L)) and zeros do."""
        share = self._space.share(x)
        zeros = self._space.gather(self._space.sparsity, x) * share * self._space.largest / self._space.largest.sum()
        total = size.sum(axis=1, keepdims=True)
        hot = np.eye(len(self._space.activations))[x[:, 0]]
        features: Array = np.concatenate([hot, total, np.sqrt(total), size, zeros], axis=1)
        if self._space.width_effects is not None:  # scales and biases go with channels, which the tables do not count
            features = np.append(features, 1.0 - share.mean(axis=1, keepdims=True), axis=1)
        return features

    def _sizes(self, x: Array) -> tuple[Array, Array]:
        mean, variance = self._download.predict(self._coded(x))
        return mean + self._space.download(x) / self._unit, variance

    def _fit_pattern(self, trials: Trials, cost: Cost, values: Array) -> Linear:
        known = np.isfinite(values)
        x = trials.x[known]
        features = self._pattern_features(x, cost)
        prior = np.concatenate([np.full(len(cost.base), 1.0), np.ones(features.shape[1] - len(cost.base))])
        return fit_linear(features, values[known] - self._pattern_mean(x, cost), prior, 1e-8)

    def _pattern_mean(self, x: Array, cost: Cost) -> Array:
        mean: Array = cost.base[x[:, 0]] + self._space.gather_kind(cost.extra, x).sum(axis=1)
        return mean if self._space.width_effects is None else mean * self._space.work(x, cost)

    def _pattern_features(self, x: Array, cost: Cost) -> Array:
        """One a kind of activations, and one a layer that is not as usual, in units of its doubt."""
        kinds, layers = cost.extra.shape[:2]
        odd = self._space.gather_kind(cost.doubt, x)  # (n, L), tiny where usual
        odd = np.where(odd > 2e-6, odd, 0.0)
        apart = np.zeros((len(x), kinds, layers))
        apart[np.arange(len(x)), x[:, 0]] = odd
        kind = np.eye(kinds)[x[:, 0]]
        features: Array = np.concatenate([kind, apart.reshape(len(x), kinds * layers)], axis=1)
        if self._space.width_effects is not None:
            features = np.append(features, kind * (1.0 - self._space.work(x, cost))[:, None], axis=1)
        return features


def _chosen(encoded_space: EncodedSpace, x: Array) -> ChoiceFeatures:
    seen = encoded_space.seen
    return ChoiceFeatures(
        **{name: encoded_space.gather(getattr(seen, name), x) for name in ("log_sensitivity", "own", "shared")}
    )


def _by_choice(seen: ChoiceFeatures) -> ChoiceFeatures:
    """The features (L, C, ...) as those of C rows: (C, L, ...)."""
    return ChoiceFeatures(
        **{name: np.swapaxes(getattr(seen, name), 0, 1) for name in ("log_sensitivity", "own", "shared")}
    )
