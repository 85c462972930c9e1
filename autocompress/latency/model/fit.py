"""Fitting a calibrated latency model to measured files, and saying how far off it is on others.

The latency of a file is the sum of what its terms (`measure.model.terms`) cost. The costs are the ones >= 0 with about
the least sum of absolute *relative* errors over all files at once: a network of 10 us counts as much as one of 10 ms,
and a disturbed measurement does not bend the fit. A negative cost has no meaning and is what makes unconstrained fits
fail outside their points. It is solved by non-negative least squares (Lawson and Hanson 1974, chapter 23), reweighted
by the inverse of the errors before (Holland and Welsch 1977)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autocompress.errors import AutocompressError
from autocompress.latency.model.terms import NETWORK, Key
from autocompress.specs import CalibratedModel, CalibratedRuntime, Cost, CrossValidation

WHOLE = "network"  # the kind of design that errors are claimed for: a lone operator is not what is deployed
_MOST_FOLDS = 20
_ROUNDS = 4
_LEAST_ERROR = 0.05  # below it errors weigh as squares: half of that is the measurement's own


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measured file. `design`: the network it is a variant of; all variants of one are left out together.
    `largest`: of each term the largest value that a single operator has."""

    design: str
    kind: str
    dtype: str
    terms: Mapping[Key, float]
    largest: Mapping[Key, float]
    latency_ms: float


def fit(samples: Sequence[Sample]) -> dict[Key, float]:
    """Milliseconds per unit of each term that occurs; AutocompressError without a sample."""
    if not samples:
        raise AutocompressError("no file was measured; a calibration needs some")
    keys = _keys(samples)
    return dict(zip(keys, _solve(_matrix(samples, keys), _latencies(samples)).tolist(), strict=True))


def cross_validate(samples: Sequence[Sample]) -> npt.NDArray[np.float64]:
    """predicted / measured - 1 of each sample, by a fit to designs it is none of: shape (samples,).

    Designs are dealt into at most 20 folds; each fold is left out once. AutocompressError with fewer than two
    designs."""
    designs = sorted({sample.design for sample in samples})
    if len(designs) < 2:
        raise AutocompressError(f"{len(designs)} designs cannot be cross-validated; measure two or more")
    keys = _keys(samples)
    matrix, latencies = _matrix(samples, keys), _latencies(samples)
    fold = {design: position % _MOST_FOLDS for position, design in enumerate(designs)}
    folds = np.array([fold[sample.design] for sample in samples])
    predicted = np.empty(len(samples))
    for left_out in range(folds.max() + 1):
        out = folds == left_out
        predicted[out] = matrix[out] @ _solve(matrix[~out], latencies[~out])
    return predicted / latencies - 1


def _solve(matrix: npt.NDArray[np.float64], latencies: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The costs (terms,) of a matrix (samples, terms) for latencies (samples,)."""
    from scipy.optimize import nnls

    relative = matrix / latencies[:, None]
    scale = np.linalg.norm(relative, axis=0)
    scale[scale == 0] = 1.0  # a term that only occurs in what is left out
    relative /= scale
    weights = np.ones(len(latencies))
    for _ in range(_ROUNDS):
        solved: npt.NDArray[np.float64] = nnls(relative * weights[:, None], weights, maxiter=30 * len(scale))[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ solved - 1), _LEAST_ERROR))
    return np.asarray(solved / scale, np.float64)


def _keys(samples: Sequence[Sample]) -> list[Key]:
    return sorted({key for sample in samples for key in sample.terms})


def _matrix(samples: Sequence[Sample], keys: Sequence[Key]) -> npt.NDArray[np.float64]:
    return np.array([[sample.terms.get(key, 0.0) for key in keys] for sample in samples])


def _latencies(samples: Sequence[Sample]) -> npt.NDArray[np.float64]:
    return np.array([sample.latency_ms for sample in samples])


def calibrated_model(
    samples: Sequence[Sample], errors: npt.NDArray[np.float64], runtime: CalibratedRuntime, measured_on: str
) -> CalibratedModel:
    """The fit to all samples as a profile carries it, with the cross-validated `errors` (`cross_validate`)."""
    fitted = fit(samples)
    largest: dict[Key, float] = {}
    for sample in samples:
        for key, value in sample.largest.items():
            largest[key] = max(value, largest.get(key, 0.0))
    costs: dict[str, dict[str, Cost]] = {}
    for dtype, name in sorted({key[:2] for key in fitted if key[1] != NETWORK}):
        own = [key for key in fitted if key[:2] == (dtype, name)]
        cost = Cost(ms_per={k[2]: fitted[k] for k in own}, largest={k[2]: largest[k] for k in own})
        costs.setdefault(dtype, {})[name] = cost
    return CalibratedModel(
        runtime=runtime,
        measured_on=measured_on,
        longest_ms=max(sample.latency_ms for sample in samples),
        network={key[2]: ms for key, ms in fitted.items() if key[1] == NETWORK},
        costs=costs,
        cross_validation={
            dtype: each for dtype in costs if (each := summary(samples, errors, dtype, WHOLE)) is not None
        },
    )


def summary(
    samples: Sequence[Sample], errors: npt.NDArray[np.float64], dtype: str, kind: str | None = None
) -> CrossValidation | None:
    """Median, 90th percentile and largest absolute error of the files of a dtype, mixed ones among them, and, if
    given, of one kind of design; None where there is no such file."""
    chosen = [dtype in sample.dtype and kind in (None, sample.kind) for sample in samples]
    if not any(chosen):
        return None
    absolute = np.abs(errors[np.array(chosen)])
    return CrossValidation(
        files=len(absolute),
        median=float(np.median(absolute)),
        p90=float(np.quantile(absolute, 0.9)),
        largest=float(absolute.max()),
    )
