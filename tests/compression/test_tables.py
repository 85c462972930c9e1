"""Layer tables: the survey against the solver, curves, and the cache on disk."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compression.divergence import divergence
from autocompress.compression.solve import Problem, output_error, solve
from autocompress.compression.survey import survey
from autocompress.compression.tables import (
    PROBES,
    VERSION,
    Tables,
    anchored,
    isotonic,
    kept_tables,
    probe_choices,
    representative,
    sensitivity_curve,
)
from autocompress.records.configuration import LayerChoice
from tests.builders.layer_tables import CHOICES, tables
from tests.builders.project import ROOT


def problem(groups: int = 1, rows: int = 12, columns: int = 20, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((groups, 400, columns)) @ rng.standard_normal((groups, columns, columns))
    return Problem(weight=rng.standard_normal((groups, rows, columns)), moment=inputs.transpose(0, 2, 1) @ inputs / 400)


@pytest.mark.parametrize(("groups", "rows", "columns"), [(1, 12, 20), (8, 1, 9), (1, 3, 50)])
def test_surveyed_errors_are_those_of_the_solver_without_its_refinement(groups: int, rows: int, columns: int) -> None:
    layer = problem(groups, rows, columns)
    seen = survey(layer, CHOICES)
    energy = float(np.einsum("grn,grn->", layer.weight @ layer.moment, layer.weight))
    for choice, error in zip(CHOICES, seen.error, strict=True):
        refined = output_error(layer, solve(layer, choice).values) / energy
        bare = output_error(layer, solve(layer, choice, sweeps=0).values) / energy
        assert refined * 0.95 - 1e-6 <= error <= 4 * refined + 1e-9 or error == 0
        if choice.is_integer and (choice.bits < 8 or choice.clusters):  # plain 8 bits are descended once even then
            assert error == pytest.approx(bare, rel=0.3, abs=1e-6)


def test_surveyed_bytes_are_what_deflate_makes_of_the_solved_levels() -> None:
    layer = problem(rows=64, columns=128)
    seen = survey(layer, CHOICES)
    for choice, size in zip(CHOICES, seen.bytes, strict=True):
        if choice.is_integer:
            levels = solve(layer, choice, sweeps=0).levels
            assert levels is not None
            _, found = np.unique(levels, return_counts=True)
            entropy = -(found / found.sum() * np.log2(found / found.sum())).sum() * found.sum() / 8
            assert entropy * 0.97 <= size <= entropy * 1.35 + 250


def test_a_wide_layer_is_surveyed_in_some_of_its_channels() -> None:
    layer = problem(rows=400, columns=100)
    seen, whole = survey(layer, CHOICES), CHOICES
    energy = float(np.einsum("grn,grn->", layer.weight @ layer.moment, layer.weight))
    for choice, error in zip(whole, seen.error, strict=True):
        if choice.is_integer and (choice.bits < 8 or choice.clusters):
            assert error == pytest.approx(output_error(layer, solve(layer, choice, 0).values) / energy, rel=0.3)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_isotonic_is_the_nearest_rising_sequence(values: list[float]) -> None:
    fitted = isotonic(np.array(values))
    assert np.all(np.diff(fitted) >= -1e-9)
    # Slow reference: the max-min formula of isotonic regression.
    n = len(values)
    slow = [max(min(float(np.mean(values[a : b + 1])) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
    assert fitted == pytest.approx(slow, abs=1e-9)


positive = st.floats(1e-6, 1.0)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=5), st.lists(positive, min_size=2, max_size=20))
def test_sensitivity_rises_with_the_error_and_is_zero_without_one(
    probes: list[tuple[float, float]], errors: list[float]
) -> None:
    ordered = np.sort(np.array([0.0, *errors]))
    curve = sensitivity_curve(probes, ordered)
    assert curve[0] == 0
    assert np.all(np.diff(curve) >= -1e-12)


def test_sensitivity_goes_through_rising_probes() -> None:
    probes = [(1e-4, 1e-5), (1e-2, 2e-3), (0.3, 0.1)]
    assert sensitivity_curve(probes, np.array([e for e, _ in probes])) == pytest.approx([d for _, d in probes])


def test_few_choices_are_probed_and_the_coarsest_is_one() -> None:
    error = np.geomspace(1e-6, 0.5, len(CHOICES))
    picked = probe_choices(CHOICES, error)
    assert len(picked) == PROBES
    assert picked[-1] == len(CHOICES) - 1
    assert probe_choices(CHOICES, error, 1) == picked[-1:]
    assert probe_choices((LayerChoice(),), np.zeros(1)) == []


def test_divergence_is_kullback_leibler_for_distributions_and_relative_for_others() -> None:
    p, q = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.9, 0.1]])
    assert divergence(p, q) == pytest.approx([0.5 * np.log(2) + 0.5 * np.log(2 / 3), 0.0], abs=1e-6)
    x = np.array([[1.0], [3.0]])
    assert divergence(x, x + 0.5) == pytest.approx([0.25, 0.25])
    assert np.isfinite(divergence(p, np.full((2, 2), np.nan))).all()


def never() -> Tables:
    raise AssertionError("the tables were at hand")


def same(a: Tables, b: Tables) -> bool:
    return all(
        x.name == y.name
        and x.choices == y.choices
        and all(np.array_equal(getattr(x, c), getattr(y, c)) for c in ("error", "bytes", "sensitivity"))
        for x, y in zip(a.layers, b.layers, strict=True)
    )


def test_tables_are_kept_and_read_back(tmp_path: Path) -> None:
    built, note = kept_tables(tmp_path, "k", tables)
    again, second = kept_tables(tmp_path, "k", never)
    assert (note, second) == (None, None)
    assert same(built, again)
    assert (built.built_s, again.built_s) == (1.5, 0.0)


@pytest.mark.parametrize("kept", [0, 1, 40, 0.5, 0.99])
def test_a_truncated_file_is_ignored_with_a_note_and_made_again(tmp_path: Path, kept: float) -> None:
    kept_tables(tmp_path, "k", tables)
    path = tmp_path / "k.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    built, note = kept_tables(tmp_path, "k", tables)
    assert note is not None
    assert "made again" in note
    assert same(built, tables())
    assert path.read_bytes() == whole


def test_tables_of_another_version_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autocompress.compression.tables.VERSION", VERSION + 1)
    kept_tables(tmp_path, "k", tables)
    monkeypatch.undo()
    _, note = kept_tables(tmp_path, "k", tables)
    assert note is not None
    assert "another version" in note
    assert kept_tables(tmp_path, "k", never)[1] is None


def test_tables_with_a_hole_are_made_again(tmp_path: Path) -> None:
    broken = tables()
    row = dataclasses.replace(broken.layers[0], sensitivity=np.full(len(CHOICES), np.nan))
    kept_tables(tmp_path, "k", lambda: dataclasses.replace(broken, layers=(row, broken.layers[1])))
    assert "incomplete" in str(kept_tables(tmp_path, "k", tables)[1])


def test_a_folder_that_cannot_be_written_costs_a_note_only(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where the folder should be")
    built, note = kept_tables(tmp_path / "tables", "k", tables)
    assert same(built, tables())
    assert note is not None


def test_two_processes_end_with_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from tests.builders.layer_tables import tables\nfrom autocompress.compression.tables import kept_tables\n"
        "kept_tables(pathlib.Path(sys.argv[1]), 'k', tables)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folders = [tmp_path / "shared", tmp_path / "shared", tmp_path / "alone"]
    running = [subprocess.Popen([sys.executable, "-c", code, str(folder)], env=environment) for folder in folders]
    assert [process.wait() for process in running] == [0, 0, 0]
    shared, alone = (sorted(folder.iterdir()) for folder in (folders[0], folders[2]))
    assert [path.name for path in shared] == ["k.npz"]
    assert shared[0].read_bytes() == alone[0].read_bytes()


@pytest.mark.parametrize("shared", [False, True])
def test_some_output_channels_of_a_wide_layer_stand_for_all(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dataclasses.replace(problem(2 if shared else 1, 240, 24, seed=3), shared_scale=shared)
    monkeypatch.setattr("autocompress.compression.tables._MOST_WORK", 0)
    thin = representative(whole, CHOICES)
    assert thin.weight.shape[1] == 64
    every, some = (anchored(each, CHOICES, survey(each, CHOICES).error) for each in (whole, thin))
    np.testing.assert_allclose(some, every, rtol=0.25, atol=1e-9)
    monkeypatch.setattr("autocompress.compression.tables._MOST_WORK", 1e12)
    assert representative(whole, CHOICES) is whole
