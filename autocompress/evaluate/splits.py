"""The validation and test split of a task, ready to evaluate files; each is looked at before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate.calibration import CalibrationData
from autocompress.evaluate.quality import Split
from autocompress.network.graph.finite import first_refused, not_finite
from autocompress.tasks import LoadedTask

Array = np.ndarray[Any, Any]


class DataSplits:
    """Both splits of a task. Test data are for the final front alone."""

    def __init__(self, task: LoadedTask, calibration: CalibrationData, *, seed: int, threads: int) -> None:
        self._task, self._calibration, self._seed, self._threads = task, calibration, seed, threads

    @cached_property
    def validation(self) -> Split:
        """What the search may look at."""
        return self._split("x_validation", self._task.x_validation, self._task.y_validation)

    @cached_property
    def test(self) -> Split:
        """What no decision of the search depends on."""
        return self._split("x_test", self._task.x_test, self._task.y_test)

    def check(self) -> None:
        """AutocompressError where the float network cannot work with a split; its outputs are kept for later."""
        _ = self._calibration.inputs, self.validation, self.test

    def _split(self, name: str, x: Mapping[str, Array], y: Array | None) -> Split:
        """A split; AutocompressError, naming the first bad sample, where the float network cannot work with it."""
        task, threads, seed = self._task, self._threads, self._seed
        try:
            split = Split(
                x,
                y,
                task.metric,
                task.network,
                threads=threads,
                seed=seed,
                batch=self._calibration.batch,
                signature=task.signature,
            )
        except CandidateError as fault:
            if (at := first_refused(task.network, x)) is None:
                raise
            raise AutocompressError(
                f"{name}: the float network cannot run sample {at}: {fault}; mend or remove it"
            ) from fault
        bad = np.flatnonzero(not_finite(split.baseline_outputs))
        if len(bad):
            raise AutocompressError(
                f"{name}: the float network's outputs hold NaN or infinities for {len(bad)} of "
                f"{len(split.baseline_outputs)} samples, the first of them sample {bad[0]}; mend or remove them"
            )
        return split
