"""The Python interface: the code of docs/python.md runs, and what a program can get wrong ends in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from optuna.samplers import RandomSampler

import autocompress as ac
from tests.builders.project import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block after block, as a reader types it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "python.md", "exec"), names)
    front, written, one = names["front"], names["written"], names["one"]
    assert isinstance(front, ac.Front)
    assert front.knee in list(front)
    assert (tmp_path / "out" / "verify.py").is_file()
    assert isinstance(one, ac.Compressed)
    assert one.file_bytes == (tmp_path / "one.tflite").stat().st_size
    assert written is not None
    frame = front.to_dataframe()
    assert list(frame.index) == [trial.number for trial in front]
    assert "<table>" in front._repr_html_()


@pytest.mark.slow
def test_a_study_of_arrays_goes_on_from_the_command_line(tmp_path: Path) -> None:
    """It stores its specification: another process knows task, device and space without being told."""
    made = ac.task("digits")
    own = ac.Task(
        network=made.original,
        metric="accuracy",
        x_validation=made.x_validation,
        y_validation=made.y_validation,
        x_test=made.x_test,
        y_test=made.y_test,
    )
    with ac.open_study(tmp_path / "runs" / "s", own, "rpi4", space="quick") as study:
        first = [trial.number for trial in study.search(trials=2)]
    assert first == [0, 1]
    command = [sys.executable, "-m", "autocompress.cli"]
    report = subprocess.run(
        [*command, "report", "s", "--json", "--runs", "runs"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert report.returncode == 0, report.stderr
    with ac.open_study(tmp_path / "runs" / "s") as again:
        more = [trial.number for trial in again.search(trials=4)]
        assert len(again.trials) == 4
    assert more == [2, 3]
    assert ac.read_study(tmp_path / "runs" / "s").front.knee.test_accuracy is not None


@pytest.mark.slow
def test_whoever_leaves_the_loop_ends_the_search_and_the_front_is_finished(tmp_path: Path) -> None:
    with ac.open_study(tmp_path / "s", ac.task("digits"), "rpi4", space="quick") as study:
        for trial in study.search(trials=30):
            if trial.number == 2:
                break
    held = ac.read_study(tmp_path / "s")
    assert len(held.trials) == 3
    assert all(trial.test_accuracy is not None for trial in held.front)


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, autocompress; print(sorted({'numpy', 'optuna', 'tensorflow', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_are_there_and_documented() -> None:
    for name in ac.__all__:
        assert getattr(ac, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ac.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: ac.device("rpi44"), "did you mean 'rpi4'"),
        (lambda: ac.space("defualt"), "did you mean 'default'"),
        (lambda: ac.task("digit"), "did you mean 'digits'"),
        (lambda: ac.register_metric("accuracy", lambda o, y: o, higher_is_better=True), "give yours another name"),
        (lambda: ac.register_sampler("guided", lambda seed: RandomSampler(seed=seed)), "give yours another name"),
        (lambda: ac.open_study("runs/none", ac.task("digits")), "a task and a device belong together"),
        (lambda: ac.compress(b"x", np.zeros((1, 1), np.float32), activations="int9"), "choose one"),
    ],
)
def test_what_is_wrong_ends_in_one_line_with_the_next_step(wrong: object, message: str) -> None:
    assert callable(wrong)
    with pytest.raises(ac.AutocompressError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.slow
def test_a_device_kind_of_ones_own_gives_the_latencies(tmp_path: Path) -> None:
    from autocompress.records.measurement import Measurement

    ac.register_device_kind(
        "by size",
        lambda profile: lambda file, processes: Measurement(latency_ms=len(file) / 1e4, latency_source="modelled"),
    )
    device = ac.device("rpi4", kind="by size")
    with ac.open_study(tmp_path / "s", ac.task("digits"), device, space="quick") as study:
        found = list(study.search(trials=2))
    assert [trial.latency.ms for trial in found] == [trial.file_bytes / 1e4 for trial in found]


@pytest.mark.slow
def test_a_constraint_may_hang_on_the_float_network(tmp_path: Path) -> None:
    asked = ["accuracy >= float - 1 point", "download_bytes<=float - 70 %"]
    with ac.open_study(tmp_path / "s", ac.task("digits"), "rpi4", space="quick", constraints=asked) as study:
        list(study.search(trials=6))
        least, most = study.baseline.accuracy - 0.01, 0.3 * study.baseline.download_bytes
    held = ac.read_study(tmp_path / "s")
    assert held.front
    assert all(trial.accuracy >= least and trial.download_bytes <= most for trial in held.front)
    assert [str(constraint) for constraint in held.record.constraints] == [asked[0], asked[1]]
    with ac.open_study(tmp_path / "s") as again:  # as it was made
        assert [constraint.bound for constraint in again.record.constraints] == pytest.approx([least, most])
