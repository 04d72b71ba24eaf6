"""caffe.coord_map: where places go, and the Crop that follows."""

from __future__ import annotations

import pytest

from dtrain import pycaffe as caffe
from dtrain.pycaffe import layers as L
from dtrain.pycaffe import params as P
from dtrain.pycaffe.coord_map import AxisMismatchException, compose, coord_map_from_to, crop, inverse


def spec(
    ks: object = 3, stride: object = 1, pad: object = 0, pool: int = 2, dstride: int = 2, dpad: int = 0
) -> caffe.NetSpec:
    """Convolution, pooling, and a deconvolution that undoes the pooling."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [2, 1, 100, 100]})
    n.aux = L.Input(shape={"dim": [2, 1, 20, 20]})
    n.conv = L.Convolution(n.data, num_output=10, kernel_size=ks, stride=stride, pad=pad)
    n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=pool, stride=pool, pad=0)
    size = 2 * dstride - dstride % 2
    n.deconv = L.Deconvolution(n.pool, num_output=10, kernel_size=size, stride=dstride, pad=dpad)
    return n


def test_convolution_pooling_and_deconvolution_compose() -> None:
    n = spec()
    axis, scale, shift = coord_map_from_to(n.deconv, n.data)
    assert (axis, scale, shift) == (1, 1, 0)
    axis, scale, shift = coord_map_from_to(n.deconv, n.pool)
    assert (axis, scale) == (1, 0.5)


def test_values_that_stay_in_place_change_no_map() -> None:
    n = spec()
    before = coord_map_from_to(n.deconv, n.data)
    n.relu = L.ReLU(n.pool, in_place=True)
    n.deconv = L.Deconvolution(n.relu, num_output=10, kernel_size=4, stride=2, pad=0)
    assert coord_map_from_to(n.deconv, n.data) == before


@pytest.mark.parametrize(("field", "sign"), [("pad", 1), ("dpad", -1)])
def test_padding_shifts(field: str, sign: int) -> None:
    plain, padded = (coord_map_from_to(n.deconv, n.data) for n in (spec(), spec(**{field: 4})))  # type: ignore[arg-type]
    assert plain[1] == padded[1]
    assert padded[2] - plain[2] == sign * -4


def test_several_axes_have_a_map_each() -> None:
    n = spec(ks=[3, 5, 7], pad=[0, 0, 0], stride=[1, 1, 1])
    axis, scale, shift = coord_map_from_to(n.conv, n.data)
    assert axis == 1
    assert list(scale) == [1, 1, 1]
    assert list(shift) == [1, 2, 3]


def test_maps_compose_and_invert() -> None:
    first, second = (1, 2.0, 3.0), (None, 5.0, 7.0)
    assert compose(first, second) == (1, 10.0, 17.0)
    assert compose(first, inverse(first)) == (1, 1.0, 0.0)
    with pytest.raises(AxisMismatchException, match="got 1 and 2"):
        compose((1, 1, 0), (2, 1, 0))


def test_a_crop_of_a_crop_has_both_offsets() -> None:
    n = spec()
    before = coord_map_from_to(n.deconv, n.data)
    n.crop = L.Crop(n.deconv, n.data, axis=2, offset=5)
    n.crop2 = L.Crop(n.crop, n.data, crop_param={"axis": 2, "offset": 5})
    axis, scale, shift = coord_map_from_to(n.crop2, n.data)
    assert (axis, scale) == before[:2]
    assert shift - before[2] == 10


def test_crop_makes_the_layer_with_its_offset() -> None:
    n = spec(ks=3, pad=10)
    n.crop = crop(n.deconv, n.data)
    layer = n.to_proto().layer[-1]
    assert (layer.type, layer.crop_param.axis, list(layer.crop_param.offset)) == ("Crop", 2, [10])
    assert list(layer.bottom) == ["deconv", "data"]


def test_blobs_without_a_map_are_told() -> None:
    n = spec()
    n.ip = L.InnerProduct(n.deconv, num_output=10)
    with pytest.raises(RuntimeError, match="connected by layers that keep images in place"):
        coord_map_from_to(n.ip, n.data)
    with pytest.raises(RuntimeError, match="connected"):
        coord_map_from_to(n.aux, n.data)
    with pytest.raises(AssertionError, match="scale must be 1, got"):
        crop(n.pool, n.data)
    m = spec(dpad=10)
    with pytest.raises(AssertionError, match="offset must be at least 0, got"):
        crop(m.deconv, m.data)
    k = caffe.NetSpec()
    k.data = L.Input(shape={"dim": [1, 1, 9, 9]})
    k.conv = L.Convolution(k.data, num_output=1, kernel_h=3, kernel_w=3)
    with pytest.raises(AssertionError, match="kernel_h, kernel_w"):
        coord_map_from_to(k.conv, k.data)
