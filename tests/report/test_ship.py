"""What a study recommends: figures, comparisons, doubts, and the command that exports it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.front import evaluated
from autocompress.records.study import TrialRecord
from autocompress.report import ship
from autocompress.report.leaderboard import groups_of
from autocompress.report.leaderboard_text import document, markdown
from tests.builders.records import ALL, KNEE, make_record, make_trial

PLAIN = Configuration(layers={"conv_2d_0": LayerChoice(bits=8), "conv_2d_1": LayerChoice(bits=8)}, activations="int8")


def measured(
    number: int, accuracy: float, ratio: float, ends: tuple[float, float], size: int, **changes: Any
) -> TrialRecord:
    return make_trial(
        number,
        accuracy,
        0.3 * ratio,
        size,
        latency_source="measured",
        latency_error=None,
        ratio_to_baseline=ratio,
        ratio_ci=ends,
        latency_ci_ms=(0.3 * ends[0], 0.3 * ends[1]),
        **changes,
    )


def test_the_card_is_that_of_the_knee_with_its_test_value_and_command() -> None:
    sha256 = evaluated(KNEE).sha256
    record = make_record(*ALL, test_accuracy={"baseline": 0.918, sha256: 0.905}, test_ci={sha256: (0.89, 0.92)})
    card = ship.shipped(record, ["--runs", "r"])
    assert card is not None
    assert (card["trial"], card["pick"], card["sha256"]) == (1, "knee", sha256)
    assert (card["split"], card["accuracy"], card["accuracy_ci"], card["float_accuracy"]) == (
        "test",
        0.905,
        [0.89, 0.92],
        0.918,
    )
    assert (card["flash_bytes"], card["download_bytes"]) == (40_000, 20_000)
    assert card["command"] == "autocompress export a --pick knee --runs r"
    said = dict(ship.lines(card))
    assert said["accuracy"] == "accuracy 0.9050 [0.8900, 0.9200] on test data, float 0.9180"
    assert said["size"] == "40.0 KB flash (×0.13 of float) · 20.0 KB download (×0.07)"
    assert "plain int8 was not tried" in said["latency"]


def test_a_validation_value_says_so_and_an_empty_front_has_no_card() -> None:
    card = ship.shipped(make_record(KNEE))
    assert card is not None
    assert (card["split"], card["accuracy"]) == ("validation", 0.91)
    assert any("was selected on" in line for line in card["uncertain"])
    assert any("the latency is modelled (± 3.4 %)" in line for line in card["uncertain"])
    assert ship.shipped(make_record()) is None
    assert ship.section([]) == ""


def test_latency_is_compared_with_plain_int8_by_the_ratios_to_the_float_network() -> None:
    int8 = measured(0, 0.915, 0.5, (0.45, 0.55), 80_000, configuration=PLAIN)
    small = measured(1, 0.914, 0.4, (0.39, 0.41), 20_000)
    card = ship.card_of(make_record(int8, small), small)
    against = card["to_int8"]
    assert (against["trial"], against["latency"]) == (0, pytest.approx(0.8))
    low = math.hypot(math.log(0.4 / 0.39), math.log(0.55 / 0.5))
    high = math.hypot(math.log(0.41 / 0.4), math.log(0.5 / 0.45))
    assert against["latency_ci"] == pytest.approx([0.8 * math.exp(-low), 0.8 * math.exp(high)])
    assert not any("plain int8" in line for line in card["uncertain"])
    level = measured(2, 0.914, 0.49, (0.45, 0.53), 20_000)
    assert (
        "the latency cannot be told from the plain int8 file's"
        in ship.card_of(make_record(int8, level), level)["uncertain"]
    )
    assert card["to_float"]["latency_ci"] == [0.39, 0.41]


def test_a_leaderboard_recommends_the_knee_of_all_studies() -> None:
    group, record = groups_of([make_record(*ALL)])[0], make_record(*ALL)
    worse = replace(make_record(make_trial(0, 0.9, 0.25, 60_000)), name="b")
    both = groups_of([worse, record])[0]
    for one in (group, both):
        assert one.knee is not None
        assert (one.knee.record.name, one.knee.trial.number) == ("a", 1)
    board = document([both], [])
    assert board["groups"][0]["ship"]["command"] == "autocompress export a --pick 1"
    assert "autocompress export a --pick 1" in markdown(board)
