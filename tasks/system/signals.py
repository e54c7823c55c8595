"""Requests to stop: SIGTERM, and SIGINT the first time. Without torch, so that they are heard from the start."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """The run was asked to stop, and has; the message says how to continue.

    Attributes:
        name: of the signal.
    """

    def __init__(self, name: str, message: str = "") -> None:
        super().__init__(message or f"stopped by {name}")
        self.name = name


class Stop:
    """Notes a request to stop while it is entered, which only the main thread can do; elsewhere it hears nothing.

    Args:
        signals: that ask for it.

    Attributes:
        name: of the signal that came; None as long as there was none.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self.name: str | None = None
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in self._signals}
            # Who starts a process in the background has it ignore SIGINT: that wish holds.
            self._before = {
                number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
            }
            self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def listen(self) -> None:
        """Take the signals back from a library that has put its own handlers in place."""
        for number in self._before if self.name is None else ():
            signal.signal(number, self._note)

    def ask(self) -> None:
        """Stop as SIGTERM does, from any thread."""
        self.name = self.name or signal.SIGTERM.name

    def wait(self, seconds: float) -> bool:
        """Sleep, no longer than until a request comes; whether there was one."""
        limit = time.monotonic() + seconds
        while self.name is None and (left := limit - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self.name is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = self.name or signal.Signals(number).name
        if number == signal.SIGINT:  # who presses it twice does not want to wait
            signal.signal(number, self._before.get(signal.SIGINT, signal.default_int_handler))


def shield(_worker: int) -> None:
    """Leave requests to stop to the parent: for processes that load data for it, and get every signal of its group.

    A parent that has imported this module ends them when it ends itself.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_children() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


# Python ends them by SIGTERM and waits: for shielded ones, forever. This comes before.
multiprocessing.util.Finalize(None, _end_children, exitpriority=0)
