"""Constraints as people write them."""

from __future__ import annotations

import pytest

from autocompress.errors import AutocompressError, UnmetError
from autocompress.records.constraint import parse_constraint, resolved
from autocompress.records.front import Front
from tests.builders.records import ALL, make_record, make_trial


@pytest.mark.parametrize(
    ("text", "name", "bound"),
    [
        ("flash<=60KB", "file_bytes", 60_000),
        ("size <= 64 KiB", "download_bytes", 65_536),
        ("ram<=.5MB", "peak_memory_bytes", 500_000),
        ("latency<=8ms", "latency_ms", 8),
        ("latency_ms<=250us", "latency_ms", 0.25),
        ("accuracy>=99%", "accuracy", 0.99),
        ("energy<=2J", "energy_mj", 2000),
        ("file_bytes<=1234567", "file_bytes", 1_234_567),
        ("latency_ms<=1e-3", "latency_ms", 0.001),
    ],
)
def test_bounds_have_units_and_names_that_people_use(text: str, name: str, bound: float) -> None:
    found = parse_constraint(text)
    assert found.name == name
    assert found.bound == pytest.approx(bound)
    again = parse_constraint(str(found))
    assert (again.name, again.relation, again.bound) == (found.name, found.relation, found.bound)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("accuracy>=float-1 point", 0.9086),
        ("accuracy >= float - .5 points", 0.9136),
        ("flash<=float - 6.08KB", 310_000),
        ("download<=float - 75 %", 72_000),
        ("latency<=float", 0.3),
        ("latency<=float + 10us", 0.31),
    ],
)
def test_bounds_that_hang_on_the_float_network(text: str, bound: float) -> None:
    record = make_record()
    (found,) = resolved([parse_constraint(text)], record.baseline)
    (again,) = resolved([parse_constraint(str(parse_constraint(text)))], record.baseline)
    assert found.bound == again.bound == pytest.approx(bound)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flash<=60ms", "'ms' is no unit of file_bytes; use one of B, kB"),
        ("flsh<=1", "unknown constraint 'flsh'; did you mean 'flash'?"),
        ("latency_ms<=fast", "'fast' is no number"),
        ("latency_ms<=nan", "'nan' is no number"),
        ("latency<=1e999", "is beyond every value"),
        ("accuracy>=float-", "'float-' is no number"),
        ("latency=8", "is not NAME<=NUMBER"),
    ],
)
def test_what_is_no_constraint_is_named_with_the_remedy(text: str, message: str) -> None:
    with pytest.raises(AutocompressError) as raised:
        parse_constraint(text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_pick_within_bounds_is_of_the_front_where_one_of_it_meets_them() -> None:
    front = Front(make_record(*ALL))  # files of twice the download
    assert front.pick("best").number == 2
    assert front.pick("best", [parse_constraint("flash<=60KB")]).number == 1
    assert front.pick("fastest", [parse_constraint("accuracy>=float-1 point")]).number == 1
    unlike = make_record(make_trial(0, 0.918, 0.2, 20_000), make_trial(1, 0.917, 0.1, 19_000, file_bytes=90_000))
    assert [trial.number for trial in Front(unlike).trials] == [1]
    assert Front(unlike).pick("knee", [parse_constraint("flash<=50KB")]).number == 0


def test_bounds_that_nothing_meets_name_the_nearest() -> None:
    front = Front(make_record(*ALL))
    with pytest.raises(UnmetError, match=r"meets file_bytes<=1000, the nearest is trial 0 with file_bytes 20000"):
        front.pick("knee", [parse_constraint("flash<=1KB")])
    with pytest.raises(AutocompressError, match="leave out its number, or the bounds"):
        front.pick(4, [parse_constraint("flash<=1KB")])
    with pytest.raises(AutocompressError, match="the float network has no energy_mj"):
        front.pick("knee", [parse_constraint("energy<=float")])
