"""The device that is a card: what it asks of CuPy, and what it says where there is none."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from dtrain.errors import BackendError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.device import Product
from dtrain.kernels.cuda.replay import GraphReplayer
from dtrain.solvers.loop import Solver
from tests.kernels.cuda.bench import compare
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.kernels.cuda.more_operators import ROWS
from tests.kernels.cuda.numpy_cupy import (
    GIB,
    CompileException,
    CUDADriverError,
    CUDARuntimeError,
    Cupy,
)
from tests.kernels.cuda.test_training import solver_on
from tests.solvers import golden

NAMES = [
    "ReLU[0.0] in place",
    "Convolution in groups",
    "Deconvolution 3x3",
    "InnerProduct",
    "InnerProduct transposed",
    "Pooling MAX that overlaps",
    "BatchNorm with scale",
    "SoftmaxLoss (3, 5, 4, 3) that ignores",
    "LSTM with a static input",
    "Embed",
]


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Cupy:
    return Cupy(capability="80").install(monkeypatch)


@pytest.fixture
def device(cupy: Cupy) -> CupyDevice:
    return CupyDevice(0)


@pytest.mark.parametrize("name", NAMES)
def test_operators_run_through_cupys_interface(device: CupyDevice, name: str) -> None:
    compare(ROWS[name], CudaBackend(device), CpuBackend(engine="CAFFE"))


# -- training


def trained(solver: Solver, name: str, iterations: int = 6) -> list[np.ndarray]:
    """The weights after some iterations."""
    golden.start_as_caffe(solver, name)
    golden.train(solver, iterations)
    return [param.blob.data.plain().copy() for param in solver.net.params.owned]


@pytest.mark.parametrize("copies_first", [False, True], ids=["late", "copies first"])
@pytest.mark.parametrize("replays", [False, True], ids=["eager", "replayed"])
@pytest.mark.parametrize("name", golden.NAMES[:2])
def test_training_gives_the_same_weights_however_late_a_card_computes(
    monkeypatch: pytest.MonkeyPatch, name: str, replays: bool, copies_first: bool
) -> None:
    Cupy(capability="80", copies_first=copies_first).install(monkeypatch)
    expected = trained(solver_on(name, CudaBackend(CpuDevice())), name)
    solver = solver_on(name, CudaBackend(CupyDevice(0)))
    if replays:
        solver.net.replayer = solver.net.scope.backend.replayer()
    for mine, other in zip(trained(solver, name), expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7)
    if replays:
        assert isinstance(solver.net.replayer, GraphReplayer)
        assert solver.net.replayer.num_graphs > 0, "the passes were captured"


# -- memory


def test_memory_in_use_and_at_most_is_counted(device: CupyDevice) -> None:
    before = device.memory_used()
    first = device.empty(1 << 20, np.float32)
    assert device.memory_used() == before + (4 << 20)
    del first
    second = device.empty(1 << 10, np.float32)
    assert device.memory_used() == before + second.nbytes
    assert device.memory_most() == before + (4 << 20)
    assert device.memory_free() == 80 * GIB - before - second.nbytes


def test_a_card_that_is_full_is_told_with_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    Cupy(memory=2 * GIB).install(monkeypatch)
    device = CupyDevice(0)
    with pytest.raises(
        BackendError,
        match=r"GPU 0: the card must give 4\.00 GiB more, got 1\.97 GiB free of 2\.0, with 0\.03 GiB in this "
        r"process's arrays; a smaller batch_size needs less, and a larger iter_size",
    ):
        device.empty(GIB, np.float32)


def test_a_limit_that_the_user_has_set_is_told(cupy: Cupy, device: CupyDevice) -> None:
    cupy.pool.limit = GIB
    with pytest.raises(
        BackendError, match=r"arrays of the 1\.00 that CUPY_GPU_MEMORY_LIMIT allows; a smaller"
    ):
        device.empty(GIB, np.float32)


def test_pinned_memory_that_cannot_be_had_is_told(cupy: Cupy, device: CupyDevice) -> None:
    cupy.machine.faults["pinned"] = CUDARuntimeError("cudaErrorMemoryAllocation")
    with pytest.raises(BackendError, match=r"2\.00 GiB of host memory must be pinned.*ulimit"):
        device.host(2 * GIB, np.uint8)


def test_values_of_16_bits_are_cleared_and_copied(device: CupyDevice) -> None:
    first, second = device.empty(5, np.uint16), device.empty(5, np.uint16)
    device.upload(np.arange(5, dtype=np.uint16), first)
    device.clear(second)
    device.copy(first[1:], second[:4])
    got = device.host(5, np.uint16)
    device.download(second, got)
    assert got.tolist() == [1, 2, 3, 4, 0]


# -- errors


def test_a_kernel_that_does_not_start_is_named(cupy: Cupy, device: CupyDevice) -> None:
    x = device.empty(4, np.float32)
    kernel = device.function("epilog.cu", "bias_relu", ("REAL=float",))
    args = [np.int32(4), x, np.uintp(0), np.int32(4), np.int32(1)]
    cupy.machine.faults["launch"] = CUDADriverError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
    with pytest.raises(
        BackendError, match=r"kernel bias_relu of epilog\.cu must start, got CUDA_ERROR_LAUNCH"
    ):
        kernel((1,), (32,), args, 0)


def test_a_fault_that_shows_later_names_the_last_kernel(cupy: Cupy, device: CupyDevice) -> None:
    x = device.empty(4, np.float32)
    device.function("epilog.cu", "bias_relu", ("REAL=float",))(
        (1,), (32,), [np.int32(4), x, np.uintp(0), np.int32(4), np.int32(1)], 0
    )
    told = (
        r"must succeed, got cudaErrorIllegalAddress; the last kernel queued was bias_relu of epilog\.cu.*"
        r"CUDA_LAUNCH_BLOCKING=1"
    )
    for wait in (device.synchronize, device.mark().wait, lambda: device.download(x, np.zeros(4, np.float32))):
        cupy.machine.faults["synchronize"] = CUDARuntimeError("cudaErrorIllegalAddress")
        with pytest.raises(BackendError, match=told):
            wait()


def test_a_file_that_does_not_compile_is_named(cupy: Cupy, device: CupyDevice) -> None:
    cupy.machine.faults["compile"] = CompileException("epilog.cu(3): error: expected a ;")
    with pytest.raises(BackendError, match=r"kernel bias_relu of epilog\.cu must compile.*\n.*expected a ;"):
        device.function("epilog.cu", "bias_relu", ("REAL=float",))


def test_headers_that_are_not_installed_are_told(cupy: Cupy, device: CupyDevice) -> None:
    cupy.machine.faults["compile"] = RuntimeError("Failed to find CUDA headers. Please install them")
    with pytest.raises(BackendError, match=r"bias_relu of epilog\.cu must compile.*\n.*find CUDA headers"):
        device.function("epilog.cu", "bias_relu", ("REAL=float",))


def test_a_block_may_have_more_shared_memory_once_it_is_asked_for(
    device: CupyDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = device.function("epilog.cu", "bias_relu", ("REAL=float",))
    args = [np.int32(4), device.empty(4, np.float32), np.uintp(0), np.int32(4), np.int32(1)]
    kernel((1,), (32,), args, 100 << 10)


def test_a_library_gets_addresses_and_the_stream(cupy: Cupy, device: CupyDevice) -> None:
    x, y, got = device.empty(4, np.float32), device.empty(4, np.float32), device.host(4, np.float32)
    device.send(np.full(4, 7, np.float32), x)
    stream = cupy.machine.streams[device.stream_pointer]

    def queue(addresses: Sequence[int]) -> None:
        cupy.machine.queue(stream, lambda: ctypes.memmove(addresses[1], addresses[0], 16))

    device.call(queue, [x, y])
    device.download(y, got)
    assert got.tolist() == [7] * 4


def test_a_library_is_found_by_its_name_or_is_none(device: CupyDevice) -> None:
    assert device.library("json") is json
    assert device.library("no_such_library") is None


# -- other threads


def test_another_thread_feeds_a_card_that_is_not_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    Cupy(cards=2, capability="80").install(monkeypatch)
    device = CupyDevice(1)
    targets, got = [device.empty(4, np.float32) for _ in range(3)], device.host(4, np.float32)
    early = device.host(4, np.float32)
    early[...] = 3
    marks = []

    def feed_what_is_there() -> None:
        marks.append(device.copy_in(early, targets[0], None))

    def feed() -> None:
        late = device.host(4, np.float32)
        late[...] = 3
        marks.append(device.copy_in(late, targets[1], None))

    def take() -> None:
        targets[2] = device.empty(4, np.float32)

    device.begin_capture()
    for work in (feed_what_is_there, feed, take):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    device.end_capture()
    assert len(marks) == 2
    for mark, target in zip(marks, targets, strict=False):
        device.after(mark)
        device.download(target, got)
        assert got.tolist() == [3] * 4


def test_everything_goes_to_the_devices_stream_whatever_the_current_one_is(
    cupy: Cupy, device: CupyDevice
) -> None:
    x, y, got = device.empty(4, np.float32), device.empty(4, np.float32), device.host(4, np.float32)
    kernel = device.function("epilog.cu", "bias_relu", ("REAL=float",))
    cupy.cuda.Stream(non_blocking=True).use()
    device.send(np.full(4, -2, np.float32), x)
    kernel((1,), (32,), [np.int32(3), x, np.uintp(0), np.int32(4), np.int32(1)], 0)
    device.gemm(Product(2, 2, 2), x, x, y)
    device.download(y, got)
    assert got.tolist() == [0, 0, 0, 4]


# -- what it says


def test_the_description_names_card_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    Cupy(cards=2).install(monkeypatch)
    told = CudaBackend(CupyDevice(1)).describe()
    assert told.startswith("GPU 1: NumPy, 80 GiB, CUDA 13.2, CuPy 14.2.0, cuBLASLt 13.5.0, ")


def test_without_cupy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match=r"pip install 'dtrain\[cuda12\]'.*-cpu"):
        CupyDevice(0)


def test_without_a_driver_its_fault_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Cupy(fault="cudaErrorInsufficientDriver").install(monkeypatch)
    with pytest.raises(BackendError, match="driver must be there, got cudaErrorInsufficientDriver"):
        CupyDevice(0)


def test_without_a_card_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Cupy(cards=0).install(monkeypatch)
    with pytest.raises(BackendError, match="at least 1 card must be visible, got 0"):
        CupyDevice(0)


def test_a_card_beyond_the_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Cupy(cards=2).install(monkeypatch)
    with pytest.raises(BackendError, match=r"number must be in \[0, 2\), got 2"):
        CupyDevice(2)


def test_nothing_imports_cupy_before_a_device_is_made() -> None:
    code = (
        "import pkgutil, importlib, sys, dtrain.kernels.cuda as here\n"
        "for module in pkgutil.iter_modules(here.__path__):\n"
        "    importlib.import_module(f'dtrain.kernels.cuda.{module.name}')\n"
        "sys.exit('cupy' in sys.modules or 'nvmath' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_product_and_a_kernel_read_what_was_queued_before_them(device: CupyDevice) -> None:
    a, c = device.empty(4, np.float32), device.empty(4, np.float32)
    device.send(np.full(4, 2, np.float32), a)
    device.gemm(Product(2, 2, 2), a, a, c)
    device.copy(c, a)
    got = device.host(4, np.float32)
    device.download(a, got)
    assert got.tolist() == [8] * 4
