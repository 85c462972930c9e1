"""A candidate's outputs on validation data: run part by part, and ended where it is surely not worth the rest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from autocompress.compression.divergence import divergence
from autocompress.evaluate import early_stopping
from autocompress.evaluate.early_stopping import StoppedEarly, StoppingThreshold
from autocompress.evaluate.quality import Split

Array = np.ndarray[Any, Any]
REMEMBERED = 256  # files whose scores are kept: more than a front has, and 10 MB where there are 10,000 samples


class Validator:
    """Runs files on a split in an order that `seed` draws, and remembers the scores of the last ones."""

    def __init__(self, split: Split, seed: int) -> None:
        self._split, self._seed = split, seed
        self._scores: OrderedDict[str, Array] = OrderedDict()  # by sha256, the last used at the end

    def divergence(self, outputs: Array) -> float:
        """How far outputs on all data are from the float network's, in the mean."""
        return self._apart(self._split.baseline_outputs, outputs)

    def outputs(self, model: bytes, threshold: StoppingThreshold | None) -> Array:
        """The outputs on all data; StoppedEarly after a part where the candidate is surely below its bar."""
        samples = len(self._split.baseline_outputs)
        after = early_stopping.looks(samples)
        if threshold is None or not after or not self._split.scored:
            return self._split.outputs(model)
        order = early_stopping.order_of(samples, self._seed)
        found: list[Array] = []
        for piece in early_stopping.pieces(order, after):
            found.append(self._split.outputs(model, piece))
            seen = order[: sum(map(len, found))]
            if len(seen) < samples:
                self._look(np.concatenate(found), seen, threshold, len(after))
        outputs = np.concatenate(found)
        whole = np.empty_like(outputs)
        whole[order] = outputs
        return whole

    def _look(self, outputs: Array, seen: Array, threshold: StoppingThreshold, looks: int) -> None:
        scores = self._split.scores(outputs, seen)
        assert scores is not None
        reason = early_stopping.stop_reason(scores, seen, threshold, looks)
        if reason is not None:
            apart = self._apart(self._split.baseline_outputs[seen], outputs)
            raise StoppedEarly(reason, samples=len(seen), accuracy=float(scores.mean()), divergence=apart)

    def _apart(self, reference: Array, outputs: Array) -> float:
        return float(divergence(reference, outputs, self._split.signature).mean())

    def remember(self, sha256: str, outputs: Array) -> None:
        """Keep the scores of a file's outputs on all data."""
        scores = self._split.scores(outputs) if self._split.scored else None
        if scores is not None:
            self._scores[sha256] = scores.astype(np.float32)
            while len(self._scores) > REMEMBERED:
                self._scores.popitem(last=False)

    def scores(self, sha256: str, file: Callable[[], bytes]) -> Array | None:
        """The metric of each sample by a file; None where the metric has none. `file` is asked for, and run, where its
        scores are not remembered."""
        if not self._split.scored:
            return None
        if sha256 not in self._scores:
            self.remember(sha256, self._split.outputs(file()))
        self._scores.move_to_end(sha256)
        return self._scores[sha256]
