"""What is said while the layers of a network are gone through one by one: how many are done, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable

_EVERY_S = 5.0
_WIDTH = 20  # characters of the bar


class LayerProgress:
    """Says a line at most every five seconds, and none where all is done before the first is due."""

    def __init__(
        self, what: str, layers: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._layers, self._say, self._clock = what, layers, say, clock
        self._began_s = self._said_s = clock()
        self._done = 0

    def step(self) -> None:
        """One more layer is done."""
        self._done, now_s = self._done + 1, self._clock()
        if now_s - self._said_s < _EVERY_S or self._done >= self._layers:
            return
        self._said_s = now_s
        left_s = (now_s - self._began_s) / self._done * (self._layers - self._done)
        filled = _WIDTH * self._done // self._layers
        bar = "#" * filled + "." * (_WIDTH - filled)
        self._say(f"{self._what} {bar} {self._done} of {self._layers} layers, about {_rounded(left_s)} left")


def _rounded(seconds: float) -> str:
    """A time in seconds or minutes, no finer than it can be known."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
