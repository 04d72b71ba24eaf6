"""Data: images and labels from a database of Datum records. Source: Caffe's DataLayer."""

from __future__ import annotations

from typing import final

from dtrain.data.backends import open_reader
from dtrain.data.reader import Reader
from dtrain.layers.record_layer import RecordLayer
from dtrain.proto import dtrain_pb2 as pb


@final
class Data(RecordLayer):
    """Records in the order of their keys, from the start again after the end.

    `shuffle` puts every epoch of training in an order of its own, all records alike or, for sources that are
    slow to read at random, `shuffle_block` records that lie together at a time.
    """

    type_name = "Data"

    def open(self) -> Reader:
        param = self.spec.data_param
        if not param.source:
            raise self.bad_param(("data_param", "source"), "the path of a database", "none")
        if param.shuffle_block and not param.shuffle:
            raise self.bad_param(
                ("data_param", "shuffle_block"), "absent without shuffle: true", param.shuffle_block
            )
        if param.side:
            raise self.bad_param(
                ("data_param", "side"), "absent; give transform_param.random_resize_param", list(param.side)
            )
        self.batch_size = param.batch_size
        self.prefetch = param.prefetch
        self.num_threads = param.threads or 1
        self.rand_skip = param.rand_skip
        self.shuffle = param.shuffle
        self.shuffle_block = param.shuffle_block
        if param.force_encoded_color:
            self.spec.transform_param.force_color = True
        return open_reader(param.source, pb.DataParameter.DB.Name(param.backend))
