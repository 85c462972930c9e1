"""Variations of training samples, for which the float network says what is right.

Images: `mirror` (left and right, each with probability one half), `shift` (up to a sixteenth of each side, the edge
repeated). Inputs of any kind: `mix`, a sample and another one of its batch in a random ratio, labels alike: mixup
(Zhang et al., arXiv 1710.09412, eq. 1) with the ratio uniform. The teacher sees the same mixture (Beyer et al., arXiv
2106.05237, sec. 2, "function matching")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError, unknown_name

Array = np.ndarray[Any, Any]
AUGMENTS = ("mirror", "shift", "mix")
_SHIFT = 16  # a side over this is the longest shift
_IMAGE_AXES = 4  # (n, height, width, channels)


def check_augments(augments: Sequence[str], x: Sequence[Array]) -> None:
    """AutocompressError for variations that these inputs (n, ...) do not allow."""
    for name in augments:
        if name not in AUGMENTS:
            raise unknown_name("variation", name, AUGMENTS)
    if {"mirror", "shift"} & set(augments) and not any(map(_is_image, x)):
        raise AutocompressError(
            "--augment mirror and shift are for images, and no input has the shape (n, height, width, channels); "
            "use --augment mix"
        )
    if "mix" in augments and not all(np.issubdtype(values.dtype, np.floating) for values in x):
        raise AutocompressError("--augment mix needs inputs that are floats; integers cannot be mixed")


def varied(
    x: Sequence[Array], labels: Array, augments: Sequence[str], rng: np.random.Generator
) -> tuple[list[Array], Array]:
    """The batch with the variations drawn: for each sample, the same one in all its inputs (n, ...). `labels` (n, ...)
    are numbers that may be mixed: classes as rows of a unit matrix."""
    found, samples = list(x), len(x[0])
    if "mirror" in augments:
        chosen = rng.random(samples) < 0.5
        found = [_mirrored(values, chosen) if _is_image(values) else values for values in found]
    if "shift" in augments:
        share = rng.uniform(-1, 1, (2, samples))
        found = [_shifted(values, share) if _is_image(values) else values for values in found]
    if "mix" in augments:
        others, share = rng.permutation(samples), rng.random(samples)
        found, labels = [_mixed(values, others, share) for values in found], _mixed(labels, others, share)
    return found, labels


def _is_image(values: Array) -> bool:
    return values.ndim == _IMAGE_AXES


def _mirrored(images: Array, chosen: Array) -> Array:
    found = images.copy()
    found[chosen] = images[chosen, :, ::-1]
    return found


def _shifted(images: Array, share: Array) -> Array:
    """`share` (2, n) of the longest shift, down and to the right."""
    found: Array = images
    rows = np.arange(len(images))[:, None]
    for axis, shares in zip((1, 2), share, strict=True):
        side = images.shape[axis]
        steps = np.rint(shares * max(1, side // _SHIFT)).astype(int)
        source = np.clip(np.arange(side) - steps[:, None], 0, side - 1)
        found = found[rows, source] if axis == 1 else found.swapaxes(1, 2)[rows, source].swapaxes(1, 2)
    return found


def _mixed(values: Array, others: Array, share: Array) -> Array:
    ratio = share.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    found: Array = ratio * values + (1 - ratio) * values[others]
    return found
