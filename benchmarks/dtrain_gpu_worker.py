"""A training step in dtrain on a card: the net of configs/NET with its input on the card, the plan on."""

from __future__ import annotations

import gc
import importlib
import logging
from typing import Any, final

import numpy as np

from benchmarks.card_worker import Busy, Case, Subject, serve
from benchmarks.dtrain_worker import CONFIGS, fed_by_input
from dtrain.comm.communicator import Communicator
from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.backend import Backend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_train_net
from dtrain.solvers.settings import Settings

SPIN = r"""
extern "C" __global__ void spin(unsigned long long ns) {
    unsigned long long begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - begin < ns);
}
"""


def card_backend(precision: str) -> Backend:
    """The first card, computing in "fp32", "tf32", "bf16" or "fp16"; cuDNN times its plans."""
    backend = CudaBackend(CupyDevice(0), precision=precision)
    backend.cudnn.autotune = True
    return backend


def build_solver(case: Case, backend: Backend, comm: Communicator | None = None) -> Solver:
    """A solver for configs/NET on random images and labels that the first step brings to the card."""
    param, _ = read_net(CONFIGS / case.net / "train_val.prototxt")
    fed_by_input(param, list(case.shape))
    settings = Settings(
        pb.SolverParameter(
            net_param=param,
            base_lr=1e-3,
            momentum=0.9,
            weight_decay=5e-4,
            lr_policy="fixed",
            max_iter=10**9,
            random_seed=1,
        ),
        None,
    )
    comm = comm or SingleCommunicator()
    net = build_train_net(settings, backend, comm, seed=1, plan=Plan())
    rng = np.random.default_rng(comm.rank)
    net.blob("data").data.plain_overwrite()[...] = rng.standard_normal(case.shape, np.float32)
    net.blob("label").data.plain_overwrite()[...] = rng.integers(0, case.classes, case.batch)
    return Solver(settings.param, net, comm=comm)


@final
class Heard(logging.Handler):
    """Keeps what dtrain logs: which plan was made, and whether an iteration became a graph."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@final
class DtrainSubject(Subject):
    """On the first card."""

    def __init__(self) -> None:
        self._cupy: Any = importlib.import_module("cupy")
        self._spin = self._cupy.RawKernel(SPIN, "spin")
        self._backend: Backend | None = None
        self._solver: Solver | None = None
        self._heard = Heard()
        log = logging.getLogger("dtrain")
        log.setLevel(logging.INFO)
        log.addHandler(self._heard)

    def build(self, case: Case, way: str) -> str:
        self._heard.lines.clear()
        self._backend = card_backend(case.precision)
        self._solver = build_solver(case, self._backend)
        return self._backend.describe()

    @property
    def iter(self) -> int:
        """Steps so far."""
        return self._solver.iter if self._solver is not None else 0

    def step(self, count: int) -> None:
        assert self._solver is not None, "built first"
        self._solver.step(count)

    def synchronize(self) -> None:
        assert self._backend is not None, "built first"
        self._backend.synchronize()

    def busy(self, spin_s: float) -> Busy:
        self.synchronize()
        first, last = (self._cupy.cuda.Event() for _ in range(2))
        self._spin((1,), (1,), (np.uint64(spin_s * 1e9),))
        first.record()
        self.step(1)
        ahead = not first.done
        last.record()
        last.synchronize()
        return Busy(self._cupy.cuda.get_elapsed_time(first, last) / 1e3, ahead)

    def used_bytes(self) -> int:
        free, total = self._cupy.cuda.runtime.memGetInfo()
        return int(total - free)

    def pool_bytes(self) -> int:
        return int(self._cupy.get_default_memory_pool().total_bytes())

    def notes(self) -> list[str]:
        return list(self._heard.lines)

    def is_out_of_memory(self, error: Exception) -> bool:
        told = str(error).lower()
        return isinstance(error, MemoryError) or "out of memory" in told or "alloc_failed" in told

    def drop(self) -> None:
        self._solver = self._backend = None
        gc.collect()
        self._cupy.get_default_memory_pool().free_all_blocks()


if __name__ == "__main__":
    serve(DtrainSubject())
