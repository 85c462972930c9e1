"""Where configurations come from: the uniform baselines of the space first, then a sampler of Optuna's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autocompress.errors import AutocompressError, unknown_name
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.search.sampler.attempts import Places
from autocompress.search.sampler.encoding import ACTIVATIONS, WHOLE, Widths, width_parameter

Choices = Mapping[str, tuple[LayerChoice, ...]]  # by layer name, in layer order


class Reseeded(BaseSampler):
    """A stock sampler made anew for each trial from (seed, its place): what it proposes depends on nothing but the
    seed, the place and the trials stored, so an uninterrupted study repeats bit for bit."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._number, self._inner, self._places = -1, make(seed), Places()

    def _for(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            place = self._places.of(trial, study.get_trials(deepcopy=False))
            drawn = np.random.default_rng((self._seed, place)).integers(2**31)
            self._number, self._inner = trial.number, self._make(int(drawn))
        return self._inner

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the stock sampler."""
        return self._for(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the stock sampler."""
        return self._for(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the stock sampler."""
        return self._for(study, trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the stock sampler."""
        self._for(study, trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As the stock sampler."""
        self._for(study, trial).after_trial(study, trial, state, values)


def _tpe(seed: int) -> BaseSampler:
    # Joint: layers depend on each other, and one draw for all parameters costs a third of one each.
    return TPESampler(seed=seed, n_startup_trials=10, multivariate=True)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(seed=seed, population_size=30)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


def _gp(seed: int) -> BaseSampler:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as fault:
        raise AutocompressError("sampler 'gp' needs torch; install it with: pip install 'autocompress[gp]'") from fault
    return optuna.samplers.GPSampler(seed=seed, deterministic_objective=True)


STOCK: dict[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "nsga2": _nsga2, "random": _random, "gp": _gp}
GUIDED = "guided"
_OWN = frozenset(STOCK)


def make_sampler(name: str, seed: int, guided: Callable[[], BaseSampler]) -> BaseSampler:
    """The sampler called `name`, of Optuna's or what `guided` makes; AutocompressError for an unknown one or one whose
    extra is missing."""
    if name != GUIDED and name not in STOCK:
        raise unknown_name("sampler", name, (GUIDED, *STOCK))
    return guided() if name == GUIDED else Reseeded(STOCK[name], seed)


def register_sampler(name: str, make: Callable[[int], BaseSampler]) -> None:
    """Make a sampler of Optuna's kind available in this process under `name`. `make` is called with a seed before each
    trial, so that a study repeats bit for bit. AutocompressError for a name that is taken."""
    if name == GUIDED or name in _OWN:
        raise AutocompressError(f"'{name}' is a sampler of autocompress; give yours another name")
    STOCK[name] = make


def suggest(
    trial: optuna.Trial | optuna.trial.FixedTrial, activations: Sequence[str], choices: Choices, widths: Widths = WHOLE
) -> Configuration:
    """The configuration of a trial: one categorical parameter a layer, one for the activations and one a channel group
    that may lose channels; single-valued ones are not registered (each costs the storage a row for every trial)."""
    kind = activations[0] if len(activations) == 1 else trial.suggest_categorical(ACTIVATIONS, list(activations))
    layers = {}
    for name, offered in choices.items():
        by_text = {choice.to_json(): choice for choice in offered}
        text = next(iter(by_text)) if len(by_text) == 1 else trial.suggest_categorical(name, list(by_text))
        layers[name] = by_text[str(text)]
    kept = {name: int(trial.suggest_categorical(width_parameter(name), list(row))) for name, row in widths.items()}
    return Configuration(activations=str(kind), layers=layers, channels=fewer(kept, widths))


def configuration_of(
    trial: FrozenTrial, activations: Sequence[str], choices: Choices, widths: Widths = WHOLE
) -> Configuration:
    """The (normalised) configuration of a stored trial."""
    return suggest(optuna.trial.FixedTrial(trial.params), activations, choices, widths).normalised()


def fewer(kept: Mapping[str, int], widths: Widths) -> dict[str, int]:
    """What a configuration says of channels: only the groups that lose some."""
    return {name: count for name, count in kept.items() if count < widths[name][0]}


def uniform_baselines(
    activations: Sequence[str], choices: Choices, widths: Widths = WHOLE
) -> tuple[Configuration, ...]:
    """The uniform baselines: for each bit-width of integers that the space offers, widest first, and each
    activations, all layers at that bit-width, dense and unclustered; a layer that does not offer it takes the next
    wider one it has. Then the widest of them with all groups of channels one step narrower, two, ...; one that has no
    such step its last."""
    offered = sorted({c.bits for row in choices.values() for c in row if _plain(c) and c.is_integer}, reverse=True)
    plain = [{name: _nearest(row, bits) for name, row in choices.items()} for bits in offered]
    found = [Configuration(activations=kind, layers=layers) for layers in plain for kind in activations]
    widest = {name: _nearest(row, max(offered, default=32)) for name, row in choices.items()}
    for step in range(1, max(map(len, widths.values()), default=1)):
        kept = {name: row[min(step, len(row) - 1)] for name, row in widths.items()}
        found += [Configuration(activations=kind, layers=widest, channels=kept) for kind in activations]
    unique = {c.digest: c for c in found if not c.is_baseline}
    return tuple(unique.values())


def _plain(choice: LayerChoice) -> bool:
    return choice.sparsity == 0 and choice.clusters is None


def _nearest(offered: Sequence[LayerChoice], bits: int) -> LayerChoice:
    plain = [c for c in offered if _plain(c)] or list(offered)
    wider = [c for c in plain if c.bits >= bits]
    return min(wider, key=lambda c: c.bits) if wider else max(plain, key=lambda c: c.bits)


def parameters(
    configuration: Configuration, activations: Sequence[str], choices: Choices, widths: Widths = WHOLE
) -> dict[str, Any]:
    """A configuration as the parameters `suggest` would have registered."""
    values: dict[str, Any] = {} if len(activations) == 1 else {ACTIVATIONS: configuration.activations}
    values |= {name: configuration.layers[name].to_json() for name, row in choices.items() if len(row) > 1}
    return values | {width_parameter(name): configuration.channels.get(name, row[0]) for name, row in widths.items()}
