"""Early stopping: the sequential test itself, and what a study keeps of a stopped trial."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress import stats
from autocompress.evaluate import early_stopping, validation
from autocompress.evaluate.quality import Split
from autocompress.latency.source import latency_on
from autocompress.records.front import FLAT_TRIALS, Front, complete, is_flat
from autocompress.records.study import Constraint, StudyRecord
from autocompress.report import study_document
from autocompress.search.storage import study_records
from autocompress.specs import SearchSpace, load_device, load_space
from autocompress.tasks import LoadedTask, load_task
from tests.builders.arrays import Array
from tests.builders.optional import present
from tests.builders.searches import Asked, asked_for


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.99))
def test_binomial_tail_is_the_sum_of_its_terms(successes: int, n: int, p: float) -> None:
    slow = math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(successes, n + 1))
    assert stats.binomial_tail(successes, n, p) == pytest.approx(min(1.0, slow), abs=1e-9)


def stopped(scores: Array, threshold: early_stopping.StoppingThreshold, seed: int) -> bool:
    """Whether a candidate with these scores of all samples would be stopped at one of its looks."""
    order, after = early_stopping.order_of(len(scores), seed), early_stopping.looks(len(scores))
    return any(
        early_stopping.stop_reason(scores[order[:n]], order[:n], threshold, len(after)) is not None for n in after
    )


def test_a_candidate_that_is_as_good_is_hardly_ever_stopped() -> None:
    rng = np.random.default_rng(0)
    count = 0
    for seed in range(400):
        dominating, mine = rng.random(1000) < 0.9, rng.random(1000) < 0.9
        threshold = early_stopping.StoppingThreshold(
            scores=dominating.astype(np.float32), name="trial 1", least=0.9, rises=True
        )
        count += stopped(mine.astype(np.float32), dataclasses.replace(threshold, least=None), seed)
    assert count / 400 <= early_stopping.ERROR


def test_a_candidate_at_the_bound_is_hardly_ever_stopped() -> None:
    rng = np.random.default_rng(1)
    threshold = early_stopping.StoppingThreshold(scores=None, name="", least=0.9, rises=True)
    count = sum(stopped((rng.random(1000) < 0.9).astype(np.float32), threshold, seed) for seed in range(400))
    assert count / 400 <= early_stopping.ERROR


@pytest.mark.parametrize("rises", [True, False])
def test_a_bad_candidate_is_stopped_for_either_reason(rises: bool) -> None:
    rng = np.random.default_rng(2)
    good, bad = rng.normal(1.0 if rises else 0.2, 0.1, 1000), rng.normal(0.2 if rises else 1.0, 0.1, 1000)
    dominating = early_stopping.StoppingThreshold(scores=good, name="trial 7", least=None, rises=rises)
    bound = early_stopping.StoppingThreshold(scores=None, name="", least=0.6, rises=rises)
    at = np.arange(125)
    assert "trial 7" in str(early_stopping.stop_reason(bad[at], at, dominating, 3))
    assert "0.6" in str(early_stopping.stop_reason(bad[at], at, bound, 3))
    assert early_stopping.stop_reason(good[at], at, dominating, 3) is None
    assert early_stopping.stop_reason(good[at], at, bound, 3) is None


def test_few_samples_are_not_looked_at() -> None:
    assert early_stopping.looks(100) == []
    assert early_stopping.looks(200) == [100]
    assert early_stopping.looks(2000) == [250, 500, 1000]


def test_every_sample_is_seen_once() -> None:
    order = early_stopping.order_of(2000, 3)
    assert sorted(np.concatenate(early_stopping.pieces(order, early_stopping.looks(2000))).tolist()) == list(
        range(2000)
    )


@pytest.fixture(scope="module")
def task() -> LoadedTask:
    """Digits: test data cut short, nothing here looks at them."""
    loaded = load_task("digits")
    assert loaded.y_test is not None
    test = {name: values[:32] for name, values in loaded.x_test.items()}
    return dataclasses.replace(loaded, x_test=test, y_test=loaded.y_test[:32])


def harsh(folder: Path) -> SearchSpace:
    """A space with choices that no network survives."""
    path = folder / "harsh.yaml"
    path.write_text(
        "schema: 1\nname: harsh\nrules:\n"
        "  - {match: '.*', sparsity: [0, 0.5, 0.95], bits: [8, 4], clusters: [none, 3]}\n"
    )
    return load_space(path)


def request(task: LoadedTask, runs: Path, **changes: Any) -> Asked:
    settings: dict[str, Any] = {
        "task": task,
        "profile": load_device("rpi4"),
        "space": harsh(runs),
        "latency_source": "modelled",
        "runs": runs,
        "trials": 25,
        "name": "s",
        "sampler": "random",
    }
    return asked_for(**(settings | changes))


def run(asked: Asked) -> StudyRecord:
    return asked.run()


def test_a_stopped_trial_keeps_what_was_seen_and_is_no_part_of_the_front(task: LoadedTask, tmp_path: Path) -> None:
    bound = Constraint(name="accuracy", relation=">=", bound=0.97)
    record = run(request(task, tmp_path, constraints=(bound,)))
    gone = [t for t in record.trials if t.state == "stopped_early"]
    assert gone
    assert len(complete(record)) == 25  # stopped ones do not count
    assert all(t.evaluation is None and t.reason for t in gone)
    assert not {t.number for t in gone} & {t.number for t in Front(record).trials}
    assert study_document.document(record)["trials"]["stopped_early"] == len(gone)
    study = study_records.load_study(tmp_path, "s", None)
    samples = len(next(iter(task.x_validation.values())))
    for trial in study.get_trials():
        if "seen" in trial.user_attrs:
            assert trial.values is None
            assert 0 < trial.user_attrs["seen"]["samples"] < samples
            assert 0 <= trial.user_attrs["seen"]["accuracy"] <= 1
    assert run(request(task, tmp_path, constraints=(bound,))).trials == record.trials


def test_what_is_stopped_is_worse_when_evaluated_to_the_end(task: LoadedTask, tmp_path: Path) -> None:
    asked = request(task, tmp_path, trials=30)
    with latency_on(asked.specification.profile) as latency, asked.search(latency.bind(task.original)) as search:
        record = search.run(lambda _: None)
        by_digest = {t.user_attrs["digest"]: t.user_attrs for t in search.study.get_trials() if "seen" in t.user_attrs}
        assert by_digest
        fronts = [t.evaluation for t in Front(record).strict if t.evaluation is not None]
        for trial in search.study.get_trials():
            if "seen" not in trial.user_attrs:
                continue
            from autocompress.search.sampler.stock import suggest

            chosen = suggest(trial, search.activations, search.choices).normalised()  # type: ignore[arg-type]
            whole, _ = search.evaluator.evaluate(chosen)
            assert any(e.accuracy >= whole.accuracy and e.download_bytes <= whole.download_bytes for e in fronts)


def test_a_search_goes_flat_and_ends(task: LoadedTask, tmp_path: Path) -> None:
    asked = request(task, tmp_path, trials=200, until_flat=True, space=load_space("quick"), sampler="guided")
    record = run(asked)
    assert is_flat(record)
    assert FLAT_TRIALS < len(complete(record)) < 200
    shorter = dataclasses.replace(record, trials=record.trials[:-1])
    assert not is_flat(shorter)


def test_a_judge_forgets_scores_and_runs_the_file_again(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("digits")
    split = Split(task.x_validation, task.y_validation, task.metric, task.network, threads=1, seed=0)
    monkeypatch.setattr(validation, "REMEMBERED", 2)
    mine, outputs, asked = validation.Validator(split, 0), split.baseline_outputs, []
    for name in ("a", "b"):
        mine.remember(name, outputs)

    def file() -> bytes:
        asked.append(True)
        return task.network

    first = mine.scores("a", file)
    assert first is not None
    assert not asked
    mine.remember("c", outputs)  # "b" was used longest ago
    np.testing.assert_array_equal(first, present(mine.scores("b", file)))
    assert len(asked) == 1
