"""A step of CaffeNet on one image by the CUDA kernels, run on the CPU: what the worker does on a card."""

from __future__ import annotations

import sys

from benchmarks.card_worker import Case
from benchmarks.dtrain_gpu_worker import build_solver
from dtrain.kernels.cuda.backend import CudaBackend
from tests.kernels.cuda.cpu_device import CpuDevice


def main() -> None:
    precision = sys.argv[1] if len(sys.argv) > 1 else "fp32"
    solver = build_solver(Case("caffenet", 1, precision, 227), CudaBackend(CpuDevice(), precision=precision))
    print("built", flush=True)
    solver.step(1)
    print("built, a step done")


if __name__ == "__main__":
    main()
