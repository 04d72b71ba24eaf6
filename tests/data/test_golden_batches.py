"""Batches as BVLC Caffe 1.0 made them."""

import numpy as np
import pytest

from dtrain.data.backends import open_reader
from dtrain.data.feeder import Feeder
from dtrain.data.image_list import ImageListReader
from dtrain.data.sampler import TrainSchedule
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.shared import shared_path

LEVELS = {
    "raw": 0,
    "raw_crop_mean_file": 0,
    "raw_mean_values": 0,
    "gray": 0,
    "encoded_crop": 2,
    "image_data": 2,
}
"""JPEG decoders differ by a level or two; raw pixels do not."""


def open_source(layer, root):
    if layer.type == "Data":
        return open_reader(
            str(root / layer.data_param.source), pb.DataParameter.DB.Name(layer.data_param.backend)
        )
    param = layer.image_data_param
    return ImageListReader(
        str(root / param.source),
        root_folder=str(shared_path("data", "imagenet-sample")) + "/",
        new_height=param.new_height,
        new_width=param.new_width,
        is_color=param.is_color,
    )


@pytest.mark.parametrize("name", LEVELS)
def test_three_batches_are_those_of_caffe(name):
    root = shared_path("golden", "data")
    golden = np.load(root / "data.npz")
    net = pb.NetParameter()
    text.parse(str(golden[f"{name}|net"]), net)
    (layer,) = net.layer
    if layer.transform_param.HasField("mean_file"):
        layer.transform_param.mean_file = str(root / layer.transform_param.mean_file)
    reader = open_source(layer, root)
    settings = TransformSettings.from_param(layer.transform_param, train=False, seed=1, where=name)
    schedule = TrainSchedule(num_records=len(reader), batch_size=4)
    feeder = Feeder(reader, Transformer(settings, name), schedule, batch_size=4, threads=2)
    try:
        for n in range(3):
            batch = feeder.next()
            assert batch.data.dtype == np.float32
            np.testing.assert_array_equal(batch.labels, golden[f"{name}|label"][n])
            np.testing.assert_allclose(
                batch.data, golden[f"{name}|data"][n], rtol=0, atol=LEVELS[name] * settings.scale
            )
    finally:
        feeder.close()
        reader.close()
