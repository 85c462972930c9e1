"""A leaderboard of 50 studies of 1,000 trials: how long it takes to build, its size, how soon its page can be used.

    python -m benchmarks.report.leaderboard [--studies 50] [--trials 1000] [--runs DIR]

The trials' values are drawn, all else is real: the studies are written through the store into SQLite as a search writes
them (8 layers of 90 choices; half of the studies measured, with samples), a few of them, which are then copied under
other names. The goals: built in 10 s, 8 MB, 2 s in headless Chromium on this machine."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.measurement import Environment, Measurement
from autocompress.records.study import Evaluation
from autocompress.search.storage import study_records
from autocompress.search.storage.patient import open_storage
from benchmarks.goals import Goal, judge, print_run

LAYERS = [f"conv_2d_{n}" for n in range(8)]
CHOICES = [
    LayerChoice(sparsity=s, bits=b, clusters=c)
    for s, b, c in itertools.product((0.0, 0.25, 0.5, 0.6, 0.7, 0.8), (32, 8, 4), (None, 64, 32, 16, 8))
]
DISTRIBUTION = CategoricalDistribution([choice.to_json() for choice in CHOICES])
ORIGINALS = 4


def evaluation_of(rng: np.random.Generator, choices: list[LayerChoice], measured: bool) -> Evaluation:
    """Fewer bits and more zeros: smaller, less accurate, a little faster."""
    kept = float(np.mean([choice.bits / 32 * (1 - choice.sparsity) for choice in choices]))
    latency_ms = 0.3 + kept + float(rng.normal(0, 0.01))
    environment = Environment(machine="aarch64", python="3.11", cpu="Cortex-A72") if measured else None
    samples = tuple(tuple(rng.normal(latency_ms, 0.01, 200)) for _ in range(3)) if measured else ()
    accuracy = 0.93 - 0.05 * (1 - kept) ** 6 + float(rng.normal(0, 0.002))
    return Evaluation(
        configuration=Configuration(activations="int8", layers=dict(zip(LAYERS, choices, strict=True))),
        accuracy=accuracy,
        accuracy_ci=(accuracy - 0.01, accuracy + 0.01),
        accuracy_delta_ci=(-0.01, 0.01),
        measurement=Measurement(
            latency_ms=latency_ms,
            latency_source="measured" if measured else "modelled",
            environment=environment,
            latency_error=None if measured else 0.034,
            samples_ms=samples,
            runtime="ai-edge-litert",
            threads=1,
            runtime_version="2.3.0",
            os_bits=64,
        ),
        file_bytes=int(320_000 * kept) + 8_000,
        download_bytes=int(290_000 * kept) + 4_000,
        sha256=rng.bytes(32).hex(),
        artifact=f"x/artifacts/{rng.bytes(32).hex()}.tflite",
    )


def make_study(folder: Path, number: int, trials: int) -> None:
    """One study with its baseline and trials, as a search stores them."""
    folder.mkdir(parents=True)
    rng, measured = np.random.default_rng(number), number % 2 == 1
    storage = open_storage(f"sqlite:///{folder}/study.db")
    study = optuna.create_study(
        study_name=folder.name, storage=storage, directions=["maximize", "minimize", "minimize"]
    )
    identity = study_records.Identity(
        task=f"task {number % 4 // 2}",
        network_sha256="a" * 64,
        data_sha256="b" * 64,
        metric="accuracy",
        higher_is_better=True,
        device="local" if measured else "rpi4",
        device_sha256="c" * 64,
        latency_source="measured" if measured else "modelled",
        latency_model_sha256=None,
        space="default",
        choices_sha256="d" * 64,
        objectives=("metric", "latency", "size"),
        size="download",
        constraints=(),
        sampler="guided",
        seed=number,
    )
    baseline = evaluation_of(rng, [LayerChoice()] * len(LAYERS), measured)
    attributes: dict[str, Any] = {
        "identity": asdict(identity),
        "int8_download_bytes": 80_000,
        "notes": [],
        "versions": {"autocompress": "0.1.0"},
        "baseline": replace(baseline, accuracy_delta_ci=None).to_dict(),
    }
    for name, value in attributes.items():
        study.set_user_attr(name, value)
    study_records.note_run(study, ("autocompress", "search", "--device", identity.device))
    study.add_trials([_trial(rng, measured) for _ in range(trials)])


def _trial(rng: np.random.Generator, measured: bool) -> optuna.trial.FrozenTrial:
    choices = [CHOICES[k] for k in rng.integers(0, len(CHOICES), len(LAYERS))]
    found = evaluation_of(rng, choices, measured)
    return create_trial(
        values=[found.accuracy, found.measurement.known_latency_ms, found.download_bytes],
        params={name: choice.to_json() for name, choice in zip(LAYERS, choices, strict=True)},
        distributions=dict.fromkeys(LAYERS, DISTRIBUTION),
        user_attrs={"evaluation": found.to_dict(), "wall_s": 0.5, "divergence": 0.01},
    )


def make_runs(runs: Path, studies: int, trials: int) -> None:
    """The runs folder, where it is not there yet."""
    for number in range(min(ORIGINALS, studies)):
        if not (runs / f"study-{number}").exists():
            make_study(runs / f"study-{number}", number, trials)
    for number in range(ORIGINALS, studies):
        folder = runs / f"study-{number}"
        if not folder.exists():
            folder.mkdir()
            with sqlite3.connect(runs / f"study-{number % ORIGINALS}" / "study.db") as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copy(runs / f"study-{number % ORIGINALS}" / "study.db", folder / "study.db")
            with sqlite3.connect(folder / "study.db") as database:
                database.execute("UPDATE studies SET study_name = ?", (folder.name,))


def built_in_s(runs: Path, site: Path) -> float:
    """Seconds of the command as a user runs it."""
    command = [sys.executable, "-m", "autocompress.cli", "leaderboard", "--runs", str(runs), "--html", str(site)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - start


def usable_after_s(page: Path) -> float:
    """Seconds from the start of loading to the end of the page's script, in headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        tab = browser.new_page()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("html[data-ready=true]", state="attached")
        found = float(tab.evaluate("readyAfterMs")) / 1000
        browser.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--runs", type=Path, help="keep the studies here, and use them again")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs, site = asked.runs or Path(folder) / "runs", Path(folder) / "site"
        make_runs(runs, asked.studies, asked.trials)
        built_s = statistics.median(built_in_s(runs, site) for _ in range(asked.repeats))
        page = site / "index.html"
        usable_s = statistics.median(usable_after_s(page) for _ in range(asked.repeats))
        megabytes = page.stat().st_size / 1e6
    print_run(
        f"leaderboard of {asked.studies} studies of {asked.trials} trials, median of {asked.repeats}", ("optuna",)
    )
    return judge(
        [
            Goal(wanted="built within 10 s", got=f"{built_s:.1f} s", met=built_s <= 10),
            Goal(wanted="page of at most 8 MB", got=f"{megabytes:.1f} MB", met=megabytes <= 8),
            Goal(wanted="usable within 2 s of loading", got=f"{usable_s:.2f} s", met=usable_s <= 2),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
