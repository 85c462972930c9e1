"""Ctrl-C at any moment: what must be whole is not cut by it, and none is lost.

Python raises KeyboardInterrupt between any two instructions of the main thread, also where Optuna is about to name a
trial's state or SQLAlchemy holds a lock, and where exceptions are dropped (weak references, callbacks from C). `held`
puts it off until its end, `allowed` lets it through again inside; `check` raises one that was dropped."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

_depth = 0  # of `held`, in the main thread; 0: raised at once
_put_off = False  # one waits for the end of `held`
_seen = False  # since `listen`


def listen() -> None:
    """Take Ctrl-C over, unless it is ignored (as in the background jobs of a shell)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
        sys.unraisablehook = _say_dropped


def _say_dropped(dropped: sys.UnraisableHookArgs) -> None:
    if not issubclass(dropped.exc_type, KeyboardInterrupt):  # which `check` raises again
        sys.__unraisablehook__(dropped)


def interrupt(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt, now or after what holds it; a second one does not wait."""
    global _put_off, _seen
    _seen = True
    if _depth == 0 or _put_off:
        raise KeyboardInterrupt
    _put_off = True


def check() -> None:
    """KeyboardInterrupt where there was one and this process still goes on."""
    if _seen:
        raise KeyboardInterrupt


class _Depth:
    """A depth while it lasts, the one before afterwards. In other threads, which no interrupt reaches, nothing."""

    def __enter__(self) -> None:
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = _depth
            self._begin()

    def _begin(self) -> None:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        global _depth
        if self._is_main:
            _depth = self._before
            if _depth == 0:
                _raise_put_off()


class held(_Depth):  # noqa: N801 - used like a function
    """What is inside is not cut by Ctrl-C, which comes at its end."""

    def _begin(self) -> None:
        global _depth
        _depth += 1


class allowed(_Depth):  # noqa: N801 - used like a function
    """Inside `held`: what takes long and may be cut."""

    def _begin(self) -> None:
        global _depth
        _depth = 0
        if _put_off:
            _depth = self._before
            _raise_put_off()


def _raise_put_off() -> None:
    global _put_off
    if _put_off:
        _put_off = False
        raise KeyboardInterrupt
