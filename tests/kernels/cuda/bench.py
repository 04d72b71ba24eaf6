"""One operator run on any backend: the same inputs for each, outputs that begin as NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cuda.array import CudaArray
from dtrain.kernels.cuda.form import Form, to_floats
from tests.kernels.cuda.cpu_device import from_floats

Values = NDArray[np.floating[Any]]
Run = Callable[["Bench"], None]


@final
class Bench:
    """Inputs are a function of the order in which they are asked for; `results` is what to compare.

    With a form, inputs are numbers that its type can hold, and arrays on a CUDA device are offered it.
    """

    def __init__(self, backend: Backend, form: Form | None = None) -> None:
        self.backend = backend
        self._form = form
        self.ops: Any = backend.operators("CAFFE")
        self.results: dict[str, Values | float] = {}
        self._rng = np.random.default_rng(20)

    def holding(self, values: Any) -> SyncedArray:
        """An array of these values."""
        given = np.asarray(values, np.float32)
        array = self.backend.array(given.shape)
        if self._form is not None:
            given = to_floats(from_floats(given, self._form.type), self._form.type)
            if isinstance(array, CudaArray):
                array.offer(self._form)
        array.plain_overwrite()[...] = given
        return array

    def data(self, *shape: int) -> SyncedArray:
        """Normal values."""
        return self.holding(self._rng.standard_normal(shape))

    def positive(self, *shape: int) -> SyncedArray:
        """Values in [0.1, 1.1)."""
        return self.holding(self._rng.random(shape) + 0.1)

    def distinct(self, *shape: int) -> SyncedArray:
        """Values far enough apart that rounding changes no maximum."""
        return self.holding(self._rng.permutation(int(np.prod(shape))).reshape(shape) / 8 - 4)

    def integers(self, high: int, *shape: int) -> SyncedArray:
        """Whole numbers in [0, high)."""
        return self.holding(self._rng.integers(0, high, shape))

    def room(self, *shape: int) -> SyncedArray:
        """NaN, to be overwritten."""
        return self.holding(np.full(shape, np.nan))

    def told(self, name: str, value: SyncedArray | float) -> None:
        """Something to compare."""
        self.results[name] = value.plain().copy() if isinstance(value, SyncedArray) else float(value)


def compare(
    run: Run,
    one: Backend,
    other: Backend,
    *,
    rtol: float = 1e-5,
    atol: float = 2e-6,
    form: Form | None = None,
) -> None:
    """The results of a run on two backends are equal to rounding, and there are some."""
    mine, theirs = Bench(one, form), Bench(other, form)
    run(mine)
    run(theirs)
    assert mine.results.keys() == theirs.results.keys()
    assert mine.results, "a run tells what came out"
    for name, expected in theirs.results.items():
        got = mine.results[name]
        assert np.shape(got) == np.shape(expected)
        np.testing.assert_allclose(got, expected, rtol, atol, err_msg=name)
