"""A CUDA array keeps both of its sides in step; on the CPU device they are never one memory."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.errors import BackendError
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import CudaArray
from dtrain.kernels.cuda.backend import CudaBackend
from tests.kernels.cuda.cpu_device import CpuDevice


@pytest.fixture
def backend() -> CudaBackend:
    return CudaBackend(CpuDevice())


def double(backend: CudaBackend, x: SyncedArray, y: SyncedArray) -> None:
    """y = 2 x by a kernel."""
    backend.operators("DEFAULT").Power(1.0, 2.0, 0.0, x, y).forward(x, y)


def filled(backend: CudaBackend, *values: float) -> CudaArray:
    array = backend.array((len(values),))
    array.plain_overwrite()[...] = values
    return array


def test_a_kernel_sees_what_the_plain_side_was_given(backend: CudaBackend) -> None:
    x, y = filled(backend, 1, 2, 3), filled(backend, 0, 0, 0)
    double(backend, x, y)
    assert y.plain().tolist() == [2, 4, 6]
    x.plain_mutable()[1] = 7
    double(backend, x, y)
    assert y.plain().tolist() == [2, 14, 6]


def test_a_kernel_in_place_changes_the_array(backend: CudaBackend) -> None:
    x = filled(backend, 1, 2, 3)
    double(backend, x, x)
    double(backend, x, x)
    assert x.plain().tolist() == [4, 8, 12]


def test_a_cleared_array_is_zero_on_both_sides(backend: CudaBackend) -> None:
    x, y = filled(backend, 1, 2), filled(backend, 5, 5)
    double(backend, x, x)
    x.clear()
    assert x.is_clear
    double(backend, x, y)
    assert y.plain().tolist() == [0, 0]
    assert x.plain().tolist() == [0, 0]


def test_a_view_writes_through_under_another_shape(backend: CudaBackend) -> None:
    x = filled(backend, 1, 2, 3, 4)
    view = x.view((2, 2))
    double(backend, view, view)
    assert x.plain().tolist() == [2, 4, 6, 8]
    x.plain_mutable()[3] = 0
    assert view.plain().tolist() == [[2, 4], [6, 0]]
    assert view.view((4, 1)).plain().shape == (4, 1)


def test_a_reshape_of_equal_size_keeps_the_values(backend: CudaBackend) -> None:
    x = filled(backend, 1, 2, 3, 4)
    double(backend, x, x)
    x.reshape((2, 2))
    assert x.plain().tolist() == [[2, 4], [6, 8]]
    x.reshape((3,))
    assert x.is_clear


def test_a_bound_array_lives_in_the_buffer(backend: CudaBackend) -> None:
    flat = backend.flat(16)
    x, cleared = filled(backend, 1, 2, 3), backend.array((2,))
    flat[8:10] = 9
    x.bind(flat[0:3])
    cleared.bind(flat[8:10])
    assert flat[:3].tolist() == [1, 2, 3]
    assert flat[8:10].tolist() == [0, 0]
    double(backend, x, x)
    assert flat[:3].tolist() == [2, 4, 6]
    flat[0] = 5
    x.push()
    assert x.plain().tolist() == [5, 4, 6]
    x.plain_mutable()[2] = 1
    x.pull()
    assert flat[:3].tolist() == [5, 4, 1]


def test_a_twin_takes_the_values_of_its_buffer(backend: CudaBackend) -> None:
    flat = backend.flat(3)
    flat[...] = [1, 2, 3]
    twin = filled(backend, 0, 0, 0).twin(flat)
    assert twin.plain().tolist() == [1, 2, 3]
    twin.plain_overwrite()[...] = 4
    twin.pull()
    assert flat.tolist() == [4, 4, 4]


def test_a_taken_buffer_is_read_and_not_kept_from_its_owner(backend: CudaBackend) -> None:
    x, y = backend.array((2, 2)), backend.array((2, 2))
    batch = np.arange(4, dtype=np.float32).reshape(2, 2)
    x.take(batch)
    double(backend, x, y)
    assert y.plain().tolist() == [[0, 2], [4, 6]]
    x.take(np.full((2, 2), 3, np.float64))
    double(backend, x, y)
    assert y.plain().tolist() == [[6, 6], [6, 6]]
    assert batch.tolist() == [[0, 1], [2, 3]]


def test_a_taken_buffer_may_change_once_it_is_released(backend: CudaBackend) -> None:
    x, y = backend.array((4,)), backend.array((4,))
    batch = np.zeros(4, np.float32)
    for number in range(3):
        x.release()
        batch[...] = number
        x.take(batch)
        double(backend, x, y)
        assert y.plain().tolist() == [2 * number] * 4


def test_what_is_lent_is_read_again_and_shows_what_kernels_write(backend: CudaBackend) -> None:
    x, y = filled(backend, 1, 2), filled(backend, 0, 0)
    seen, result = x.lend_plain(), y.lend_plain()
    double(backend, x, y)
    assert result.tolist() == [2, 4]
    seen[0] = 5
    double(backend, x, y)
    assert result.tolist() == [10, 4]
    y.clear()
    assert result.tolist() == [0, 0]
    double(backend, x, x)
    assert seen.tolist() == [10, 4]


def test_a_taken_buffer_that_is_then_lent_stays_as_it_is(backend: CudaBackend) -> None:
    x, batch = backend.array((2,)), np.ones(2, np.float32)
    x.take(batch)
    x.lend_plain()[0] = 5
    assert batch.tolist() == [1, 1]
    assert x.plain().tolist() == [5, 1]


def test_an_operator_without_a_file_is_told(backend: CudaBackend) -> None:
    with pytest.raises(BackendError, match="operator Nothing must have a file"):
        _ = backend.operators("DEFAULT").Nothing


def test_an_unknown_engine_lists_the_known(backend: CudaBackend) -> None:
    with pytest.raises(BackendError, match="CAFFE"):
        backend.operators("CAFE")


def test_a_type_without_kernels_is_refused() -> None:
    with pytest.raises(BackendError, match="dtype must be float32 or float64, got int32"):
        CudaBackend(CpuDevice(), dtype=np.int32)
