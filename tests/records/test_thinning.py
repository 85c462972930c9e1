"""The front under noise against its definition, by plain loops over all pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from autocompress import pareto
from autocompress.records.noise import Column
from autocompress.records.thinning import thinned, unbeaten
from tests.builders.arrays import Floats

Figure = tuple[float, float, float, float]
Point = tuple[Figure, ...]

# value, up, down, least difference that counts: of each objective of each point
figure = st.tuples(st.integers(0, 8), st.integers(0, 4), st.integers(0, 4), st.integers(0, 2))
even = st.integers(0, 8).map(lambda value: (value, 1, 1, 0))
exact = st.integers(0, 4).map(lambda value: (value, 0, 0, 0))


def points_of(each: st.SearchStrategy[Figure], most: int = 14) -> st.SearchStrategy[list[Point]]:
    return st.integers(1, 3).flatmap(lambda d: st.lists(st.tuples(*[each] * d), min_size=1, max_size=most))


def columns_of(points: Sequence[Point]) -> list[Column]:
    table = np.array(points, dtype=np.float64)  # (n, objectives, 4)
    return [column(table[:, j]) for j in range(table.shape[1])]


def column(rows: Floats) -> Column:
    values, up, down, least = rows.T
    return Column(values=values, up=up, down=down, least=least, logarithmic=False)


def better(a: Figure, b: Figure) -> bool:
    return b[0] - a[0] > max(math.hypot(a[1], b[2]), a[3], b[3])


def beats(p: Point, q: Point) -> bool:
    pairs = list(zip(p, q, strict=True))
    return any(better(a, b) for a, b in pairs) and not any(better(b, a) for a, b in pairs)


def level(p: Point, q: Point) -> bool:
    return not any(better(a, b) or better(b, a) for a, b in zip(p, q, strict=True))


def rings(points: Sequence[Point], *, also: Callable[[Point, Point], bool] = lambda p, q: False) -> list[list[bool]]:
    """Who comes to whom by way of beating (Warshall)."""
    n = range(len(points))
    reach = [[beats(points[i], points[j]) or also(points[i], points[j]) for j in n] for i in n]
    for k, i, j in itertools.product(n, n, n):
        reach[i][j] = reach[i][j] or (reach[i][k] and reach[k][j])
    return reach


def front_of(points: Sequence[Point]) -> list[int]:
    return [int(k) for k in thinned(columns_of(points), np.arange(len(points)), lambda among: int(among[0]))]


def check(points: Sequence[Point]) -> None:
    front = front_of(points)
    assert front
    for i, j in itertools.permutations(front, 2):
        assert not beats(points[i], points[j])
        assert not level(points[i], points[j])
    reach = rings(points)
    if any(reach[i][i] for i in range(len(points))):
        event("a ring")
        reach = rings(points, also=level)
        assert all(any(reach[i][j] for i in front) for j in range(len(points)))
        return
    for j in set(range(len(points))) - set(front):
        assert any(beats(points[i], points[j]) or level(points[i], points[j]) for i in front)


@given(points_of(figure))
@settings(deadline=None, max_examples=400)
def test_no_point_beats_another_and_none_is_left_out_for_nothing(points: Sequence[Point]) -> None:
    check(points)


@given(points_of(even))
@settings(deadline=None, max_examples=200)
def test_the_same_where_noise_is_the_same_for_all(points: Sequence[Point]) -> None:
    check(points)


@given(points_of(exact))
@settings(deadline=None)
def test_without_noise_it_is_the_strict_front(points: Sequence[Point]) -> None:
    values = np.array(points, dtype=np.float64)[:, :, 0]
    assert front_of(points) == np.flatnonzero(pareto.non_dominated(values)).tolist()


@given(points_of(figure), st.data())
@settings(deadline=None)
def test_where_nothing_rings_or_is_level_the_order_of_the_points_does_not_count(
    points: Sequence[Point], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(points))))
    pairs = list(itertools.combinations(points, 2))
    reach = rings(points)
    if any(level(p, q) for p, q in pairs) or any(reach[i][i] for i in range(len(points))):
        return
    there = front_of([points[k] for k in order])
    assert sorted(order[k] for k in there) == front_of(points)


@given(points_of(figure))
@settings(deadline=None)
def test_what_covers_a_point_covers_those_that_it_surely_beats(points: Sequence[Point]) -> None:
    left = unbeaten(columns_of(points), np.arange(len(points))).tolist()
    for j in set(range(len(points))) - set(left):
        strong = [
            i
            for i in left
            if beats(points[i], points[j])
            and all(
                a[0] <= b[0] and a[0] + a[1] <= b[0] + b[1] and a[0] + a[3] <= b[0] + b[3]
                for a, b in zip(points[i], points[j], strict=True)
            )
        ]
        assert strong
        covering = [k for k in range(len(points)) if beats(points[k], points[strong[0]])]
        assert all(beats(points[k], points[j]) or level(points[k], points[j]) for k in covering)


RING: list[Point] = [  # each beats the next in one objective, and the noise of the others hides it
    ((0, 1, 1, 0), (3, 4, 4, 0), (2, 4, 1, 0)),
    ((3, 1, 1, 0), (0, 1, 1, 0), (2, 4, 4, 0)),
    ((2, 4, 4, 0), (3, 1, 1, 0), (0, 1, 1, 0)),
]


def test_one_of_a_ring_stands_for_it() -> None:
    reach = rings(RING)
    assert all(reach[i][i] for i in range(3))
    assert len(front_of(RING)) == 1
    beaten = tuple((value + 9, up, down, least) for value, up, down, least in RING[0])
    assert front_of([beaten, *RING]) == [1]


def test_what_beats_a_point_of_the_front_may_be_beaten_itself() -> None:
    small, middle, large = (((loss, 1, 1, 0), (size, 0, 0, 0)) for loss, size in ((4, 3), (3, 5), (2, 20)))
    assert beats(small, middle)
    assert beats(middle, large)
    assert not beats(small, large)
    assert front_of([large, middle, small]) == [0, 2]


def test_thousands_of_points_are_thinned_to_steps_beyond_noise() -> None:
    rng = np.random.default_rng(0)
    size = rng.uniform(0, 1, 5000)
    loss = 1 - size + rng.uniform(0, 1, 5000) * (rng.random(5000) > 0.05)
    points = [((a, 0.05, 0.05, 0.0), (b, 0.0, 0.0, 0.001)) for a, b in zip(loss, size, strict=True)]
    front = front_of(points)
    assert 5 < len(front) < 25
    assert not any(beats(points[i], points[j]) for i, j in itertools.permutations(front, 2))
