"""The way to a card: what it asks of CuPy, on memory of the host."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dtrain.comm.cupy_lane import CupyLane

DOWN, UP = 2, 1  # cudaMemcpyKind


class CUDARuntimeError(RuntimeError):
    """What CuPy raises."""


class Stream:
    """Keeps count of what is asked of it."""

    def __init__(self, *, non_blocking: bool = False, priority: int | None = None) -> None:
        self.non_blocking, self.priority = non_blocking, priority
        self.ptr = id(self)
        self.waits = 0

    def synchronize(self) -> None:
        self.waits += 1


class Card:
    """The part of CuPy that a lane uses."""

    def __init__(self) -> None:
        self.current = Stream(non_blocking=True)
        self.copies: list[tuple[int, int]] = []  # stream and kind
        self.registered: list[tuple[int, int, int]] = []
        self.used: list[int] = []  # threads whose card this is
        self.fault = ""
        runtime = SimpleNamespace(
            memcpyAsync=self.copy,
            memcpyDeviceToHost=DOWN,
            memcpyHostToDevice=UP,
            hostRegister=self.register,
            CUDARuntimeError=CUDARuntimeError,
        )
        self.cuda = SimpleNamespace(
            runtime=runtime,
            Stream=Stream,
            Event=lambda *, disable_timing: SimpleNamespace(disable_timing=disable_timing),
            get_current_stream=lambda: self.current,
            Device=lambda: SimpleNamespace(use=lambda: self.used.append(threading.get_ident())),
            alloc_pinned_memory=lambda size: bytearray(b"\xff" * -(-size // 512) * 512),
        )

    def empty(self, count: int, dtype: Any) -> Any:
        values = np.full(count, 0x55, dtype)
        pointer = SimpleNamespace(ptr=values.ctypes.data)
        return SimpleNamespace(values=values, data=pointer, size=count, dtype=dtype, nbytes=values.nbytes)

    def copy(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        ctypes.memmove(target, source, size)
        self.copies.append((stream, kind))

    def register(self, pointer: int, size: int, flags: int) -> None:
        if self.fault:
            raise CUDARuntimeError(self.fault)
        self.registered.append((pointer, size, flags))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    monkeypatch.setitem(sys.modules, "cupy", made)  # type: ignore[arg-type]
    return made


def test_values_go_up_and_down_on_the_stream_that_computes(card: Card) -> None:
    lane = CupyLane()
    values = np.arange(6, dtype=np.float32)
    there = lane.constants(values)
    assert lane.is_device(there)
    assert not lane.is_device(values)
    assert lane.address(there) == there.values.ctypes.data
    back = np.zeros(6, np.float32)
    lane.download(there, back)
    np.testing.assert_array_equal(back, values)
    assert card.copies == [(card.current.ptr, UP), (card.current.ptr, DOWN)]
    assert card.current.waits == 2
    lane.upload(values * 2, there)
    np.testing.assert_array_equal(there.values, values * 2)
    assert card.current.waits == 2, "an upload is queued"


def test_a_number_is_told_on_the_stream_that_is_named(card: Card) -> None:
    lane = CupyLane()
    beside = lane.stream()
    assert (beside.non_blocking, beside.priority) == (True, -1)  # type: ignore[attr-defined]
    place = lane.pinned(1, np.int32)
    assert place.tolist() == [0]
    lane.tell(card.empty(1, np.int32), place, beside)
    assert place.tolist() == [0x55]
    assert card.copies == [(beside.ptr, DOWN)]
    assert card.current.waits == 0
    assert lane.event().disable_timing


def test_another_thread_may_use_the_card(card: Card) -> None:
    lane = CupyLane()
    thread = threading.Thread(target=lane.use)
    thread.start()
    thread.join()
    assert card.used == [thread.ident]


def test_memory_that_cannot_be_pinned_gives_the_reason(card: Card) -> None:
    lane = CupyLane()
    array = np.zeros(100, np.float32)
    assert lane.pin(array) == ""
    assert card.registered == [(array.ctypes.data, 400, 0)]
    assert lane.pin(array[:0]) == ""
    card.fault = "cudaErrorMemoryAllocation"
    assert lane.pin(array) == "cudaErrorMemoryAllocation"
    assert len(card.registered) == 1


def test_a_copy_of_another_size_is_refused(card: Card) -> None:
    lane = CupyLane()
    with pytest.raises(AssertionError, match="keeps size and type"):
        lane.download(card.empty(3, np.float32), np.zeros(4, np.float32))
    with pytest.raises(AssertionError, match="keeps size and type"):
        lane.upload(np.zeros(4, np.float32), card.empty(3, np.float32))
