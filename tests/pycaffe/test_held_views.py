"""Arrays that a script keeps: what it writes is read, what the net computes is shown, whatever the layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.kernels.array import Plain
from dtrain.kernels.cpu.array import CpuArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.storage import CpuStorage
from tests.pycaffe.nets import IMAGES, TRAINED, write_net, write_solver

X = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write_net(tmp_path, IMAGES)


@pytest.fixture
def net(file: str) -> caffe.Net:
    made = caffe.Net(file, caffe.TEST)
    made.blobs["data"].data[...] = X
    return made


def layout_of(blob: caffe.Blob, side: str = "data") -> object:
    array: CpuStorage = getattr(blob._blob, side)
    return array.layout


def is_blocked(net: caffe.Net) -> None:
    """These tests show something where oneDNN has chosen a layout of its own."""
    if CpuBackend().engine is None:
        pytest.skip("oneDNN is not installed: every array is plain")
    assert layout_of(net.params["conv2"][0]) is not None
    assert layout_of(net.blobs["conv2"]) is not None


def expected_conv(x: Plain, w: Plain, b: Plain) -> Plain:
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.asarray(np.einsum("nchwij,ocij->nohw", windows, w) + b[:, None, None], np.float32)


def test_weights_are_written_through_a_view_that_was_taken_before(net: caffe.Net) -> None:
    is_blocked(net)
    w, b = (blob.data for blob in net.params["conv2"])
    for scale in (0.0, 1.0, -2.0):
        w[...] = scale * np.arange(w.size).reshape(w.shape) / w.size
        b[...] = scale
        out = net.forward(end="conv2")["conv2"]
        np.testing.assert_allclose(out, expected_conv(net.blobs["pool1"].data, w, b), rtol=1e-4, atol=1e-4)


def test_a_view_of_a_blob_shows_every_pass(net: caffe.Net) -> None:
    is_blocked(net)
    y = net.blobs["conv2"].data
    seen = []
    for value in (0.0, 1.0, 2.0):
        net.params["conv2"][0].data[...] = 0
        net.params["conv2"][1].data[...] = value
        net.forward()
        seen.append((y.min(), y.max()))
    assert seen == [(0, 0), (1, 1), (2, 2)]


def test_activations_are_written_through_a_view_that_was_taken_before(net: caffe.Net) -> None:
    is_blocked(net)
    y = net.blobs["conv2"].data
    net.forward()
    for value in (1.0, 3.0):
        y[...] = value
        fc = net.forward(start="fc", end="fc")["fc"]
        np.testing.assert_allclose(
            fc, value * np.tile(net.params["fc"][0].data.sum(1), (2, 1)), rtol=1e-3, atol=1e-4
        )


def test_views_of_gradients_follow_backward_and_clearing(net: caffe.Net) -> None:
    is_blocked(net)
    dw, dx = net.params["conv2"][0].diff, net.blobs["pool1"].diff
    net.forward()
    top = net.blobs["conv2"].diff
    top[...] = 1
    net.backward(start="conv2", end="conv2")
    once, data = dw.copy(), dx.copy()
    assert np.abs(once).max() > 0
    np.testing.assert_allclose(
        data.sum(), net.params["conv2"][0].data.sum() * 2 * 3 * 3, rtol=1e-3, atol=1e-3
    )
    top[...] = 2
    net.backward(start="conv2", end="conv2")
    np.testing.assert_allclose(dw, 3 * once, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dx, 2 * data, rtol=1e-4, atol=1e-5)
    net.clear_param_diffs()
    assert not dw.any()
    dw[...] = 5
    net.backward(start="conv2", end="conv2")
    np.testing.assert_allclose(dw, 5 + 2 * once, rtol=1e-4, atol=1e-4)


def test_a_net_whose_arrays_were_all_taken_computes_the_same(file: str, net: caffe.Net) -> None:
    caffe.set_random_seed(1)
    untouched = caffe.Net(file, caffe.TEST)
    assert [blob.data.shape for blob in net.blobs.values()]
    for blobs in (net.blobs.values(), *net.params.values()):
        for blob in blobs:
            assert blob.data.shape == blob.diff.shape
    d = np.random.default_rng(1).standard_normal((2, 10)).astype(np.float32)
    for _ in range(2):
        ours, theirs = net.forward(data=X)["prob"], untouched.forward(data=X)["prob"]
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(net.backward(prob=d)["data"], untouched.backward(prob=d)["data"])
    for name, blobs in untouched.params.items():
        for mine, other in zip(net.params[name], blobs, strict=True):
            np.testing.assert_allclose(mine.diff, other.diff, rtol=1e-5, atol=1e-6)


def test_a_view_of_weights_follows_the_solver_and_is_followed(tmp_path: Path) -> None:
    data = 'layer { name: "data" type: "DummyData" top: "data" dummy_data_param {'
    dummy = data + ' shape { dim: 2 dim: 3 dim: 12 dim: 12 } data_filler { type: "gaussian" } } }'
    labels = 'layer { name: "label" type: "DummyData" top: "label" dummy_data_param { shape { dim: 2 } } }'
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
    body = IMAGES[IMAGES.index('layer { name: "conv1"') : IMAGES.index('layer { name: "prob"')]
    solver = caffe.SGDSolver(write_solver(tmp_path, write_net(tmp_path, dummy + labels + body + loss)))
    is_blocked(solver.net)
    w = solver.net.params["conv2"][0].data
    tested = solver.test_nets[0].params["conv2"][0].data
    dw = solver.net.params["conv2"][0].diff
    before, ready = w.copy(), []
    solver.add_callback(lambda: None, lambda: ready.append(dw.copy()))
    solver.step(1)
    np.testing.assert_allclose(w, before - 0.1 * ready[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tested, w)
    w[...] = 0
    history = before - before - 0.1 * ready[0]
    solver.step(1)
    np.testing.assert_allclose(w, 0.9 * history - 0.1 * ready[1], rtol=1e-5, atol=1e-6)


def test_a_view_of_a_data_layers_top_shows_every_batch(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    lines = []
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((2, 2, 3), 10 * i, np.uint8))
        lines.append(f"{tmp_path}/{i}.png {i}\n")
    tmp_path.joinpath("list.txt").write_text("".join(lines))
    layer = 'layer { name: "data" type: "ImageData" top: "data" top: "label" image_data_param '
    source = f'{{ source: "{tmp_path}/list.txt" batch_size: 1 }} }}'
    net = caffe.Net(write_net(tmp_path, layer + source), caffe.TEST)
    net.forward()
    held = net.blobs["data"].data
    shown = [float(held[0, 0, 0, 0])]
    for _ in range(5):
        held[...] = np.nan  # must reach neither the coming batches nor the layer's buffers
        net.forward()
        shown.append(float(held[0, 0, 0, 0]))
    assert shown == [0, 10, 20, 30, 0, 10]


def test_a_view_stays_good_under_another_shape_of_as_many_values(net: caffe.Net) -> None:
    held = net.blobs["conv2"].data
    net.forward()
    array = net.blobs["conv2"]._blob.data
    array.reshape((held.size,))
    assert np.shares_memory(array.plain(), held)
    array.reshape((2 * held.size,))
    assert not np.shares_memory(array.plain_overwrite(), held)


def test_a_view_is_never_of_a_buffer_that_was_given_to_be_read() -> None:
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    array = CpuArray((2, 3), np.float32, None)
    array.take(given)
    held = array.lend_plain()
    held[...] = 7
    assert given[1, 2] == 5
    np.testing.assert_array_equal(array.native(), np.full(6, 7))
    array.take(given)
    np.testing.assert_array_equal(held, given)


def test_an_array_that_nobody_holds_pays_nothing(net: caffe.Net) -> None:
    net.forward()
    for blobs in (net.blobs.values(), *net.params.values()):
        for blob in blobs:
            assert blob.data.shape == blob.diff.shape == blob.shape
            assert not blob._blob.data.is_lent  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3)])
def test_an_array_is_lent_as_long_as_somebody_holds_a_view_of_it(shape: tuple[int, ...]) -> None:
    array = CpuArray(shape, np.float32, None)
    held = array.lend_plain()
    held[...] = 5
    assert array.lend_plain().tolist() == held.tolist()
    part = held.reshape(-1)[:1].reshape(-1)
    del held
    assert array.is_lent
    part += 1
    assert (array.plain().reshape(-1)[:1] == 6).all()
    del part
    assert not array.is_lent
    assert array.native().shape == (array.size,)


def test_a_training_net_does_not_share_anothers_weights(tmp_path: Path) -> None:
    file = write_net(tmp_path, TRAINED)
    solver = caffe.SGDSolver(write_solver(tmp_path, file))
    other = caffe.Net(file, caffe.TRAIN)
    with pytest.raises(caffe.net_spec.ConfigError, match="must not be a solver's training net"):
        solver.net.share_with(other)
    solver.share_weights(other)
    solver.net.params["score"][0].data[...] = 4
    assert (other.params["score"][0].data == 4).all()
