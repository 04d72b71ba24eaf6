"""The compiled scan of serialised messages agrees with protobuf's parser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.data import datum_scan as columns
from dtrain.data.datum import decode_datum, encode_image, encode_pixels
from dtrain.data.datum_scan import located, scan
from dtrain.errors import DataError
from dtrain.proto import dtrain_pb2 as pb

ints = st.integers(-(2**31), 2**31 - 1)


def scanned(messages):
    values = [memoryview(message) for message in messages]
    table = np.full((len(values), columns.COLUMNS), -7, np.int64)
    addresses, lengths, alive = located(values)
    scan(addresses, lengths, table)
    del alive
    return table


@settings(deadline=None)
@given(
    shape=st.tuples(ints, ints, ints),
    label=ints,
    data=st.binary(max_size=300),
    encoded=st.booleans(),
    floats=st.lists(st.floats(width=32), max_size=5),
    record_id=st.integers(0, 2**32 - 1),
)
def test_the_scan_finds_what_protobuf_finds(shape, label, data, encoded, floats, record_id):
    channels, height, width = shape
    message = pb.Datum(
        channels=channels,
        height=height,
        width=width,
        label=label,
        data=data,
        encoded=encoded,
        record_id=record_id,
    )
    message.float_data.extend(floats)
    raw = message.SerializeToString()
    (row,) = scanned([raw])
    assert row[columns.OK] == 1
    assert row[columns.CHANNELS : columns.WIDTH + 1].tolist() == [channels, height, width]
    assert row[columns.LABEL] == label
    assert row[columns.ENCODED] == encoded
    assert row[columns.FLOATS] == len(floats)
    start = row[columns.DATA_START]
    assert raw[start : start + row[columns.DATA_BYTES]] == data


@settings(deadline=None)
@given(raw=st.binary(max_size=60))
def test_the_scan_survives_any_bytes_and_reads_no_further_than_they_go(raw):
    (row,) = scanned([raw + b""])
    if row[columns.OK]:
        assert 0 <= row[columns.DATA_START] <= len(raw)
        assert 0 <= row[columns.DATA_BYTES] <= len(raw) - row[columns.DATA_START]


def test_a_cut_message_is_not_accepted():
    whole = encode_pixels(np.zeros((1, 4, 4), np.uint8), 3)
    assert scanned([whole])[0, columns.OK] == 1
    assert scanned([whole[:12]])[0, columns.OK] == 0


def test_pixels_floats_and_images_are_decoded():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    record = decode_datum(encode_pixels(pixels, 5), "x")
    np.testing.assert_array_equal(record.pixels, pixels)
    assert record.labels == (5.0,)
    floats = pixels.astype(np.float32) / 7
    np.testing.assert_array_equal(decode_datum(encode_pixels(floats, 5), "x").pixels, floats)
    assert decode_datum(encode_image(b"jpeg", 1), "x").encoded == b"jpeg"


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (b"\xff\xff", "must be a Datum message"),
        (
            pb.Datum(channels=1, height=2, width=2, data=b"123").SerializeToString(),
            "must number 1 x 2 x 2 = 4, got 3",
        ),
        (pb.Datum(data=b"123").SerializeToString(), "must be positive, got 0, 0, 0"),
        (pb.Datum(encoded=True).SerializeToString(), "must have data"),
    ],
)
def test_a_malformed_message_is_named(message, rule):
    with pytest.raises(DataError, match=rf"db: record 4 \(key k\).*{rule}"):
        decode_datum(message, "db: record 4 (key k)")
