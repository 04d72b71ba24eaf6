"""When the watch of the GPU speaks, and when it must not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dtrain.comm import device_watch
from dtrain.comm.board import Board, table_bytes
from dtrain.comm.communicator import aligned_zeros
from dtrain.comm.device_watch import DeviceWatch
from dtrain.errors import CommError, StallError

WARN_S, ABORT_S = 10.0, 30.0
LABELS = ["", "gradient bucket 1 of 2", "gradient bucket 2 of 2"]


class Scene:
    """Two ranks, of which rank `rank` watches; time is what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rank: int = 0) -> None:
        memory = aligned_zeros(table_bytes(2), "u1")
        self.boards = [Board(memory, None, other, 2) for other in range(2)]
        self.now = 100.0
        self.said: list[str] = []
        self.ended: list[CommError] = []
        self.fault: Exception | None = None
        self.progress: Any = SimpleNamespace(place=0, labels=LABELS)
        watch: Any = SimpleNamespace(board=self.boards[rank], warn_s=WARN_S, abort_s=ABORT_S, also=())
        self.outer = watch
        monkeypatch.setattr(device_watch.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(device_watch, "say", self.said.append)
        self.watch = DeviceWatch(watch, self.progress, check=self.check, end=self.ended.append)

    def check(self) -> None:
        if self.fault is not None:
            raise self.fault

    def look(self, seconds: float, then: Callable[[], None] = lambda: None) -> None:
        """Look once a second."""
        for _ in range(int(seconds)):
            self.now += 1.0
            then()
            for look in self.outer.also:
                look()


def test_a_gpu_that_stands_in_a_bucket_is_told_once_and_then_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.progress.place = 2
    scene.look(WARN_S)
    assert not scene.said
    scene.look(ABORT_S - WARN_S)
    (told,) = scene.said
    assert "its GPU is waiting 11.0 s in gradient bucket 2 of 2; not arrived: rank 1 on" in told
    assert not scene.ended
    scene.look(2)
    assert isinstance(scene.ended[0], StallError)
    assert "a collective must end in 30 s" in str(scene.ended[0])


def test_a_gpu_seen_in_the_same_bucket_of_one_iteration_after_the_other_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    scene.progress.place = 2

    def iterate() -> None:
        scene.watch.turns += 1

    scene.look(5 * ABORT_S, iterate)
    assert (scene.said, scene.ended) == ([], [])


def test_a_gpu_in_no_collective_is_well_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.look(5 * ABORT_S)
    assert (scene.said, scene.ended) == ([], [])


def test_the_rank_that_is_waited_for_tells_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, rank=1)
    scene.boards[0].device(1, WARN_S + 1, LABELS[1])
    scene.look(3)
    (told,) = scene.said
    assert "rank 1 on" in told
    assert "the others' GPUs wait for this rank, which is here:" in told
    assert "in test_the_rank_that_is_waited_for_tells_where_it_is" in told


def test_a_rank_whose_host_waits_for_others_does_not_tell_where(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, rank=1)
    scene.boards[0].device(1, WARN_S + 1, LABELS[1])
    scene.boards[1].begin_wait(5, "what signals ask for")
    scene.look(3)
    assert scene.said == []


def test_the_second_rank_ends_the_job_where_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, rank=1)
    scene.boards[0].device(2, 1000.0, LABELS[2])
    scene.progress.place = 2
    scene.look(ABORT_S + device_watch.GRACE_S)
    assert not scene.ended
    scene.look(2)
    assert "not arrived: none, the network stands still" in str(scene.ended[0])


def test_a_failure_is_told_with_its_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.progress.place = 1
    scene.look(1)
    scene.fault = RuntimeError("NCCL_ERROR_SYSTEM_ERROR")
    scene.look(1)
    assert "NCCL failed in gradient bucket 1 of 2: RuntimeError('NCCL_ERROR_SYSTEM_ERROR')" in str(
        scene.ended[0]
    )


def test_nothing_is_looked_at_after_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.progress.place = 2
    scene.look(5)
    assert scene.boards[1].standings()[0].device_label == LABELS[2]
    scene.watch.stop()
    scene.fault = RuntimeError("destroyed")
    scene.look(2 * ABORT_S)
    scene.watch.look()  # one that was on its way
    assert (scene.said, scene.ended) == ([], [])
    assert scene.boards[1].standings()[0].device_at == 0
