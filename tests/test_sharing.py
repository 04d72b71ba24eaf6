"""Arrays share memory when their lives do not overlap, and a value that is lost is never read as another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.errors import BackendError
from dtrain.fusion import fuse_relu, fuse_scale, fuse_sum
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.array import own
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.sharing import Lives, share_data, share_diffs
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.kernels.cuda.test_training import lenet

BLOCK = (Path(__file__).parent / "nets" / "residual_block.prototxt").read_text()


def residual() -> pb.NetParameter:
    param = pb.NetParameter()
    text.parse(BLOCK, param)
    return param


def build(param: pb.NetParameter, phase: int, *, fused: bool = False) -> Net:
    net = Net(param, Scope(CudaBackend(CpuDevice()), phase, rng=np.random.default_rng(1)))
    if fused:
        fuse_relu(net)
        fuse_scale(net)
        fuse_sum(net)
        net.rebuild()
    return net


def fill(net: Net) -> None:
    rng = np.random.default_rng(2)
    data, label = net.blob("data").data, net.blob("label").data
    data.plain_overwrite()[...] = rng.random(data.shape)
    label.plain_overwrite()[...] = rng.integers(0, 10, label.shape)


def rooms(net: Net) -> set[object]:
    """All rooms that arrays of the net are in."""
    arrays = [side for step in net.steps for blob in step.top for side in (blob.data, blob.diff)]
    return {own(array).storage.shared for array in arrays} - {None}


@pytest.mark.parametrize("fused", [False, True], ids=["as it is", "fused"])
@pytest.mark.parametrize("param", [lenet(), residual()], ids=["lenet", "residual block"])
def test_gradients_are_the_same_bit_for_bit_with_shared_diffs(param: pb.NetParameter, fused: bool) -> None:
    alone, together = (build(param, pb.TRAIN, fused=fused) for _ in range(2))
    count = share_diffs(together)
    assert 0 < len(rooms(together)) < count
    for net in (alone, together):
        for _ in range(2):
            fill(net)
            net.clear_param_diffs()
            net.forward()
            net.backward()
    for mine, other in zip(together.params.owned, alone.params.owned, strict=True):
        np.testing.assert_array_equal(mine.blob.diff.plain(), other.blob.diff.plain(), err_msg=mine.label)


@pytest.mark.parametrize("param", [lenet(), residual()], ids=["lenet", "residual block"])
def test_outputs_of_a_test_net_are_the_same_with_shared_activations(param: pb.NetParameter) -> None:
    alone, together = (build(param, pb.TEST) for _ in range(2))
    count = share_data(together)
    assert 0 < len(rooms(together)) < count
    for net in (alone, together):
        for _ in range(2):
            fill(net)
            net.forward()
    for name in alone.outputs:
        np.testing.assert_array_equal(together.blob(name).data.plain(), alone.blob(name).data.plain())


def test_a_value_whose_memory_another_array_has_taken_is_not_read() -> None:
    net = build(lenet(), pb.TEST)
    share_data(net)
    fill(net)
    net.forward()
    lost = [name for name, blob in net.blobs.items() if own(blob.data).storage.is_lost]
    assert lost
    with pytest.raises(BackendError, match=r"must be read before its memory is used.*--plan off"):
        net.blob(lost[0]).data.plain()


def test_lives_that_overlap_do_not_share() -> None:
    """Every array is written with its own number when its life begins, and still holds it when that ends."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        backend = CudaBackend(CpuDevice())
        spans = [sorted(rng.integers(0, 12, 2).tolist()) for _ in range(10)]
        arrays = [backend.array((int(size),)) for size in rng.integers(1, 30, 10)]
        lives = Lives()
        for array, (begin, end) in zip(arrays, spans, strict=True):
            lives.uses(array, begin)
            lives.uses(array, end)
        assert lives.place(backend, set()) == len(arrays)
        for time in range(12):
            for number, (array, (begin, _)) in enumerate(zip(arrays, spans, strict=True)):
                if begin == time:
                    array.native_overwrite().fill(number)
                    array.written()
            for number, (array, (_, end)) in enumerate(zip(arrays, spans, strict=True)):
                if end == time:
                    assert (array.plain() == number).all()


def test_a_cpu_has_no_rooms() -> None:
    param = lenet()
    net = Net(param, Scope(CpuBackend(engine="CAFFE"), pb.TRAIN, rng=np.random.default_rng(1)))
    assert share_diffs(net) == 0
