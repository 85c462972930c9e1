"""What 10,000 stored trials of a ten-layer network cost: loading, the report, and the guided sampler's own time.

The network is the ResNet-8 of `fashion-mnist` on rpi4 with its real layer tables. The trials' configurations are drawn
at random; their evaluations are made up from the tables (sensitivity, bytes, modelled latency of the usual containers);
their file is the float network's, for the report looks at files. They are written as Optuna's storage writes a trial,
but many in a transaction. Loading and the report run in processes of their own, as commands do; a suggestion is asked
of the opened search, so with what it reads of the storage.

About two minutes: `python -m benchmarks.system.store`."""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy
from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState, create_trial

from autocompress.latency.source import latency_on
from autocompress.records.study import Evaluation
from autocompress.search.sampler.encoding import ACTIVATIONS
from autocompress.search.sampler.guided import OWN_BETWEEN
from autocompress.search.sampler.stock import suggest, uniform_baselines
from autocompress.search.specification import Budget, Resources, Specification
from autocompress.search.study import Search
from autocompress.specs import load_device, load_space
from autocompress.tasks import load_task
from benchmarks.goals import Goal, judge, print_run, print_table

MOST_LOAD_S, MOST_REPORT_S, MOST_SUGGESTION_MS = 10.0, 10.0, 50.0
LOAD = """
import sys, time
from pathlib import Path
start = time.perf_counter()
from autocompress.search.storage.study_records import load_study, read_record
record = read_record(load_study(Path(sys.argv[1]), "big", None))
print(len(record.trials), time.perf_counter() - start)
"""


def fill(search: Search, count: int) -> None:
    """Add trials to the study, each with an evaluation made up from the tables."""
    land, baseline, random = search.encoded_space, search.baseline, np.random.default_rng(0)
    space: dict[str, Any] = {ACTIVATIONS: CategoricalDistribution(land.activations)}
    space |= {n: CategoricalDistribution([c.to_json() for c in row]) for n, row in land.choices.items() if len(row) > 1}
    x = land.canonical(random.integers(land.counts, size=(count, len(land.counts))))
    sensitivity = np.exp(land.gather(land.seen.log_sensitivity, x)).sum(axis=1)
    download = land.gather(land.bytes, x).sum(axis=1)
    writer = Writer(search, space)
    for row, hurt, size in zip(x, sensitivity, download, strict=True):
        configuration = land.configuration(row)
        parameters: dict[str, Any] = {ACTIVATIONS: land.activations[row[0]]}
        parameters |= {name: choice.to_json() for name, choice in configuration.layers.items()}
        evaluation = replace(
            baseline,
            configuration=configuration.normalised(),
            accuracy=float(baseline.accuracy - 0.3 * hurt**0.85),
            measurement=replace(baseline.measurement, latency_ms=baseline.measurement.known_latency_ms * (1 - 1e-9)),
            download_bytes=int(4000 + size),
        )
        writer.add(evaluation, float(hurt), parameters)
    writer.write()


class Writer:
    """Complete trials as a search would have left them, in the rows of Optuna's tables."""

    def __init__(self, search: Search, space: dict[str, Any]) -> None:
        self._search, self._space = search, {n: (each, distribution_to_json(each)) for n, each in space.items()}
        # One through Optuna itself: whatever else it writes with a study's first trial is there.
        first = {name: each.choices[0] for name, each in space.items()}
        made = create_trial(state=TrialState.FAIL, params=first, distributions=space)
        search.study.add_trial(made)
        last = search.study.get_trials(deepcopy=False)[-1]
        self._next_id, self._next_number = last._trial_id + 1, last.number + 1
        self._trials: list[dict[str, Any]] = []
        self._params: list[dict[str, Any]] = []
        self._values: list[dict[str, Any]] = []
        self._attributes: list[dict[str, Any]] = []

    def add(self, evaluation: Evaluation, hurt: float, parameters: dict[str, Any]) -> None:
        """Another trial, behind the others."""
        now, at = datetime.datetime.now(), {"trial_id": self._next_id}
        self._trials.append(
            at
            | {
                "number": self._next_number,
                "study_id": self._search.study._study_id,
                "state": TrialState.COMPLETE,
                "datetime_start": now,
                "datetime_complete": now,
            }
        )
        self._params += [
            at
            | {"param_name": name, "param_value": space.to_internal_repr(parameters[name]), "distribution_json": text}
            for name, (space, text) in self._space.items()
        ]
        self._values += [
            at | {"objective": n, "value": value, "value_type": models.TrialValueModel.TrialValueType.FINITE}
            for n, value in enumerate(self._search.values(evaluation))
        ]
        attributes = {
            "worker": "made+0+up",
            "wall_s": 0.5,
            "divergence": hurt * 0.7,
            "evaluation": evaluation.to_dict(),
        }
        self._attributes += [at | {"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]
        self._next_id, self._next_number = self._next_id + 1, self._next_number + 1

    def write(self) -> None:
        """All that were added."""
        path = self._search.resources.runs / self._search.name / "study.db"
        with sqlalchemy.create_engine(f"sqlite:///{path}").begin() as connection:
            for model, rows in (
                (models.TrialModel, self._trials),
                (models.TrialParamModel, self._params),
                (models.TrialValueModel, self._values),
                (models.TrialUserAttributeModel, self._attributes),
            ):
                connection.execute(sqlalchemy.insert(model), rows)


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds and the output of a command."""
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def suggestions(search: Search, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the sampler's own and of beginning a trial with it, for each of `count` suggestions after the
    uniform baselines and one that reads the trials. Nothing is evaluated."""
    own, whole, sampler = [], [], search.study.sampler
    sample = sampler.sample_relative

    def timed_sample(*arguments: Any) -> dict[str, Any]:
        start = time.perf_counter()
        found = sample(*arguments)
        own.append(1000 * (time.perf_counter() - start))
        return found

    sampler.sample_relative = timed_sample  # type: ignore[method-assign]
    waiting = len(search.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    waiting += (OWN_BETWEEN + 1) * len(uniform_baselines(search.activations, search.choices))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # heartbeats
        for _ in range(waiting + 1 + count):
            start = time.perf_counter()
            trial = search.study.ask()
            suggest(trial, search.activations, search.choices)
            whole.append(1000 * (time.perf_counter() - start))
            search.study.tell(trial, state=TrialState.PRUNED)
    return own[-count:], whole[-count:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--suggestions", type=int, default=20)
    parser.add_argument("--runs", type=Path, help="keep the study here; one that is there is not filled again")
    asked = parser.parse_args()
    print_run("Stored trials", ("optuna", "sqlalchemy", "numpy"))
    task, profile = load_task("fashion-mnist"), load_device("rpi4")
    with tempfile.TemporaryDirectory() as temporary, latency_on(profile) as latency:
        folder = str(asked.runs or temporary)
        specification = Specification(
            task=task, profile=profile, space=load_space("default"), latency_source=latency.source
        )
        resources = Resources(runs=Path(folder), name="big", threads=2)
        budget = Budget(trials=asked.trials + 100)
        with Search(specification, resources, latency.bind(task.original), budget=budget) as search:
            start, there = time.perf_counter(), len(search.study.get_trials(deepcopy=False))
            if there < asked.trials:
                fill(search, asked.trials)
                print(f"  {asked.trials} trials written in {time.perf_counter() - start:.0f} s", flush=True)
        load_s = float(timed([sys.executable, "-c", LOAD, folder])[1].split()[1])
        report_s, _ = timed([sys.executable, "-m", "autocompress.cli", "report", "big", "--runs", folder, "--json"])
        start = time.perf_counter()
        with Search(specification, resources, latency.bind(task.original), budget=budget) as search:
            open_s = time.perf_counter() - start
            taken_ms, whole_ms = suggestions(search, asked.suggestions)
    median_ms = float(np.median(taken_ms))
    print_table(
        f"{asked.trials} trials of a ten-layer network",
        ["what", "takes"],
        [
            ["load_study and read_record", f"{load_s:.1f} s"],
            ["autocompress report --json", f"{report_s:.1f} s"],
            ["opening the search again", f"{open_s:.1f} s"],
            ["a suggestion, median", f"{median_ms:.0f} ms"],
            ["a suggestion, slowest", f"{max(taken_ms):.0f} ms"],
            ["beginning a trial, median", f"{np.median(whole_ms):.0f} ms"],
        ],
    )
    return judge(
        [
            Goal(wanted=f"loading <= {MOST_LOAD_S:g} s", got=f"{load_s:.1f} s", met=load_s <= MOST_LOAD_S),
            Goal(wanted=f"report <= {MOST_REPORT_S:g} s", got=f"{report_s:.1f} s", met=report_s <= MOST_REPORT_S),
            Goal(
                wanted=f"a suggestion <= {MOST_SUGGESTION_MS:g} ms",
                got=f"{median_ms:.0f} ms",
                met=median_ms <= MOST_SUGGESTION_MS,
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
