"""Second moments and weights that any arithmetic of the solver can rely on, whatever calibration data gave.

A moment is positive semidefinite by its definition, but not by its digits: taking the mean's part from one in single
precision leaves a constant input a variance of some ten-millionths of its square, of either sign. What is sound is
given back as the very same array."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DAMPING = 0.01  # of the mean diagonal, as in GPTQ and SparseGPT
_SURE = 0.5  # of the damping: what is left of it where a moment counts as semidefinite; a condition of 200 n at most
_WIDE = 640  # columns from which factorising pays: there LAPACK's routines for positive definite matrices are used
_ORDINARY = {"weight": (2.0**-20, 2.0**20), "moment": (2.0**-40, 2.0**40)}  # whose products fit single precision


def damped(moment: Array, share: float = 1.0) -> Array:
    """The moment (G, n, n) with DAMPING x its mean diagonal added (or a `share` of that); inputs that are never active
    get a diagonal of one."""
    diagonal = np.einsum("gnn->gn", moment)
    mean = diagonal.mean(axis=1, keepdims=True)
    extra = np.where(mean > 0, DAMPING * mean, 1.0)
    found: Array = moment + np.eye(moment.shape[-1]) * (extra if share == 1.0 else share * extra)[:, None, :]
    return found


def semidefinite(moment: Array) -> Array:
    """The moment (G, n, n) itself where its damped form is surely positive definite; else each that is not, without its
    negative eigenvalues: the nearest semidefinite matrix (Higham 1988, "Computing a nearest symmetric positive
    semidefinite matrix", theorem 2.1). Inputs that overflowed count as never
    active."""
    if _is_sound(moment):
        return moment
    return np.stack([each if _is_sound(each[None]) else _projected(each) for each in moment])


def _is_sound(moment: Array) -> bool:
    if not np.isfinite(moment).all() or (np.einsum("gnn->g", moment) < 0).any():
        return False
    try:
        np.linalg.cholesky(damped(moment, _SURE))
    except np.linalg.LinAlgError:
        return False
    return True


def _projected(moment: Array) -> Array:
    known = np.isfinite(np.diag(moment))
    finite = np.where(np.isfinite(moment) & known & known[:, None], moment, 0.0)
    values, vectors = np.linalg.eigh((finite + finite.T) / 2)
    found: Array = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return (found + found.T) / 2


def inverse(matrix: Array) -> Array:
    """The inverse of positive definite matrices (G, n, n), in their precision. LinAlgError where one is not."""
    if matrix.shape[-1] <= _WIDE:
        found: Array = np.linalg.inv(matrix)
        return found
    return np.stack([_mirrored(_lapack("potri", _lapack("potrf", each))) for each in matrix])


def inverse_factor(matrix: Array) -> Array:
    """The upper triangular U (G, n, n) with U^T U the inverse of positive definite matrices. LinAlgError where one is
    not."""
    if matrix.shape[-1] <= _WIDE:
        found: Array = np.linalg.cholesky(np.linalg.inv(matrix)).transpose(0, 2, 1)
        return found
    # With both axes turned round the lower factor of a matrix becomes its upper one: M = V V^T, and U = V^-1.
    turned = (_lapack("trtri", _lapack("potrf", each[::-1, ::-1])) for each in matrix)
    return np.stack([np.tril(each)[::-1, ::-1] for each in turned])


def solve(matrix: Array, right: Array) -> Array:
    """X with matrix X = right, for positive definite matrices (G, n, n) and (G, n, m)."""
    from scipy.linalg import cho_solve

    if matrix.shape[-1] > _WIDE:
        try:
            pairs = zip(matrix, right, strict=True)
            return np.stack([cho_solve((_lapack("potrf", each), True), values) for each, values in pairs])
        except np.linalg.LinAlgError:  # not definite by its digits
            pass
    found: Array = np.linalg.solve(matrix, right)
    return found


def _lapack(name: str, matrix: Array) -> Array:
    """What a LAPACK routine makes of the lower triangle of a symmetric or triangular matrix (n, n)."""
    from scipy.linalg import lapack

    routine = getattr(lapack, ("s" if matrix.dtype == np.float32 else "d") + name)
    found: Array
    found, failed = routine(matrix, lower=1)
    if failed:
        raise np.linalg.LinAlgError(f"a matrix of {len(matrix)} columns is not positive definite")
    return found


def _mirrored(lower: Array) -> Array:
    """The symmetric matrix of this lower triangle."""
    below = np.tril(lower, -1)
    found: Array = np.tril(lower) + below.T
    return found


def unit_of(size: float, kind: str) -> float:
    """1 for a size that is ordinary for a "weight" or a "moment", or zero; else the power of two that makes it one."""
    least, most = _ORDINARY[kind]
    if size == 0.0 or least <= size <= most:
        return 1.0
    return float(2.0 ** np.clip(np.frexp(size)[1], -1000, 1000))
