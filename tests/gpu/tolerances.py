"""How far a card may be from the CPU, (rtol, atol) by precision: the one table of the tests of a card.

Sixteen bits are as far as in the tests on the CPU, from whose tables they are.
"""

from __future__ import annotations

from typing import Final

from dtrain.kernels.cuda.form import ValueType
from tests.kernels.cuda import test_cudnn, test_operator_forms, test_planned_training

Tolerance = tuple[float, float]

OPERATORS: Final[dict[str, Tolerance]] = {
    "fp64": (1e-11, 1e-11),
    # Sums in another order, products and sums rounded once.
    "fp32": (2e-5, 5e-6),
    # Both factors of a product lose all but 10 bits, maybe by truncation, which adds up.
    "tf32": (2**-8, 2**-6),
    "bf16": test_operator_forms.TOLERANCES[ValueType.BFLOAT16],
    "fp16": test_operator_forms.TOLERANCES[ValueType.FLOAT16],
}
BY_CUDNN: Final[dict[str, Tolerance]] = {
    # Maybe multiplied by Winograd's way, in float32.
    "fp32": (1e-4, 5e-5),
    "tf32": (2**-8, 2e-2),
    "bf16": test_cudnn.FORMS["bf16", True],
    "fp16": test_cudnn.FORMS["fp16", True],
}
PLANNED: Final[dict[str, float]] = {  # of weights after a few steps, absolute
    **test_planned_training.TOLERANCE,
    # On a card TF32 has the bits of fp16: a last bit of one layer turns the rounding of the next.
    "tf32": test_planned_training.TOLERANCE["fp16"],
}
