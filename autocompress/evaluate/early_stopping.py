"""Ending an evaluation early: accuracy on growing parts of the validation data, with a test after each part.

A candidate is hopeless where it is dominated (a front member that is at least as good in every other objective is
more accurate, on the same samples) or violates a constraint on the metric. Both are tested after each part but the
last, at ERROR / looks each: by Bonferroni's inequality at most ERROR of the candidates that are neither are stopped,
however often one looks. Scores of 0 and 1 are tested exactly: the pair by the sign test on the samples where the two
differ (McNemar 1947; under the hypothesis half of them fall to either side), the constraint by the binomial
distribution. Other scores are tested by the normal approximation of their mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from autocompress import stats

Array = np.ndarray[Any, Any]
Values = Mapping[str, float | None]  # by the names of an evaluation's values; None: not known yet
ERROR = 0.05
PARTS = (1 / 8, 1 / 4, 1 / 2)  # of the validation data after which one looks; the rest comes without a look
LEAST_SAMPLES = 64  # below that a look says nothing


class StoppedEarly(Exception):  # noqa: N818 - not a fault
    """A candidate that is not worth evaluating to the end. Of the samples seen: `samples`, how many; `accuracy`, the
    metric's mean; `divergence`, that of the outputs. `reason` says why it was stopped."""

    def __init__(self, reason: str, *, samples: int, accuracy: float, divergence: float) -> None:
        super().__init__(reason)
        self.reason, self.samples, self.accuracy, self.divergence = reason, samples, accuracy, divergence


class Screened(StoppedEarly):
    """A candidate whose latency is not worth measuring: even the best that the device's model leaves open is dominated
    by what was measured, or violates a constraint. `latency_ms` is the model's."""

    def __init__(
        self,
        reason: str,
        *,
        samples: int,
        accuracy: float,
        divergence: float,
        latency_ms: float,
        file_bytes: int,
        download_bytes: int,
    ) -> None:
        super().__init__(reason, samples=samples, accuracy=accuracy, divergence=divergence)
        self.latency_ms, self.file_bytes, self.download_bytes = latency_ms, file_bytes, download_bytes


@dataclass(frozen=True, kw_only=True)
class StoppingThreshold:
    """What a candidate must not be surely below. `scores` (n,): a front member's metric of each sample, None: there is
    none; `name` says whose. `least`: the bound of a constraint on the metric, None: none. `rises`: more is better
    (then `least` is a lower bound, else an upper one)."""

    scores: Array | None
    name: str
    least: float | None
    rises: bool


class EarlyStopping(Protocol):
    """What decides that a candidate is not evaluated to its end."""

    def threshold(self, values: Values) -> StoppingThreshold | None:
        """What a candidate with these values, known before its metric, must reach; None: nothing."""

    def screen(self, values: Values) -> str | None:
        """Why the latency of a candidate with these values is not worth measuring; None where it is."""


class Never:
    """Everything is evaluated to its end."""

    def threshold(self, _: Values) -> None:
        """Nothing must be reached."""

    def screen(self, _: Values) -> None:
        """Every latency is measured."""


def looks(samples: int) -> list[int]:
    """After how many samples one looks."""
    return sorted({int(samples * part) for part in PARTS if samples * part >= LEAST_SAMPLES})


def stop_reason(scores: Array, at: Array, threshold: StoppingThreshold, looks: int) -> str | None:
    """Why a candidate with these scores on the samples `at` is hopeless, with confidence 1 - ERROR / looks; None where
    it is not."""
    error, sign = ERROR / looks, 1.0 if threshold.rises else -1.0
    if threshold.scores is not None and _surely_below(sign * scores, sign * threshold.scores[at], error):
        return f"dominated by {threshold.name}: worse on the same {len(at)} validation samples with 95 % confidence"
    if threshold.least is not None and _surely_beyond(sign * scores, sign * threshold.least, error):
        relation = "below" if threshold.rises else "above"
        return f"the metric is {relation} {threshold.least:g} with 95 % confidence after {len(at)} validation samples"
    return None


def _surely_below(scores: Array, others: Array, error: float) -> bool:
    """Whether the mean of `scores` is below that of `others`, samples paired, at this error probability."""
    gap = np.asarray(others, np.float64) - scores
    if np.isin(gap, (-1.0, 0.0, 1.0)).all():
        for_others, against = int((gap == 1).sum()), int((gap == -1).sum())
        return stats.binomial_tail(for_others, for_others + against, 0.5) <= error
    return _mean_is_positive(gap, error)


def _surely_beyond(scores: Array, bound: float, error: float) -> bool:
    """Whether the mean of `scores` is below `bound` at this error probability."""
    values = np.asarray(scores, np.float64)
    if np.isin(values, (0.0, 1.0)).all():
        wrong = int((values == 0).sum())
        return stats.binomial_tail(wrong, len(values), 1.0 - min(max(bound, 0.0), 1.0)) <= error
    return _mean_is_positive(bound - values, error)


def _mean_is_positive(values: Array, error: float) -> bool:
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    mean = float(np.mean(values))
    if spread == 0:
        return mean > 0
    return 0.5 * math.erfc(mean / spread / math.sqrt(2)) <= error


def order_of(samples: int, seed: int) -> Array:
    """The order in which validation samples are seen: the same for all candidates of a study."""
    return np.random.default_rng((seed, samples)).permutation(samples)


def pieces(order: Array, after: Sequence[int]) -> list[Array]:
    """The samples of each part, in that order."""
    return np.split(order, list(after))
