"""dtrain's worker, with CUDA on the CPU and the little that it asks of CuPy itself pretended."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import final

import pytest

from benchmarks import dtrain_gpu_worker
from benchmarks.card_worker import WARM_UP_STEPS, Case, Session
from benchmarks.dtrain_gpu_worker import SPIN, DtrainSubject
from dtrain.kernels.cuda.backend import CudaBackend
from tests.kernels.cuda import nvrtc
from tests.kernels.cuda.cpu_device import CpuDevice

TOTAL, FREE = 80 << 30, 70 << 30
POOL = 6 << 30
CASE = Case("cifar10_quick", 2, "bf16", 32, 10)


@final
class Event:
    """Passed as soon as it is recorded and somebody waits."""

    done = False

    def record(self) -> None:
        """Nothing is queued."""

    def synchronize(self) -> None:
        """Nothing is queued."""


@pytest.fixture
def spins(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nanoseconds of every kernel that only waits."""
    found: list[int] = []
    pool = SimpleNamespace(total_bytes=lambda: POOL, free_all_blocks=lambda: found.append(-1))
    cuda = SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda first, last: 12.5,
        runtime=SimpleNamespace(memGetInfo=lambda: (FREE, TOTAL)),
    )

    def kernel(code: str, name: str) -> object:
        return lambda grid, block, args: found.append(int(args[0]))

    cupy = SimpleNamespace(RawKernel=kernel, cuda=cuda, get_default_memory_pool=lambda: pool)
    monkeypatch.setitem(sys.modules, "cupy", cupy)

    def card_backend(precision: str) -> CudaBackend:
        return CudaBackend(CpuDevice(), precision=precision)

    monkeypatch.setattr(dtrain_gpu_worker, "card_backend", card_backend)
    return found


def test_a_session_trains_times_and_drops(spins: list[int]) -> None:
    subject = DtrainSubject()
    session = Session(subject)
    built = session.build(CASE, "plan on")
    assert any(note.startswith("plan:") for note in built["notes"]), "what the plan did must be told"
    assert subject.iter == WARM_UP_STEPS + 3
    answer = session.time(0.01)
    assert answer["steps"] >= 2
    assert answer["busy"] == {"seconds": 0.0125, "ahead": True}
    assert answer["pool_bytes"] == POOL
    assert answer["memory_bytes"] == 0, "the pretended driver's numbers stand still"
    assert all(ns > 5_000_000 + 3e9 * 0.9 * answer["wall_s"] for ns in spins), "a whole step fits behind"
    session.answer({"do": "drop"})
    assert spins[-1] == -1, "the pool is emptied"


def test_the_waiting_kernel_compiles() -> None:
    library = nvrtc.find()
    if library is None:
        pytest.skip("pip install nvidia-cuda-nvrtc")
    assert b"spin" in nvrtc.cubin(library, SPIN, "spin.cu", ["-arch=sm_90"])


@pytest.mark.parametrize("told", ["cudaErrorMemoryAllocation: out of memory", "CUDNN_STATUS_ALLOC_FAILED"])
def test_memory_that_ran_out_is_known_by_its_name(spins: list[int], told: str) -> None:
    assert DtrainSubject().is_out_of_memory(RuntimeError(told))
    assert DtrainSubject().is_out_of_memory(MemoryError())
    assert not DtrainSubject().is_out_of_memory(RuntimeError("cudaErrorIllegalAddress"))
