"""A card's streams and graphs: what must come first does, whatever a card does late or early."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from dtrain.errors import BackendError
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.variables import Variables
from tests.kernels.cuda.numpy_cupy import CUDADriverError, Cupy

pytestmark = pytest.mark.parametrize("copies_first", [False, True], ids=["late", "copies first"])


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, copies_first: bool) -> Cupy:
    return Cupy(capability="80", copies_first=copies_first).install(monkeypatch)


@pytest.fixture
def device(cupy: Cupy) -> CupyDevice:
    return CupyDevice(0)


def pinned(device: CupyDevice, *values: float) -> Any:
    room = device.host(len(values), np.float32)
    room[...] = values
    return room


def on(device: CupyDevice, *values: float) -> Buffer:
    buffer = device.empty(len(values), np.float32)
    device.upload(np.array(values, np.float32), buffer)
    return buffer


def read(device: CupyDevice, buffer: Buffer) -> list[float]:
    got = np.zeros(buffer.size, np.float32)
    device.download(buffer, got)
    return [float(value) for value in got]


def relu(device: CupyDevice, buffer: Buffer) -> None:
    """buffer = max(buffer, 0)."""
    kernel = device.function("epilog.cu", "bias_relu", ("REAL=float",))
    kernel((1,), (32,), [np.int32(buffer.size), buffer, np.uintp(0), np.int32(1), np.int32(1)], 0)


# -- copies


def test_a_copy_in_comes_behind_its_mark_and_before_what_waits_for_it(device: CupyDevice) -> None:
    room, kept, again = on(device, 1, -1), on(device, 0, 0), on(device, 0, 0)
    relu(device, room)
    device.copy(room, kept)
    copied = device.copy_in(pinned(device, 5, 6), room, device.mark())
    device.after(copied)
    device.copy(room, again)
    assert read(device, again) == [5, 6]
    assert read(device, kept) == [1, 0]


def test_a_copy_out_has_what_was_queued_before_it_and_nothing_behind(device: CupyDevice) -> None:
    room, target = on(device, 1, -1), device.host(2, np.float32)
    relu(device, room)
    copied = device.copy_out(room, target)
    device.after(copied)
    device.clear(room)
    assert read(device, room) == [0, 0]
    copied.wait()
    assert copied.is_passed
    assert target.tolist() == [1, 0]


def test_copies_hold_their_memory_until_they_are_over(device: CupyDevice) -> None:
    target, source = on(device, 0, 0), on(device, 3, 4)
    copied = device.copy_in(pinned(device, 1, 2), target, None)
    told = device.host(2, np.float32)
    out = device.copy_out(source, told)
    del source
    gc.collect()
    pinned(device, 8, 9)
    device.clear(device.empty(2, np.float32))
    device.after(copied)
    assert read(device, target) == [1, 2]
    out.wait()
    assert told.tolist() == [3, 4]


def test_numbers_that_are_sent_may_change_at_once(device: CupyDevice) -> None:
    targets = [device.empty(3, np.float32) for _ in range(5)]
    numbers = np.zeros(3, np.float32)
    for i, target in enumerate(targets):
        numbers[...] = i
        device.send(numbers, target)
    assert [read(device, target)[0] for target in targets] == [0, 1, 2, 3, 4]


def test_room_for_numbers_is_used_again(device: CupyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    target, taken = device.empty(3, np.float32), []
    host = device.host
    monkeypatch.setattr(device, "host", lambda count, dtype: (taken.append(count), host(count, dtype))[1])
    for i in range(20):
        device.send(np.full(3, i, np.float32), target)
        assert read(device, target) == [i] * 3
    assert len(taken) == 1


def test_memory_that_is_free_again_is_overwritten_in_order(device: CupyDevice) -> None:
    source, target = on(device, 1, 2), on(device, 0, 0)
    device.copy(source, target)
    del source
    gc.collect()
    device.clear(device.empty(2, np.float32))
    assert read(device, target) == [1, 2]


# -- graphs


def test_a_capture_runs_nothing_and_its_replays_read_what_is_new(device: CupyDevice) -> None:
    x, y = on(device, 1, -1), on(device, 9, 9)
    device.begin_capture()
    assert device.is_capturing
    relu(device, x)
    device.copy(x, y)
    replay = device.end_capture()
    assert not device.is_capturing
    assert read(device, y) == [9, 9]
    for values, expected in (((1, -1), [1, 0]), ((-2, 3), [0, 3])):
        device.upload(np.array(values, np.float32), x)
        replay.launch()
        assert read(device, y) == expected


def test_replays_are_in_order_with_what_is_queued_around_them(device: CupyDevice) -> None:
    x, y = on(device, 0), on(device, 0)
    device.begin_capture()
    device.copy(x, y)
    replay = device.end_capture()
    for value in range(3):
        device.after(device.copy_in(pinned(device, value), x, device.mark()))
        replay.launch()
    assert read(device, y) == [2]


def test_variables_set_in_a_capture_reach_the_device_before_the_replay(device: CupyDevice) -> None:
    variables = Variables(device)
    variable, y = variables.new(1, np.float32), on(device, 0)
    device.begin_capture()
    variable.set(5)
    device.copy(variable.buffer, y)
    replay = device.end_capture()
    variables.flush()
    replay.launch()
    assert read(device, y) == [5]
    variable.set(6)
    replay.launch()
    assert read(device, y) == [6]


def test_a_graph_holds_the_memory_it_points_to(device: CupyDevice) -> None:
    x, y = on(device, 1, 2), on(device, 0, 0)
    device.begin_capture()
    between = device.empty(2, np.float32)
    device.copy(x, between)
    device.copy(between, y)
    replay = device.end_capture()
    del between
    gc.collect()
    device.clear(device.empty(2, np.float32))
    replay.launch()
    assert read(device, y) == [1, 2]


def test_memory_taken_in_a_capture_is_held_for_libraries_that_take_addresses(
    cupy: Cupy, device: CupyDevice
) -> None:
    before = device.memory_used()
    device.begin_capture()
    device.empty(1024, np.float32)
    replay = device.end_capture()
    assert device.memory_used() == before + 4096
    del replay
    gc.collect()
    assert device.memory_used() == before


def test_what_goes_between_host_and_device_is_refused_in_a_capture(device: CupyDevice) -> None:
    x, room = on(device, 1), pinned(device, 2)
    for what in (
        lambda: device.upload(room, x),
        lambda: device.download(x, room),
        lambda: device.send(room, x),
        lambda: device.copy_in(room, x, None),
        lambda: device.copy_out(x, room),
        device.synchronize,
        device.begin_capture,
    ):
        device.begin_capture()
        with pytest.raises(BackendError, match="CUDA graph: what is captured must stay on the device, got"):
            what()
        device.abandon_capture()
    assert read(device, x) == [1]


def test_nothing_waits_for_a_mark_across_the_border_of_a_capture(device: CupyDevice) -> None:
    outside, x = device.mark(), on(device, -1)
    device.begin_capture()
    with pytest.raises(BackendError, match="must be queued in its capture"):
        device.after(outside)
    inside = device.mark()
    device.after(inside)
    relu(device, x)
    device.end_capture().launch()
    for wait in (inside.wait, lambda: inside.is_passed):
        with pytest.raises(BackendError, match="must be made outside of a capture"):
            wait()
    with pytest.raises(BackendError, match="must be queued in its capture"):
        device.after(inside)
    assert read(device, x) == [0]


@pytest.mark.parametrize("is_broken", [False, True])
def test_the_device_is_usable_behind_an_abandoned_capture(
    cupy: Cupy, device: CupyDevice, is_broken: bool
) -> None:
    x = on(device, -1)
    device.begin_capture()
    relu(device, x)
    if is_broken:
        cupy.machine.faults["launch"] = CUDADriverError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        with pytest.raises(BackendError, match="kernel bias_relu"):
            relu(device, x)
        cupy.machine.streams[device.stream_pointer].capture.is_broken = True
    device.abandon_capture()
    assert not device.is_capturing
    assert read(device, x) == [-1]
    device.begin_capture()
    relu(device, x)
    device.end_capture().launch()
    assert read(device, x) == [0]


def test_a_stream_that_forks_from_a_capture_must_join_it_again(cupy: Cupy, device: CupyDevice) -> None:
    x, y = on(device, 4), on(device, 0)
    side = cupy.cuda.Stream(non_blocking=True)

    def captured(*, joins: bool) -> Any:
        device.begin_capture()
        relu(device, x)
        forked = cupy.cuda.Event(disable_timing=True)
        cupy.machine.streams[device.stream_pointer].record(forked)
        side.wait_event(forked)
        y.data.copy_from_device_async(x.data, 4, side)
        if joins:
            cupy.machine.streams[device.stream_pointer].wait_event(side.record(forked))
        return device.end_capture()

    with pytest.raises(
        BackendError, match="a capture's end must succeed, got cudaErrorStreamCaptureUnjoined"
    ):
        captured(joins=False)
    captured(joins=True).launch()
    assert read(device, y) == [4]
