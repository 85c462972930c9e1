"""A trial's place: its number in a study in which no process died."""

from __future__ import annotations

import optuna
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from autocompress.search.sampler.attempts import Places

Fate = st.sampled_from(["complete", "fails", "dies", "dies before its parameters"])


def made(number: int, fate: str, retry_of: int | None) -> FrozenTrial:
    attrs: dict[str, object] = {} if retry_of is None else {"retry_of": retry_of}
    if fate == "fails":
        attrs["reason"] = "no kernel"
    given_ = fate != "dies before its parameters"
    trial = optuna.trial.create_trial(
        state=TrialState.COMPLETE if fate == "complete" else TrialState.FAIL,
        value=0.0 if fate == "complete" else None,
        params={"a": "x"} if given_ else {},
        distributions={"a": CategoricalDistribution(["x"])} if given_ else {},
        user_attrs=attrs,
    )
    trial.number = number
    return trial


@given(st.lists(Fate, max_size=20))
def test_places_are_the_numbers_of_a_study_that_was_never_cut(fates: list[str]) -> None:
    """One trial after the other; one that died with parameters runs again next, as a queued trial does."""
    trials: list[FrozenTrial] = []
    expected, place, again = [], 0, None
    for number, fate in enumerate(fates):
        trials.append(made(number, fate, again))
        expected.append(place)
        again = number if fate == "dies" else None
        place += fate in ("complete", "fails")
    if again is not None:  # a dead trial is queued again at once
        trials.append(made(len(trials), "complete", again))
        expected.append(place)
    assert [Places().of(trial, trials) for trial in trials] == expected
    growing = Places()
    assert [growing.of(trial, trials[: trial.number + 1]) for trial in trials] == expected
