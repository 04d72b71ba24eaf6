"""Arrays pass through BlobProto unchanged, in every form that a Caffe or a fork has stored them."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.errors import DataError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.blobproto import array_to_blobproto, blob_shape, blobproto_to_array, fits, is_legacy
from dtrain.proto.files import read_binary
from tests.shared import shared_path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3, 4, 5), (40, 1000)])
def test_an_array_comes_back_as_it_went(dtype: type[np.floating], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    data, diff = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    blob = pb.BlobProto.FromString(array_to_blobproto(data, diff).SerializeToString())
    assert blob_shape(blob) == shape
    for back, sent in ((blobproto_to_array(blob), data), (blobproto_to_array(blob, diff=True), diff)):
        assert back.shape == shape
        np.testing.assert_array_equal(back, sent)
        if sent.size:
            assert back.dtype == dtype


def test_the_message_is_what_protobuf_itself_would_have_made() -> None:
    data = np.arange(300, dtype=np.float32).reshape(3, 100)
    assert array_to_blobproto(data) == pb.BlobProto(
        shape=pb.BlobShape(dim=[3, 100]), data=data.ravel().tolist()
    )


def test_arrays_in_any_memory_order_are_stored_in_row_major_order() -> None:
    data = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert list(array_to_blobproto(data).data) == [0, 3, 1, 4, 2, 5]


def test_the_result_can_be_written_to() -> None:
    back = blobproto_to_array(array_to_blobproto(np.zeros(3, np.float32)))
    back += 1


def test_a_legacy_shape_has_four_axes_and_fits_shapes_without_its_leading_ones() -> None:
    blob = pb.BlobProto(num=1, channels=1, height=2, width=3, data=range(6))
    assert is_legacy(blob)
    assert blobproto_to_array(blob).shape == (1, 1, 2, 3)
    assert fits(blob, (2, 3))
    assert fits(blob, (1, 1, 2, 3))
    assert not fits(blob, (3, 2))
    assert not fits(blob, (6,))
    assert not fits(blob, (1, 1, 1, 2, 3))


def test_todays_shape_fits_only_itself() -> None:
    blob = array_to_blobproto(np.zeros((1, 2), np.float32))
    assert not is_legacy(blob)
    assert fits(blob, (1, 2))
    assert not fits(blob, (2,))


@pytest.mark.parametrize(
    ("kind", "stored", "read"),
    [(pb.FLOAT, "<f4", np.float32), (pb.FLOAT16, "<f2", np.float32), (pb.DOUBLE, "<f8", np.float64)],
)
def test_raw_bytes_of_nvcaffe_are_decoded(kind: pb.Type, stored: str, read: type[np.floating]) -> None:
    values = np.array([1.5, -2.0, 0.25])
    raw = values.astype(stored).tobytes()
    blob = pb.BlobProto(shape=pb.BlobShape(dim=[3]), raw_data_type=kind, raw_data=raw)
    blob.raw_diff_type, blob.raw_diff = kind, raw
    for back in (blobproto_to_array(blob), blobproto_to_array(blob, diff=True)):
        assert back.dtype == read
        np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (pb.BlobProto(shape=pb.BlobShape(dim=[2, 3]), data=[1]), r"must have 6 \(2 x 3\) values, got 1"),
        (pb.BlobProto(shape=pb.BlobShape(dim=[-1, -1]), data=[1]), r"got 1"),
        (pb.BlobProto(data=[1, 2]), r"must have 1 \(scalar\) values, got 2"),
        (pb.BlobProto(raw_data=b"abc", raw_data_type=pb.FLOAT), "multiple of 4 bytes, got 3"),
        (pb.BlobProto(raw_data=b"abc", raw_data_type=pb.INT), "raw_data_type must be one of .*got INT"),
    ],
)
def test_a_blob_that_contradicts_itself_is_refused(blob: pb.BlobProto, words: str) -> None:
    with pytest.raises(DataError, match=f'^layer "ip" blob 0: .*{words}'):
        blobproto_to_array(blob, where='layer "ip" blob 0')


def test_caffes_own_mean_file_is_read() -> None:
    blob = pb.BlobProto()
    read_binary(shared_path("golden", "data", "mean.binaryproto"), blob)
    mean = blobproto_to_array(blob)
    assert mean.shape == (1, 3, 64, 72)
    np.testing.assert_array_equal(mean.ravel(), np.array(list(blob.data), np.float32))
