"""The memory of a file, estimated: the planner's arena, and what comes to it."""

from __future__ import annotations

import itertools

from autocompress.latency.model.memory import _Life, estimate_memory, planned_bytes
from tests.builders.tiny_models import dense_model


def test_tensors_that_do_not_live_together_share_their_place() -> None:
    chain = [_Life(6400, 0, 0), _Life(12800, 0, 1), _Life(6400, 1, 2), _Life(64, 2, 3)]
    assert planned_bytes(chain) == 12800 + 6400
    assert planned_bytes([_Life(1, 0, 9), _Life(1, 0, 9)]) == 128  # each begins at a multiple of 64


def test_a_hole_is_filled() -> None:
    lives = [_Life(640, 0, 9), _Life(320, 0, 4), _Life(256, 5, 9), _Life(64, 0, 9)]
    assert planned_bytes(lives) == 640 + 320 + 64


def test_no_two_that_live_together_overlap_whatever_the_order() -> None:
    lives = [_Life(640, 0, 3), _Life(320, 2, 5), _Life(320, 4, 6), _Life(128, 1, 6)]
    assert {planned_bytes(order) for order in itertools.permutations(lives)} == {640 + 320 + 128}


def test_parts_of_an_estimate() -> None:
    model = dense_model()
    found = estimate_memory(model)
    assert found.file_bytes == len(model)
    assert found.total_bytes == found.file_bytes + found.arena_bytes + found.weights_bytes
    assert found.arena_bytes % 64 == 0 < found.arena_bytes
