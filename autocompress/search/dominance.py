"""What a candidate must be better than, so that evaluating it to the end is worth it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from autocompress.evaluate.early_stopping import StoppingThreshold, Values
from autocompress.records.configuration import Configuration
from autocompress.records.constraint import meets
from autocompress.records.study import Evaluation, value_name
from autocompress.search.specification import Specification
from autocompress.search.storage.finished_trials import FinishedTrials

Array = np.ndarray[Any, Any]
MOST_STOPS = 4  # in a row, early or screened, then one trial is evaluated to the end


class Dominance:
    """Early stopping by the complete trials of a study that may dominate a candidate. `scores` gives the metric of each
    one; configurations whose digest is in `spared` are always evaluated to the end."""

    def __init__(
        self,
        specification: Specification,
        finished: FinishedTrials,
        scores: Callable[[Evaluation], Array | None],
        spared: Collection[str],
        screens: bool = False,
    ) -> None:
        self._specification, self._finished_trials, self._scores, self._spared = specification, finished, scores, spared
        self._screens = screens
        self._sign = 1 if specification.task.metric.higher_is_better else -1

    def may_end(self, configuration: Configuration) -> bool:
        """Not a uniform baseline, with which everything is compared; and not the next after MOST_STOPS in a row: the
        sampler learns what the metric does only from trials that are complete."""
        stopped = self._finished_trials.stopped_in_a_row(MOST_STOPS)
        return not stopped and configuration.digest not in self._spared

    def threshold(self, values: Values) -> StoppingThreshold | None:
        """What a candidate with these values must reach: the most accurate feasible trial that is at least as good in
        every other objective, and the constraint on the metric."""
        rises, least = self._specification.task.metric.higher_is_better, None
        for constraint in self._specification.constraints:
            if constraint.name == "accuracy" and (constraint.relation == ">=") == rises:
                least = constraint.bound
        dominating = self._dominating(values)
        if dominating is None and least is None:
            return None
        scores = None if dominating is None else self._scores(dominating[1])
        name = "" if dominating is None else f"trial {dominating[0]}"
        return StoppingThreshold(scores=scores, name=name, least=least, rises=rises)

    def _dominating(self, values: Values) -> tuple[int, Evaluation] | None:
        """The most accurate of the feasible trials that are at least as good as these values in every other objective:
        its number and evaluation; None where there is none."""
        specification = self._specification
        others = [value_name(name, specification.size) for name in specification.objectives if name != "metric"]
        if "metric" not in specification.objectives or any(values[name] is None for name in others):
            return None
        feasible = [
            (number, evaluation)
            for number, evaluation in self._finished_trials.complete()
            if all(_at_most(evaluation.value(name), values[name]) for name in others)
            and meets(evaluation, specification.constraints)
        ]
        return max(feasible, key=lambda pair: (self._sign * pair[1].accuracy, -pair[0]), default=None)

    def screen(self, values: Values) -> str | None:
        """Why a latency is not worth measuring: at its best by the model it violates a constraint, or a trial that was
        measured is at least as good in every objective. None where it is."""
        if not self._screens:
            return None
        for constraint in self._specification.constraints:
            least = values.get(constraint.name) if constraint.name in ("latency_ms", "energy_mj") else None
            if least is not None and constraint.relation == "<=" and least > constraint.bound:
                return f"not measured: {constraint.name} is at least {least:.4g} by the device's model"
        dominating, accuracy = self._dominating(values), values["accuracy"]
        if dominating is None or accuracy is None or self._sign * dominating[1].accuracy < self._sign * accuracy:
            return None
        return f"not measured: dominated by trial {dominating[0]} even at the least latency by the device's model"


def _at_most(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value <= bound
