"""ImageData: image files named in a list with their labels. Source: Caffe's ImageDataLayer."""

from __future__ import annotations

from typing import final

from dtrain.data.image_list import ImageListReader
from dtrain.data.reader import Reader
from dtrain.layers.record_layer import RecordLayer


@final
class ImageData(RecordLayer):
    """Images in the order of the list, or, with `shuffle`, in a new order every epoch."""

    type_name = "ImageData"

    def open(self) -> Reader:
        param = self.spec.image_data_param
        if not param.source:
            raise self.bad_param(("image_data_param", "source"), "the path of a list file", "none")
        if param.dataset_share_per_node != 1:
            raise self.bad_param(
                ("image_data_param", "dataset_share_per_node"),
                "absent: every rank reads its share of the whole list",
                param.dataset_share_per_node,
            )
        self.batch_size = param.batch_size
        self.prefetch = 4
        self.num_threads = param.threads if param.HasField("threads") else 1
        self.rand_skip = param.rand_skip
        self.shuffle = param.shuffle
        self.shuffle_block = 0
        return ImageListReader(
            param.source,
            root_folder=param.root_folder,
            new_height=param.new_height,
            new_width=param.new_width,
            short_side=param.short_side,
            min_height=param.min_height,
            min_width=param.min_width,
            is_color=param.is_color,
        )
