"""What techniques save and cost: the figures of the sampler's posterior, and the lines people read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest

from autocompress.evaluate.networks import WidthEffects
from autocompress.records.configuration import Configuration
from autocompress.records.study import Evaluation, Importance
from autocompress.report.importance import advice_lines, importance_lines, whole_channel_lines
from autocompress.search.sampler.encoding import EncodedSpace
from autocompress.search.sampler.stock import suggest
from tests.builders.arrays import Array
from tests.builders.made_up_network import BASE_MS, World, guided, new_study, objective, world
from tests.builders.optional import present
from tests.builders.records import ALL, make_record

ROWS = (
    Importance(layer="conv_2d_0", technique="sparsity", value=0.5, saves_bytes=200.0, costs=0.004),
    Importance(layer="conv_2d_1", technique="sparsity", value=0.8, saves_bytes=5000.0, costs=0.001),
    Importance(layer="conv_2d_1", technique="bits", value=4, saves_bytes=3000.0, costs=0.003),
)


def test_lines_put_the_largest_savings_first_and_name_the_best_and_the_worst_bargain() -> None:
    record = replace(make_record(*ALL), importance=ROWS)
    lines = importance_lines(record)
    assert lines[2].split("  ")[0] == "conv_2d_1"
    assert "80 %: +5.00 KB, -0.0010" in lines[2]
    assert "50 %: +0.20 KB, -0.0040" in lines[3]
    assert advice_lines(record) == [
        "cheapest: sparsity of conv_2d_1; go further there first",
        "dearest: bits of conv_2d_1, 0.0010 accuracy a KB; undo it first",
    ]  # what saves a twentieth of the largest saving, or less, is no bargain either way


GROUPS = (
    Importance(
        layer="conv_2d_1",
        technique="channels",
        value=8,
        of=32,
        saves_bytes=9000.0,
        saves_latency_ms=0.0125,
        costs=0.02,
        sensitivity=0.031,
        table_sensitivity=0.052,
        trials=7,
    ),
    Importance(
        layer="conv_2d_0",
        technique="channels",
        value=24,
        of=32,
        used=False,
        saves_bytes=300.0,
        saves_latency_ms=0.004,
        costs=0.001,
        sensitivity=0.002,
        table_sensitivity=0.001,
        trials=0,
    ),
    Importance(
        layer="conv_2d_1",
        technique="channels",
        value=4,
        of=32,
        used=False,
        saves_bytes=500.0,
        saves_latency_ms=0.005,
        costs=0.2,
        sensitivity=0.4,
        table_sensitivity=0.3,
        trials=2,
    ),
)


def test_groups_of_channels_have_a_table_of_their_own_and_a_step_further() -> None:
    record = replace(make_record(*ALL), importance=(*ROWS, *GROUPS))
    lines = [line for line in importance_lines(record) if " of 32" in line]
    assert [line.split("  ")[0] for line in lines] == ["conv_2d_1", "conv_2d_1", "conv_2d_0"]
    assert " ".join(lines[0].split()) == "conv_2d_1 8 of 32 +9.00 KB +12.5 µs -0.0200 0.052, 0.031 7"
    assert lines[1].split()[1:5] == ["next:", "4", "of", "32"]
    assert advice_lines(record)[1:] == [
        "dearest: channels of conv_2d_1, 0.0022 accuracy a KB; undo it first",
        "faster: 24 of 32 channels of conv_2d_0, 4.0 µs less for 0.0010 accuracy; try that next",
    ]
    slow = replace(record.baseline, measurement=replace(record.baseline.measurement, latency_ms=3.0))
    assert "+0.013 ms" in importance_lines(replace(record, baseline=slow))[-3]


def test_only_groups_of_channels_are_shown_where_no_layer_has_another_choice() -> None:
    lines = importance_lines(replace(make_record(*ALL), importance=GROUPS))
    assert lines[0].startswith("What fewer channels save")


def test_importance_of_an_older_version_is_still_read() -> None:
    old: dict[str, Any] = {"layer": "conv_2d_0", "technique": "bits", "value": 4.0, "saves_bytes": 10.0, "costs": 0.1}
    record = replace(make_record(*ALL), importance=(Importance(**old),))
    assert importance_lines(record)[-1].split("  ")[0] == "conv_2d_0"


def test_layers_that_keep_all_channels_are_named_with_the_reason() -> None:
    whole = {f"conv_2d_{n}": "TRANSPOSE mixes or moves channels" for n in range(6)}
    record = replace(make_record(*ALL), whole_channels=whole | {"fully_connected_0": "an output of the network"})
    assert importance_lines(record) == [
        "Layers that keep all their channels:",
        f"{', '.join(whole)}: TRANSPOSE mixes or moves channels",
        "fully_connected_0: an output of the network",
    ]
    assert whole_channel_lines(record, 4)[0] == (
        "conv_2d_0, conv_2d_1, conv_2d_2, conv_2d_3 and 2 more: TRANSPOSE mixes or moves channels"
    )


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert importance_lines(make_record(*ALL)) == []
    assert advice_lines(make_record(*ALL)) == []


def test_importance_is_what_a_layer_really_loses_without_the_technique() -> None:
    where = world()
    sampler = guided(where)
    study: optuna.Study = new_study(sampler)
    study.optimize(objective(where), n_trials=30)
    trials = study.get_trials(deepcopy=False)
    picked = max((t for t in trials if t.values), key=lambda t: t.values[0] - t.values[2] / 1e5)
    rows = sampler.importance(trials, picked.number)
    assert rows
    land = where.encoded_space
    row = land.row_of(picked.params, "activations")
    assert row is not None
    here, _ = where.evaluation(land.configuration(row))
    off: dict[str, Any] = {"sparsity": 0.0, "bits": 8, "clusters": None}
    for found in rows:
        layer = list(land.choices).index(found.layer)
        without = replace(land.rows[layer][row[1 + layer]], **{found.technique: off[found.technique]})
        changed = list(row)
        changed[1 + layer] = land.rows[layer].index(without)
        there, _ = where.evaluation(land.configuration(changed))
        assert found.saves_bytes == pytest.approx(there.download_bytes - here.download_bytes, abs=400)
        assert found.costs == pytest.approx(there.accuracy - here.accuracy, abs=0.01)
    assert np.isfinite([found.costs for found in rows]).all()
    assert {found.technique for found in rows} <= {"sparsity", "bits", "clusters"}
    assert all(found.used and found.saves_latency_ms is not None for found in rows)
    for found in rows:
        held = [Configuration.from_dict(t.user_attrs["evaluation"]["configuration"]) for t in trials if t.values]
        same = [c for c in held if getattr(c.layers[found.layer], found.technique) == found.value]
        assert found.trials == len(same)


WIDTHS = {"conv_2d_0": (32, 16, 8), "conv_2d_2": (64, 32, 16)}
WIDER = {"conv_2d_0": 8.0, "conv_2d_2": 0.3}  # by what a group's sensitivity differs from its table


class Narrower(World):
    """The made-up network with two groups of channels: what the layers of a group weigh and work shrinks with it."""

    def evaluation(self, configuration: Configuration) -> tuple[Evaluation, float]:
        whole, sensitivity = World(encoded_space=whole_of(self.encoded_space), truth=self.truth).evaluation(
            replace(configuration, channels={})
        )
        x = self.row(configuration)
        layers = len(self.encoded_space.rows)
        parts = self.encoded_space.gather(np.exp(self.encoded_space.seen.log_sensitivity), x)[0, layers:]
        sensitivity += float(parts @ np.array(list(WIDER.values())))
        size = round(float(self.encoded_space.sizes(x).sum()) + 2000)
        latency = present(whole.measurement.latency_ms) * float(
            self.encoded_space.work(x, self.encoded_space.latency)[0]
        )
        found = replace(
            whole,
            configuration=configuration,
            accuracy=0.93 - min(0.4 * sensitivity**0.9, 0.8),
            download_bytes=size,
            measurement=replace(whole.measurement, latency_ms=latency),
        )
        return found, sensitivity

    def row(self, configuration: Configuration) -> Array:
        land = self.encoded_space
        kept = [counts.index(configuration.channels.get(name, counts[0])) for name, counts in land.widths.items()]
        at = [row.index(configuration.layers[name]) for name, row in land.choices.items()]
        return np.array([[land.activations.index(configuration.activations), *at, *kept]])


def whole_of(encoded_space: EncodedSpace) -> EncodedSpace:
    return replace(encoded_space, width_effects=None)


def narrower_world() -> Narrower:
    where, layers = world(), 5
    made, read = np.zeros((layers, 2)), np.zeros((layers, 2))
    made[0, 0] = read[1, 0] = made[2, 1] = read[3, 1] = 1.0
    sensitivity = {"conv_2d_0": (0.0, 0.002, 0.02), "conv_2d_2": (0.0, 0.01, 0.05)}
    width_effects = WidthEffects(widths=WIDTHS, sensitivity=sensitivity, made=made, read=read)
    return Narrower(encoded_space=replace(where.encoded_space, width_effects=width_effects), truth=where.truth)


def test_importance_of_a_group_is_what_it_really_saves_and_loses_and_trials_correct_the_tables() -> None:
    where = narrower_world()
    land = where.encoded_space

    def evaluate(trial: optuna.Trial) -> tuple[float, ...]:
        configuration = suggest(trial, land.activations, land.choices, land.widths).normalised()
        evaluation, sensitivity = where.evaluation(configuration)
        trial.set_user_attr("divergence", sensitivity)
        trial.set_user_attr("evaluation", evaluation.to_dict())
        return evaluation.accuracy, present(evaluation.measurement.latency_ms), evaluation.download_bytes

    sampler = guided(where)
    study = new_study(sampler)
    study.optimize(evaluate, n_trials=40)
    trials = study.get_trials(deepcopy=False)
    picked = max((t for t in trials if t.values), key=lambda t: t.values[0] - t.values[2] / 1e5)
    here = Configuration.from_dict(picked.user_attrs["evaluation"]["configuration"])
    rows = [row for row in sampler.importance(trials, picked.number) if row.technique == "channels"]
    expected = []
    for name, counts in WIDTHS.items():
        kept = here.channels.get(name, counts[0])
        expected += [(name, kept, True)] * (kept < counts[0])
        expected += [(name, count, False) for count in counts[counts.index(kept) + 1 :][:1]]
    assert [(row.layer, row.value, row.used) for row in rows] == expected
    assert expected
    for row in rows:
        counts = WIDTHS[row.layer]
        other = counts[0] if row.used else int(row.value)
        widths = {**here.channels, row.layer: other}
        changed, _ = where.evaluation(
            replace(here, channels={name: n for name, n in widths.items() if n < WIDTHS[name][0]})
        )
        now, _ = where.evaluation(here)
        narrow, wide = (now, changed) if row.used else (changed, now)
        assert row.of == counts[0]
        assert row.saves_bytes == pytest.approx(wide.download_bytes - narrow.download_bytes, abs=300)
        saved_ms = present(wide.measurement.latency_ms) - present(narrow.measurement.latency_ms)
        assert row.saves_latency_ms == pytest.approx(saved_ms, abs=0.05 * BASE_MS)
        assert row.costs == pytest.approx(wide.accuracy - narrow.accuracy, abs=0.02)
        assert row.sensitivity is not None
        assert row.table_sensitivity is not None
        truth = row.table_sensitivity * WIDER[row.layer]
        assert abs(np.log(row.sensitivity / truth)) < abs(np.log(row.table_sensitivity / truth))


def test_a_trained_candidate_at_the_knee_has_the_importance_of_its_configuration() -> None:
    where = world()
    sampler = guided(where)
    study = new_study(sampler)
    study.optimize(objective(where), n_trials=12)
    trials = study.get_trials(deepcopy=False)
    parent = next(t for t in reversed(trials) if t.values and sampler.importance(trials, t.number))
    study.add_trial(
        optuna.trial.create_trial(
            values=parent.values,
            params=parent.params,
            distributions=parent.distributions,
            user_attrs=parent.user_attrs | {"finetuned_from": parent.number},
        )
    )
    trials = study.get_trials(deepcopy=False)
    rows, trained = (sampler.importance(trials, number) for number in (parent.number, trials[-1].number))
    assert [(row.layer, row.technique, row.value) for row in trained] == [
        (row.layer, row.technique, row.value) for row in rows
    ]
