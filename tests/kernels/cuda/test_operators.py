"""CUDA = CPU for every operator, its kernels run by the CPU with threads in both orders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dtrain.kernels.cpu
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form, ValueType
from tests.kernels.cuda.bench import Bench, compare
from tests.kernels.cuda.cpu_device import CpuDevice, files, kernels_of, ran
from tests.kernels.cuda.form_operators import IN_FORMS, ROWS
from tests.kernels.cuda.test_cudnn import run_what_cudnn_leaves
from tests.kernels.cuda.test_epilog import check as check_epilog
from tests.kernels.cuda.test_forms import check_cast, check_orders

NOT_OPERATORS = (
    "array",
    "backend",
    "box_matching",
    "boxes",
    "gradient_norm",
    "in_place",
    "labels",
    "normalized",
    "recurrence",
    "regions",
    "splitmix",
    "storage",
    "threads",
    "view",
)
ON_THE_HOST = (
    "multi_box_loss",
    "detection_output",
    "prior_box",
)  # by their own decision, the goldens test them


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("name", ROWS)
def test_cuda_gives_what_the_cpu_gives(name: str, descending: bool) -> None:
    backend = CudaBackend(CpuDevice(descending=descending))
    with np.errstate(divide="ignore", invalid="ignore"):
        compare(ROWS[name], backend, CpuBackend(engine="CAFFE"))


@pytest.mark.parametrize("name", ROWS)
def test_float64_gives_what_the_cpu_gives(name: str) -> None:
    backend, peer = CudaBackend(CpuDevice(), dtype=np.float64), CpuBackend(engine="CAFFE", dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        compare(ROWS[name], backend, peer, rtol=1e-12, atol=1e-12)


def operators() -> list[str]:
    """Files of operators in kernels/cpu."""
    folder = Path(dtrain.kernels.cpu.__path__[0])
    names = {path.stem for path in folder.glob("*.py")}
    return sorted(names - set(NOT_OPERATORS) - {"__init__"})


def test_every_operator_of_the_cpu_has_a_twin_and_a_row() -> None:
    twins = {path.stem for path in Path(dtrain.kernels.cpu.__path__[0]).parent.joinpath("cuda").glob("*.py")}
    assert [name for name in operators() if name not in twins] == []
    rowed = {name.split(" ")[0].split("[")[0].lower() for name in ROWS} | {"slice", "bias"}
    letters = [name.replace("_", "") for name in operators() if name not in ON_THE_HOST]
    assert [name for name in letters if name not in rowed] == []


def test_every_kernel_is_run_on_the_cpu() -> None:
    """Runs what this process has not run yet, so that the test holds alone as well."""
    kernels = {(file, name) for file in files() for name in kernels_of(file)}
    if kernels - ran:
        with np.errstate(divide="ignore", invalid="ignore"):
            for run in ROWS.values():
                run(Bench(CudaBackend(CpuDevice())))
            for run in IN_FORMS.values():
                run(Bench(CudaBackend(CpuDevice()), Form(ValueType.BFLOAT16, True)))
        check_cast(CudaBackend(CpuDevice()), ValueType.FLOAT16)
        check_orders(CudaBackend(CpuDevice()), ValueType.FLOAT16)
        check_epilog(CpuDevice(), ValueType.FLOAT32)
        run_what_cudnn_leaves()
    print(f"{len(kernels & ran)} of {len(kernels)} kernels run on the CPU")
    assert sorted(kernels - ran) == []
