"""Why a layer is as it is: its choice, what else was offered, and the reason."""

from __future__ import annotations

from typing import Any

import pytest

from autocompress.errors import AutocompressError
from autocompress.records.study import Importance, StudyRecord
from autocompress.report.explain import called, explain_lines
from tests.builders.records import ALL, make_record

NAMES = {"conv_2d_0": "model/relu/Relu;model/stem/conv2d/Conv2D", "conv_2d_1": "model/head/Conv2D"}


def row(layer: str, technique: str, value: float, saves: float, costs: float, used: bool = False) -> Importance:
    return Importance(
        layer=layer, technique=technique, value=value, saves_bytes=saves, costs=costs, used=used, trials=3
    )


def record(*alternatives: Importance, **changes: Any) -> StudyRecord:
    does = (row("conv_2d_1", "sparsity", 0.5, 1000, 0.002, used=True),)
    return make_record(*ALL, **({"importance": does, "alternatives": alternatives, "layer_names": NAMES} | changes))


def test_a_layer_is_found_by_our_name_and_by_the_users() -> None:
    found = record()
    assert explain_lines(found, "conv_2d_0") == explain_lines(found, "stem") == explain_lines(found, NAMES["conv_2d_0"])
    assert called(found, "conv_2d_0") == "conv_2d_0 (model/stem/conv2d/Conv2D)"
    with pytest.raises(AutocompressError, match="unknown layer 'hed'; did you mean 'head'"):
        explain_lines(found, "hed")
    with pytest.raises(AutocompressError, match="'model' names several layers; use one of conv_2d_0, conv_2d_1"):
        explain_lines(found, "model")


def test_what_is_offered_stands_with_what_it_saves_and_costs() -> None:
    lines = explain_lines(
        record(row("conv_2d_0", "bits", 4, 400, 0.004), row("conv_2d_0", "clusters", 0, -50, 0)), "stem"
    )
    assert lines[0].endswith("in trial 1 (knee): 8 bits, activations int8")
    assert lines[1] == "  offered  4 bits: saves 400 bytes, costs +0.0040 accuracy, in 3 trials"
    assert lines[2] == "  offered  all levels: saves -50 bytes, costs +0.0000 accuracy, in 3 trials"
    assert "sensitive, dearer by byte than anything that the knee does elsewhere" in lines[-1]


@pytest.mark.parametrize(
    ("alternatives", "changes", "reason"),
    [
        ([row("conv_2d_0", "bits", 4, 400, 0.0004)], {}, "no dearer by byte than what the knee does elsewhere"),
        ([row("conv_2d_0", "bits", 4, 400, -0.001)], {}, "within what the model leaves open"),
        ([row("conv_2d_0", "bits", 16, -400, 0.0)], {}, "nothing that the space offers here is smaller"),
        ([row("conv_2d_1", "bits", 4, 400, 0.004)], {}, "a rule of the space, or no kernel for it"),
        ([], {}, "is not stored"),
        (
            [],
            {"whole_channels": {"conv_2d_0": "an output of the network"}},
            "all channels stay: an output of the network",
        ),
    ],
)
def test_the_reason_is_named(alternatives: list[Importance], changes: dict[str, Any], reason: str) -> None:
    assert reason in explain_lines(record(*alternatives, **changes), "conv_2d_0")[-1]
