"""What layers that read records share: a reader, a transformer, and threads that stay ahead of the step."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from dtrain.data.bad_records import BadRecords
from dtrain.data.feeder import Feeder, first_record
from dtrain.data.pixel_rows import Layout, PixelRows, layout_of, why_not_rows
from dtrain.data.reader import Reader
from dtrain.data.record import Record
from dtrain.data.sample_writer import SampleWriter
from dtrain.data.sampler import Numbers
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.errors import DataError
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import Blobs, Count
from dtrain.layers.sample_stream import SampleStream

logger = logging.getLogger(__name__)


class RecordLayer(DataSource):
    """top[0] (N, C, H, W) the transformed images, top[1], if wanted, (N,) their labels.

    Sample i of the job's stream goes to rank i mod size. batch_size is per rank. A device that takes pixels
    gets what it can transform itself as bytes, unless use_gpu_transform is false.
    """

    num_tops = Count(1, 2)

    reader: Reader
    bad_records: BadRecords
    prefetch: int
    num_threads: int
    rand_skip: int
    shuffle: bool
    shuffle_block: int

    @abstractmethod
    def open(self) -> Reader:
        """The source that the layer's message names; also sets batch_size, prefetch and the like."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.waited_s = 0.0
        self.records: Numbers = np.empty(0, np.int64)
        """Numbers in the reader of the records of the last batch."""
        self._feeder: Feeder | None = None
        try:
            self.reader = self.open()
        except DataError as error:
            raise DataError(f"{self.told()}: {error}") from None
        if len(self.reader) == 0:
            raise DataError(
                f"{self.told()}: source must hold at least one record, got {self.reader.name}, empty"
            )
        if self.batch_size < 1:
            raise self.error(f"batch_size must be at least 1, got {self.batch_size}")
        self.num_records, self.source_name = len(self.reader), self.reader.name
        self.stream = SampleStream(
            self.scope,
            self.num_records,
            self.batch_size,
            shuffle=self.shuffle,
            shuffle_block=self.shuffle_block,
            rand_skip=self.rand_skip,
        )
        self.transformer = self._transformer()
        self.bad_records = BadRecords(self.scope.bad_records)
        self.scope.sample_names.append(self.name_of)
        first = first_record(self.reader, self.transformer, 0, self.bad_records)
        self.image_shape = self.transformer.output_shape(first)
        self.layout: Layout | None = self._layout(first)
        self.pixels: Any = None  # the operator, where there is a layout
        self.label_shape = () if len(first.labels) == 1 else (len(first.labels),)

    def _transformer(self) -> Transformer:
        settings = TransformSettings.from_param(
            self.spec.transform_param,
            train=self.is_training,
            seed=self.scope.seed,
            where=f'{self.where("transform_param")}: layer "{self.name}" ({self.spec.type})',
        )
        return Transformer(settings, self.told())

    def _layout(self, record: Record) -> Layout | None:
        """How pixels come to the device, for a source that begins with this record; None if images do."""
        param = self.spec.transform_param
        if param.HasField("use_gpu_transform") and not param.use_gpu_transform:
            return None
        backend = self.scope.backend
        reason = why_not_rows(self.transformer, record, self.batch_size)
        if not backend.takes_pixels:
            reason = f"the device is {backend.describe()}"
        if not reason:
            return layout_of(self.transformer, record)
        if param.use_gpu_transform:
            logger.info("%s: use_gpu_transform: the host transforms images, since %s", self.told(), reason)
        return None

    def _writer(self) -> SampleWriter:
        """What fills the batches."""
        if self.layout is None:
            return self.transformer
        return PixelRows(self.transformer.settings, self.told(), self.layout)

    def told(self) -> str:
        """The layer as errors name it."""
        return f'{self.where()}: layer "{self.name}" ({self.spec.type})'

    def name_of(self, sample: int) -> str:
        """The record behind a sample of the last batch, as errors name it."""
        return self.reader.where(int(self.records[sample]))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape((self.batch_size, *self.image_shape))
        if len(top) > 1:
            top[1].reshape((self.batch_size, *self.label_shape))
        if self.layout is not None:
            if self.pixels is not None:
                self.pixels.release()
            settings, means = self.transformer.settings, self.transformer.means(self.layout.channels)
            self.pixels = self.ops.Pixels(
                self.layout.is_interleaved, means, settings.mean_image, settings.scale, top[0].data
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self._feeder is None:
            self._feeder = Feeder(
                self.reader,
                self._writer(),
                self.stream.schedule(),
                batch_size=self.batch_size,
                prefetch=self.prefetch,
                threads=self.num_threads,
                bad=self.bad_records,
                allocate=self.scope.backend.host_memory,
                name=self.name,
            )
        for blob in top:
            blob.data.release()
        if self.pixels is not None:
            self.pixels.release()
        batch = self._feeder.next()
        self.records = batch.indices
        self.waited_s += self._feeder.wait_s
        if self.bad_records.has_met_any:
            wanted = self.stream.schedule()(self.stream.served).records
            self.bad_records.serve(wanted, batch.indices, self.num_records)
        self.stream.served += 1
        if self.pixels is not None:
            self.pixels.forward(batch.data, top[0].data)
        else:
            if batch.data.shape != top[0].shape:  # a batch of one has the size of its image
                top[0].reshape(batch.data.shape)
            top[0].data.take(batch.data)
        if len(top) > 1:
            top[1].data.take(batch.labels)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """There is nothing to propagate to."""

    def position(self) -> int:
        return self.stream.position()

    def seek(self, samples: int) -> None:
        self.stream.seek(samples)
        if self._feeder is not None:
            self._feeder.close()
            self._feeder = None
        self.transformer = self._transformer()  # a resumed run has the seed of the run that it goes on with

    def close(self) -> None:
        self.seek(self.position())
        self.reader.close()
