"""What is said while layers are gone through."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.layer_progress import LayerProgress
from autocompress.latency.source import Unscreened, latency_on
from autocompress.records.configuration import LayerChoice
from autocompress.specs import load_device
from autocompress.tasks import load_task


class Clock:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("layer_s", "lines"), [(0.1, 0), (2.0, 6), (30.0, 19)])
def test_lines_come_when_they_are_due_and_know_the_time_left(layer_s: float, lines: int) -> None:
    said: list[str] = []
    clock = Clock()
    progress = LayerProgress("layer tables", 20, said.append, clock)
    for _ in range(20):
        clock.now_s += layer_s
        progress.step()
    assert len(said) == lines
    if lines:
        assert said[0].startswith("layer tables ")
        done = int(said[0].split(" of 20 layers")[0].split()[-1])
        left_s = (20 - done) * layer_s
        assert said[0].endswith(f"about {left_s:.0f} s left" if left_s < 90 else f"about {left_s / 60:.0f} min left")
        assert said[0].count("#") == done


def test_a_measurement_gets_its_turn_after_each_layer(tmp_path: Path) -> None:
    pauses: list[int] = []
    profile = load_device("rpi4")
    with latency_on(profile) as source:
        task = load_task("digits")
        evaluator = Evaluator(
            task,
            profile,
            Unscreened(source.bind(task.original)),
            runs=tmp_path,
            artifacts=tmp_path / "artifacts",
            seed=0,
            threads=1,
            pause=lambda: pauses.append(1),
        )
        choices = {layer.name: (LayerChoice(), LayerChoice(bits=8)) for layer in evaluator.layers}
        evaluator.tables(choices)
    assert len(pauses) == len(evaluator.layers)
