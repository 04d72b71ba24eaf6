"""The device that runs CUDA on a CPU catches what a card would hide, or punish at random."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.cuda.cpu_device import CpuFunction, KernelError, compiled, guarded

SOURCE = """
extern "C" __global__ void beyond(float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) y[i] = 1;
}
extern "C" __global__ void before(float* y, int n) { y[(int)threadIdx.x - 1] = 1; }
extern "C" __global__ void block_sum(const float* x, float* y, int barriers) {
    __shared__ float room[64];
    room[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    if (barriers) __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) y[blockIdx.x] = room[0];
}
extern "C" __global__ void twice(const float* x, float* y, int barriers) {
    __shared__ float room[2];
    float sum = 0;
    for (int round = 0; round < 2; round++) {
        if (barriers) __syncthreads();
        if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x[round * 2 + threadIdx.x / 32];
        __syncthreads();
        sum += room[0] + room[1];
    }
    y[threadIdx.x] = sum;
}
extern "C" __global__ void unset(float* y, int n) {
    __shared__ float room[64];
    if (threadIdx.x == 0) y[blockIdx.x] = room[n];
    room[n] = 1;
}
extern "C" __global__ void apart(float* y, int n) {
    if (threadIdx.x < n) y[0] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    else __syncthreads();
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    source = tmp_path_factory.mktemp("cuda") / "mistakes.cu"
    source.write_text(SOURCE)
    return compiled(Path(source), ())


def kernel(library: ctypes.CDLL, name: str, *, descending: bool = False) -> CpuFunction:
    return CpuFunction(library, "mistakes.cu", name, descending=descending)


def buffer(values: np.ndarray) -> np.ndarray:
    made = guarded(values.size, values.dtype)
    made[...] = values
    return made


@pytest.mark.parametrize("name", ["beyond", "before"])
def test_a_write_outside_of_a_buffer_is_caught(library: ctypes.CDLL, name: str) -> None:
    with pytest.raises(KernelError, match="outside"):
        kernel(library, name)((1,), (64,), (buffer(np.zeros(40, np.float32)), np.int32(40)), 0)


@pytest.mark.parametrize("descending", [False, True])
def test_a_reduction_with_barriers_gives_the_sum(library: ctypes.CDLL, descending: bool) -> None:
    x, y = buffer(np.arange(192, dtype=np.float32)), buffer(np.zeros(3, np.float32))
    kernel(library, "block_sum", descending=descending)((3,), (64,), (x, y, np.int32(1)), 0)
    np.testing.assert_array_equal(y, x.reshape(3, 64).sum(axis=1))


def test_a_missing_barrier_shows_in_one_of_the_orders(library: ctypes.CDLL) -> None:
    x = buffer(np.arange(192, dtype=np.float32))
    right = []
    for descending in (False, True):
        y = buffer(np.zeros(3, np.float32))
        kernel(library, "block_sum", descending=descending)((3,), (64,), (x, y, np.int32(0)), 0)
        right.append(np.array_equal(y, x.reshape(3, 64).sum(axis=1)))
    assert not all(right)


def test_a_warp_that_overtakes_the_readers_of_shared_memory_shows(library: ctypes.CDLL) -> None:
    x = buffer(np.array([1, 2, 3, 4], np.float32))
    for barriers in (1, 0):
        right = []
        for descending in (False, True):
            y = buffer(np.zeros(64, np.float32))
            kernel(library, "twice", descending=descending)((1,), (64,), (x, y, np.int32(barriers)), 0)
            right.append(bool((y == 10).all()))
        assert all(right) == bool(barriers)


def test_shared_memory_begins_as_nan_in_every_block(library: ctypes.CDLL) -> None:
    y = buffer(np.zeros(2, np.float32))
    kernel(library, "unset")((2,), (32,), (y, np.int32(5)), 0)
    assert np.isnan(y).all()


def test_threads_that_wait_for_each_other_in_vain_are_reported(library: ctypes.CDLL) -> None:
    with pytest.raises(KernelError, match="stuck"):
        kernel(library, "apart")((1,), (32,), (buffer(np.zeros(1, np.float32)), np.int32(16)), 0)


@pytest.mark.parametrize(
    "args",
    [
        (np.zeros(4, np.float64), np.int32(4)),
        (np.zeros(4, np.float32), np.int64(4)),
        (np.zeros(4, np.float32), 4),
        (np.zeros(4, np.float32),),
        (np.zeros(8, np.float32)[::2], np.int32(4)),
    ],
    ids=["element", "width", "python int", "count", "strided"],
)
def test_an_argument_of_another_type_is_refused(library: ctypes.CDLL, args: tuple[object, ...]) -> None:
    with pytest.raises(KernelError, match=r"must|takes"):
        kernel(library, "beyond")((1,), (32,), args, 0)


@pytest.mark.parametrize(("grid", "block"), [((0,), (32,)), ((1, 70_000), (32,)), ((1,), (2048,))])
def test_a_launch_beyond_the_limits_of_a_card_is_refused(
    library: ctypes.CDLL, grid: tuple[int, ...], block: tuple[int, ...]
) -> None:
    with pytest.raises(KernelError, match="cannot have"):
        kernel(library, "beyond")(grid, block, (buffer(np.zeros(4, np.float32)), np.int32(0)), 0)
