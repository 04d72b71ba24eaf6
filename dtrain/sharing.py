"""Memory for arrays whose values are not needed at the same time, told from the order in which layers run."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from dtrain.blob import Blob
from dtrain.kernels.array import Room, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.net import Net


@final
@dataclass
class Life:
    """An array's values are needed from time `begin` to time `end`, both included."""

    array: SyncedArray
    begin: int
    end: int


def share_diffs(net: Net) -> int:
    """Let the diffs between layers share memory; the number of arrays that do.

    Backward writes a blob's diff in the layer that reads the blob and is done with it in the layer that makes
    it. Left out are the diffs of losses, which hold their weights, and those of blobs that no backward
    reaches.
    """
    lives = Lives()
    last = len(net.steps) - 1
    kept = {blob.diff.storage_id for blob in net.losses.blobs}
    times = _times(net)
    for step in net.steps:
        for blob in (*step.top, *step.bottom):
            if step.needs_backward:
                for i in times[id(step)]:
                    lives.uses(blob.diff, last - i)
    kept |= {diff.storage_id for diff in _reach_no_bottom(net)}
    return lives.place(net.scope.backend, kept)


def share_data(net: Net) -> int:
    """Let what layers of a net that only tests make share memory; the number of arrays that do.

    Left out are the net's outputs and what is brought into it from outside.
    """
    lives = Lives()
    kept = {net.blobs[name].data.storage_id for name in net.outputs}
    kept |= {blob.data.storage_id for blob in net.losses.blobs}
    times = _times(net)
    for step in net.steps:
        if step.feeds:
            kept |= {blob.data.storage_id for blob in step.top}
        for blob in (*step.bottom, *step.top):
            for i in times[id(step)]:
                lives.uses(blob.data, i)
    kept |= {blob.data.storage_id for step in net.steps for blob in step.layer.blobs}
    return lives.place(net.scope.backend, kept)


def _times(net: Net) -> dict[int, list[int]]:
    """By id of a step: when it may run, which for those that are fused is when any of them does."""
    own = {id(step): i for i, step in enumerate(net.steps)}
    return {id(step): [own[id(other)] for other in step.fused_with or [step]] for step in net.steps}


def _reach_no_bottom(net: Net) -> Iterable[SyncedArray]:
    """Diffs that a backward pass reads and no layer of the net writes: whoever fills them keeps them."""
    written = {
        blob.diff.storage_id
        for step in net.steps
        if step.needs_backward
        for blob, wanted in zip(step.bottom, step.bottom_need_backward, strict=True)
        if wanted
    }
    tops: list[Blob] = [blob for step in net.steps for blob in step.top]
    return [blob.diff for blob in tops if blob.diff.storage_id not in written]


def _misfit(size: int, entry: tuple[int, Room]) -> tuple[bool, int]:
    """Less for a room that need not grow, and for one that is hardly too large."""
    return entry[0] < size, abs(entry[0] - size)


@final
class Lives:
    """The life of every array, by the values that it holds: arrays that share these have one life."""

    def __init__(self) -> None:
        self._of: dict[int, Life] = {}

    def uses(self, array: SyncedArray, time: int) -> None:
        """A layer reads or writes the array at this time."""
        life = self._of.setdefault(array.storage_id, Life(array, time, time))
        life.begin, life.end = min(life.begin, time), max(life.end, time)
        if array.size > life.array.size:
            life.array = array

    def in_order(self, without: set[int]) -> list[Life]:
        """By their begin, and the largest first."""
        lives = [life for key, life in self._of.items() if key not in without and life.array.size]
        return sorted(lives, key=lambda life: (life.begin, -life.array.size))

    def place(self, backend: Backend, kept: set[int]) -> int:
        """Give each array but those `kept` the free room that fits best, or a new one; how many have one."""
        free: list[tuple[int, Room]] = []  # (size of its largest array, room)
        busy: list[tuple[int, int, Room]] = []  # (end, size, room)
        lives = self.in_order(kept)
        for life in lives:
            free += [(size, room) for end, size, room in busy if end < life.begin]
            busy = [entry for entry in busy if entry[0] >= life.begin]
            size = life.array.size
            if free:
                best = min(free, key=functools.partial(_misfit, size))
                free.remove(best)
                known, room = best
            else:
                made = backend.room()
                if made is None:
                    return 0
                known, room = 0, made
            life.array.move_into(room)
            busy.append((life.end, max(known, size), room))
        return len(lives)
