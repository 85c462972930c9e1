"""What patterns of containers cost, told from few of them, against asking for every one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.errors import CandidateError
from autocompress.search.sampler.container_costs import pattern_cost
from tests.builders.arrays import Array

KINDS = ("float32", "int8")


class Model:
    """A latency model: float layers cost more, each in proportion to its traits; the patterns it was asked for."""

    def __init__(self, layers: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.traits = np.column_stack([rng.uniform(0.1, 1, (layers, 3)), np.ones(layers)])
        self.prices = rng.uniform(0.0, 0.1, (len(KINDS), 4))
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def __call__(self, kind: str, pattern: Array) -> float:
        self.asked.append((kind, tuple(pattern.tolist())))
        return 0.5 + float((pattern == 32) @ self.traits @ self.prices[KINDS.index(kind)])


def containers(layers: int) -> Array:
    """Choices of 32, 8, 8 and 4 bits a layer; the first layer has no integer kernel, the others mostly 8 bits."""
    rows = np.tile([32, 8, 8, 4], (layers, 1))
    rows[0] = 32
    return np.stack([rows, rows])


@given(st.integers(1, 40), st.integers(0, 20), st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_cost_that_is_linear_in_the_traits_is_known_from_few_layers(layers: int, seed: int, told: bool) -> None:
    model, container = Model(layers, seed), containers(layers)
    weights = np.full(layers, 1 / layers)
    cost = pattern_cost(KINDS, container, weights, model, 0.1, traits=model.traits if told else None)
    most = 2 * (1 + 2 * (10 if told and layers > 17 else layers))
    assert len(model.asked) <= most
    usual = np.array([32, *[8] * (layers - 1)])
    for kind in range(2):
        whole = 0.5 + model.traits[0] @ model.prices[kind]
        assert cost.base[kind] == pytest.approx(whole)
        wanted = np.where(container[kind] == 32, (model.traits @ model.prices[kind])[:, None], 0.0)
        wanted[0] = 0.0
        assert cost.extra[kind] == pytest.approx(wanted, abs=1e-9)
    assert (cost.doubt[:, container[0] != usual[:, None]] > 1e-5).all()


def test_a_pattern_that_cannot_be_built_costs_nothing_and_no_model_says_nothing() -> None:
    def none_of_four_bits(kind: str, pattern: Array) -> float:
        if (pattern == 4).any():
            raise CandidateError("no kernel")
        return 1.0 + 0.1 * float((pattern == 32).sum())

    cost = pattern_cost(KINDS, containers(3), np.full(3, 1 / 3), none_of_four_bits, 0.1)
    assert cost.extra[0, 1].tolist() == pytest.approx([0.1, 0.0, 0.0, 0.0])
    unknown = pattern_cost(KINDS, containers(3), np.full(3, 1 / 3), None, 1.0)
    assert not unknown.extra.any()
    assert unknown.base.tolist() == [1.0, 1.0]
