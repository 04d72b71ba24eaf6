"""Steps of a net on one image by the CUDA kernels, run on the CPU: what the worker does on a card.

python -m benchmarks.cuda_on_cpu_step NET PRECISION [STEPS]
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.card_worker import NETS, Case
from benchmarks.dtrain_gpu_worker import build_solver
from dtrain.kernels.cuda.backend import CudaBackend
from tests.kernels.cuda.cpu_device import CpuDevice


def main() -> None:
    net, precision, *steps = sys.argv[1:]
    backend = CudaBackend(CpuDevice(), precision=precision)
    solver = build_solver(Case(net, 1, precision, NETS[net][1]), backend)
    before = [param.blob.data.plain().copy() for param in solver.net.params.owned]
    solver.step(int(steps[0]) if steps else 1)
    params = solver.net.params.owned
    after = [param.blob.data.plain() for param in params]
    assert all(np.isfinite(values).all() for values in after), "a weight is no number"
    learned = [
        p.lr_mult == 0 or not np.array_equal(a, b) for p, a, b in zip(params, after, before, strict=True)
    ]
    print(f"{solver.iter} steps, {sum(learned)} of {len(params)} parameters changed")
    assert all(learned), "a parameter did not change"


if __name__ == "__main__":
    main()
