"""What techniques save and cost: the figures of the sampler's beliefs, and the lines people read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest
from test_guided import guided, new_study, objective, world
from test_rows import ALL, make_record

from autocompress.records import Importance
from autocompress.report.importance import importance_lines

ROWS = (
    Importance(layer="conv_2d_0", technique="sparsity", value=0.5, saves_bytes=200.0, costs=0.004),
    Importance(layer="conv_2d_1", technique="sparsity", value=0.8, saves_bytes=5000.0, costs=0.001),
    Importance(layer="conv_2d_1", technique="bits", value=4, saves_bytes=3000.0, costs=0.003),
)


def test_lines_put_the_largest_savings_first_and_name_the_best_and_the_worst_bargain() -> None:
    lines = importance_lines(replace(make_record(*ALL), importance=ROWS))
    assert lines[2].split("  ")[0] == "conv_2d_1"
    assert "80 %: +5.00 KB, -0.0010" in lines[2]
    assert "50 %: +0.20 KB, -0.0040" in lines[3]
    assert lines[-2] == "cheapest: sparsity of conv_2d_1; go further there first"
    assert lines[-1] == "dearest: sparsity of conv_2d_0, 0.0200 accuracy a KB; undo it first"


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert importance_lines(make_record(*ALL)) == []


def test_importance_is_what_a_layer_really_loses_without_the_technique() -> None:
    where = world()
    sampler = guided(where)
    study: optuna.Study = new_study(sampler)
    study.optimize(objective(where), n_trials=30)
    trials = study.get_trials(deepcopy=False)
    picked = max((t for t in trials if t.values), key=lambda t: t.values[0] - t.values[2] / 1e5)
    rows = sampler.importance(trials, picked.number)
    assert rows
    land = where.landscape
    row = land.row_of(picked.params, "activations")
    assert row is not None
    here, _ = where.evaluation(land.configuration(row))
    off = {"sparsity": 0.0, "bits": 8, "clusters": None}
    for found in rows:
        layer = list(land.choices).index(found.layer)
        without = replace(land.rows[layer][row[1 + layer]], **{found.technique: off[found.technique]})
        changed = list(row)
        changed[1 + layer] = land.rows[layer].index(without)
        there, _ = where.evaluation(land.configuration(changed))
        assert found.saves_bytes == pytest.approx(there.download_bytes - here.download_bytes, abs=400)
        assert found.costs == pytest.approx(there.accuracy - here.accuracy, abs=0.01)
    assert np.isfinite([found.costs for found in rows]).all()
