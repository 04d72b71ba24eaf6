"""Operators on arrays of 16 bits and with their channels last: what the CPU gives.

The rows of the operators' table whose operators keep the form of their bottom, with images of four axes; each
runs in every form, with threads in both orders.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form, ValueType
from dtrain.kernels.cuda.launch import PACK_BYTES, Kernels
from tests.kernels.cuda.bench import Bench, compare
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.kernels.cuda.form_operators import IN_FORMS

FORMS: Final = {
    "bf16 NHWC": Form(ValueType.BFLOAT16, True),
    "fp16 NHWC": Form(ValueType.FLOAT16, True),
    "fp32 NHWC": Form(ValueType.FLOAT32, True),
    "bf16 NCHW": Form(ValueType.BFLOAT16),
}
PRECISIONS: Final = {ValueType.BFLOAT16: "bf16", ValueType.FLOAT16: "fp16", ValueType.FLOAT32: "fp32"}
TOLERANCES: Final = {  # (rtol, atol)
    # Rounding changes a bfloat16 by at most 2^-8 of it and a half by 2^-11. A result is rounded when it is
    # written, and so are tops that it is computed from; where terms cancel, the error is that of the largest.
    ValueType.BFLOAT16: (2**-6, 2**-6),
    ValueType.FLOAT16: (2**-9, 2**-9),
    ValueType.FLOAT32: (1e-5, 2e-6),
}


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("told", FORMS)
@pytest.mark.parametrize("name", IN_FORMS)
def test_in_every_form_cuda_gives_what_the_cpu_gives(name: str, told: str, descending: bool) -> None:
    form = FORMS[told]
    rtol, atol = TOLERANCES[form.type]
    backend = CudaBackend(CpuDevice(descending=descending), precision=PRECISIONS[form.type])
    with np.errstate(divide="ignore", invalid="ignore"):
        compare(IN_FORMS[name], backend, CpuBackend(engine="CAFFE"), rtol=rtol, atol=atol, form=form)


IN_BASE_FORM = ("channel_finish", "stochastic_pool_forward", "pool_backward_wide", "lrn_scale_within")
WITHIN = ("lrn_forward", "lrn_ratio", "lrn_backward_within")


@pytest.mark.parametrize("name", IN_FORMS)
def test_kernels_take_values_of_16_bits_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wide: list[str] = []
    launch = Kernels.launch

    def watched(self: Kernels, kernel: str, *args: Any, **settings: Any) -> None:
        if self.together != PACK_BYTES // 2:
            wide.append(kernel)
        launch(self, kernel, *args, **settings)

    monkeypatch.setattr(Kernels, "launch", watched)
    with np.errstate(divide="ignore", invalid="ignore"):
        IN_FORMS[name](Bench(CudaBackend(CpuDevice(), precision="bf16"), Form(ValueType.BFLOAT16, True)))
    known = (*IN_BASE_FORM, *(WITHIN if "WITHIN" in name else ()))
    assert [kernel for kernel in wide if kernel not in known] == []
