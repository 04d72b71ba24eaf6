"""Signals as requests: SIGINT, SIGHUP and SIGTERM are noted when they come, and acted upon after a step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, final

from dtrain.errors import ConfigError, unknown_name
from dtrain.solvers.votes import Request

EFFECTS: Final = {"stop": Request.STOP, "snapshot": Request.SNAPSHOT, "none": Request.NONE}
FORCE_AFTER_S: Final = 1.0  # a terminal and mpirun may both hand on one Ctrl-C


def effect_of(name: str, flag: str) -> Request:
    """The request of Caffe's words stop, snapshot, none; `flag` is named in the error."""
    if name not in EFFECTS:
        raise ConfigError(f"{flag}: {unknown_name('effect', name, EFFECTS)}")
    return EFFECTS[name]


@final
class Signals:
    """While entered, signals become pending requests; in a thread that is not the main one nothing changes.

    SIGTERM means snapshot and stop. A second SIGINT, a second or more after one that stops, raises
    KeyboardInterrupt at once.
    """

    def __init__(self, sigint: Request = Request.STOP, sighup: Request = Request.SNAPSHOT) -> None:
        self._effects = {signal.SIGINT: sigint, signal.SIGTERM: Request.SNAPSHOT | Request.STOP}
        if hangup := getattr(signal, "SIGHUP", None):  # Windows has none
            self._effects[hangup] = sighup
        self._pending = Request.NONE
        self._interrupted_at = float("-inf")
        self._former: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Signals:
        self._pending = Request.NONE
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in self._effects}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        effect = self._effects[signal.Signals(number)]
        if number == signal.SIGINT and Request.STOP in effect:
            now = time.monotonic()
            if now - self._interrupted_at >= FORCE_AFTER_S and Request.STOP in self._pending:
                raise KeyboardInterrupt
            if Request.STOP not in self._pending:
                self._interrupted_at = now
        self._pending |= effect

    def pending(self) -> Request:
        """What has been asked for and not yet been settled."""
        return self._pending

    def settle(self, agreed: Request) -> None:
        """All ranks do this now; whoever asked for the same was heard."""
        self._pending &= ~agreed
