"""Work on the layers of a network in order, in several forked processes at once.

NumPy's loops over columns hold Python's lock, so threads gain nothing. Between rounds no process works: whoever
measures then has the processors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

from autocompress.network.tflite.isolated import Isolated

T = TypeVar("T")
_ROUND = 4  # positions a process, then there is a break
_READY = -1  # no position: asks a process that it is there


def side_by_side(of_position: Callable[[int], T], positions: int, processes: int, after: Callable[[], None]) -> list[T]:
    """What `of_position` gives for 0, 1, ..., in order. Each process is given rising positions; all of them share what
    there was at the fork. `after` is called here, once for each position, while no process works."""
    found: dict[int, T] = {}
    with _children(of_position, processes) as children:
        for start in range(0, positions, _ROUND * processes):
            here = range(start, min(start + _ROUND * processes, positions))
            found |= _round(children, here)
            for _ in here:
                after()
    return [found[position] for position in range(positions)]


def _round(children: Sequence[Isolated[[int], list[T]]], positions: range) -> dict[int, T]:
    """What the processes give for these positions, each taking the next one that is left."""
    waiting: SimpleQueue[int] = SimpleQueue()
    for position in positions:
        waiting.put(position)

    def answers(child: Isolated[[int], list[T]]) -> dict[int, T]:
        found: dict[int, T] = {}
        while True:
            try:
                position = waiting.get_nowait()
            except Empty:
                return found
            (found[position],) = child(position)

    with ThreadPoolExecutor(len(children)) as pool:
        try:
            parts = list(pool.map(answers, children))
        except BaseException:
            for child in children:  # nobody waits for them any more
                child.close()
            raise
    return {position: value for part in parts for position, value in part.items()}


@contextlib.contextmanager
def _children(of_position: Callable[[int], T], processes: int) -> Iterator[list[Isolated[[int], list[T]]]]:
    def in_one_thread(position: int) -> list[T]:
        from threadpoolctl import threadpool_limits

        if position == _READY:
            threadpool_limits(1)  # of this process, from now on
            return []
        return [of_position(position)]

    children: list[Isolated[[int], list[T]]] = [Isolated(in_one_thread) for _ in range(processes)]
    try:
        for child in children:
            child(_READY)  # forked here, before there are threads
        yield children
    finally:
        for child in children:
            child.close()
