"""The picture of a front: benchmarks/report/front_svg.py on studies made by hand."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from types import ModuleType
from typing import Any

import pytest

from autocompress.records.configuration import LayerChoice
from autocompress.records.study import StudyRecord
from tests.builders.records import make_configuration, make_record, make_trial

PLAIN = make_configuration(conv_2d_0=LayerChoice(bits=8), conv_2d_1=LayerChoice(bits=8))


@pytest.fixture
def front_svg() -> ModuleType:
    from benchmarks.report import front_svg

    return front_svg


def circles(picture: str, kind: str) -> list[tuple[float, float]]:
    """The circles of a kind behind the legend's, in the order that they are drawn in."""
    found = re.findall(rf'<circle class="{kind}" cx="([\d.]+)" cy="([\d.]+)"', picture)
    return [(float(x), float(y)) for x, y in found if float(y) != 46]


def record_of(**changes: Any) -> StudyRecord:
    return make_record(
        make_trial(0, 0.915, 0.2, 76_000, configuration=PLAIN),
        make_trial(1, 0.92, 0.2, 60_000),
        make_trial(2, 0.90, 0.2, 20_000),
        make_trial(3, 0.89, 0.2, 30_000),  # dominated
        make_trial(4, 0.91, 0.3, 19_000),  # slower than plain int8, and on the front
        make_trial(5, 0.50, 0.1, 10_000),  # outside of the picture
        **changes,
    )


def test_points_stand_where_their_values_are(front_svg: ModuleType) -> None:
    picture = front_svg.picture(record_of())
    fast, slow, others = (circles(picture, kind) for kind in ("front fast", "front", "other"))
    assert (len(fast), len(slow), len(others)) == (2, 1, 2)  # plain int8 is dominated too
    (large, small), (slower,) = fast, slow
    assert large[0] > small[0] > slower[0]  # 60, 20, 19 KB
    assert large[1] < slower[1] < small[1]  # .92 above .91 above .90
    axes = front_svg.axes_of(record_of())
    assert axes.x(20 * 1.5) - axes.x(20) == pytest.approx(axes.x(60) - axes.x(40))  # logarithmic


def test_a_picture_is_xml_whatever_a_task_is_called(front_svg: ModuleType) -> None:
    picture = front_svg.picture(record_of(task="<b>&\"'", metric_name="a<b"))
    texts = [element.text for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert "<b>&\"' for rpi4: 4 of 6 evaluated candidates are on the front" in texts
    assert {"float", "plain int8", "knee", "a<b on validation data", "download in KB (gzip, logarithmic)"} <= set(texts)
    assert "latency modelled" in texts


def test_a_study_without_plain_int8_or_a_front_is_drawn(front_svg: ModuleType) -> None:
    assert "plain int8" not in front_svg.picture(make_record(make_trial(0, 0.9, 0.2, 20_000)))
    assert circles(front_svg.picture(make_record()), "front") == []


def test_a_metric_of_which_less_is_better_is_refused(front_svg: ModuleType) -> None:
    with pytest.raises(ValueError, match="more is better"):
        front_svg.picture(record_of(higher_is_better=False, metric_name="mae"))
