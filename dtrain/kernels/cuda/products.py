"""What computes a device's matrix products."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dtrain.errors import BackendError
from dtrain.kernels.cuda.device import Buffer, Product
from dtrain.kernels.cuda.form import TYPE_OF, ValueType


class Products(ABC):
    """A library's products on one device, queued on its stream."""

    @abstractmethod
    def multiply(
        self, product: Product, a: Buffer, b: Buffer, c: Buffer, bias: Buffer | None, *, captured: bool
    ) -> bool:
        """Queue C = alpha op(A) op(B) + beta C, k at least 1; whether bias and ReLU are done as well."""

    @property
    def no_capture(self) -> str:
        """Why a CUDA graph cannot hold products; empty where it can."""
        return ""

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the library, with its version."""


def types_of(product: Product, c: Buffer) -> tuple[ValueType, ValueType]:
    """Of A and B, and of C and the bias."""
    output = product.output or TYPE_OF.get(c.dtype)
    assert output is not None, "a product into 16 bits names its type"
    assert output.storage == c.dtype, "C is held in its type's buffer"
    inputs = product.inputs or output
    if inputs is not output and not (inputs.is_16_bit and output is ValueType.FLOAT32):
        raise BackendError(
            f"CUDA: a product's output must be of its inputs' type, or FLOAT32 where those have 16 bits, "
            f"got {output.name} of {inputs.name}"
        )
    return inputs, output
