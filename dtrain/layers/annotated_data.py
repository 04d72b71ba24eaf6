"""AnnotatedData: images with the boxes of their objects. Source: AnnotatedDataLayer of SSD's Caffe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.data.annotated import read_label_map
from dtrain.data.annotated_feeder import AnnotatedFeeder, AnnotatedSource
from dtrain.data.annotated_resize import Fit
from dtrain.data.annotated_sampling import BoxSampler
from dtrain.data.annotated_settings import AnnotatedSettings
from dtrain.data.annotated_transformer import AnnotatedTransformer
from dtrain.data.backends import open_reader
from dtrain.data.bad_records import BadRecords
from dtrain.data.reader import DatumReader
from dtrain.data.sampler import Numbers
from dtrain.errors import ConfigError
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import Blobs, Count
from dtrain.layers.sample_stream import SampleStream
from dtrain.proto import dtrain_pb2 as pb

NAME = "annotated_data_param"


@final
class AnnotatedData(DataSource):
    """top[0] (N, C, H, W) the images, top[1] (1, 1, objects, 8), if wanted, the boxes of all of them.

    A row is image, label, instance, xmin, ymin, xmax, ymax, difficult; one row of -1 tells that no image
    has any. The source holds AnnotatedDatum records; batch_size is per rank.
    """

    type_name = "AnnotatedData"
    num_tops = Count(1, 2)
    bad_records: BadRecords
    reshapes_in_forward = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.data_param
        self.waited_s = 0.0
        self.records: Numbers = np.empty(0, np.int64)
        """Numbers in the reader of the records of the last batch."""
        self._feeder: AnnotatedFeeder | None = None
        if not param.source:
            raise self.bad_param(("data_param", "source"), "the path of a database", "none")
        if param.batch_size < 1:
            raise self.bad_param(("data_param", "batch_size"), "at least 1", param.batch_size)
        if param.shuffle_block and not param.shuffle:
            raise self.bad_param(
                ("data_param", "shuffle_block"), "absent without shuffle: true", param.shuffle_block
            )
        if param.force_encoded_color:
            self.spec.transform_param.force_color = True
        self.batch_size = param.batch_size
        labels = self._labels()
        self.transformer = self._transformer()
        self._check_sizes()
        self.source = AnnotatedSource(
            self._open(), labels=labels, has_type=self.spec.annotated_data_param.HasField("anno_type")
        )
        self.bad_records = BadRecords(self.scope.bad_records)
        self.scope.sample_names.append(self.name_of)
        self.num_records, self.source_name = len(self.source.reader), self.source.reader.name
        self.stream = SampleStream(
            self.scope,
            self.num_records,
            self.batch_size,
            shuffle=param.shuffle,
            shuffle_block=param.shuffle_block,
            rand_skip=param.rand_skip,
        )
        self.image_shape = self._first_shape()

    def _labels(self) -> frozenset[int] | None:
        """Those of label_map_file."""
        path = self.spec.annotated_data_param.label_map_file
        if not path:
            return None
        try:
            return frozenset(read_label_map(path).values())
        except ConfigError as error:
            raise self.error(f"label_map_file: {error}", NAME, "label_map_file") from None

    def _transformer(self) -> AnnotatedTransformer:
        samplers = [
            BoxSampler.from_param(sampler, self._told(NAME, "batch_sampler", i))
            for i, sampler in enumerate(self.spec.annotated_data_param.batch_sampler)
        ]
        settings = AnnotatedSettings.from_param(
            self.spec.transform_param,
            samplers,
            train=self.is_training,
            seed=self.scope.seed,
            where=self._told("transform_param"),
        )
        return AnnotatedTransformer(settings, self._told())

    def _told(self, *path: str | int) -> str:
        """The layer, at the field that `path` leads to, as errors name it."""
        return f'{self.where(*path)}: layer "{self.name}" ({self.spec.type})'

    def _is_any_size(self) -> bool:
        """Whether each batch, which is one image, has a size of its own."""
        return self.batch_size == 1 and not self.transformer.settings.is_one_size

    def _check_sizes(self) -> None:
        settings = self.transformer.settings
        small = settings.resize is not None and settings.resize.fit is Fit.FIT_SMALL_SIZE
        if small and not settings.is_one_size and self.batch_size > 1:
            raise self.bad_param(
                ("data_param", "batch_size"),
                "1 for resize_mode FIT_SMALL_SIZE without crop_size, where each image has a size of its own",
                self.batch_size,
            )

    def _open(self) -> DatumReader:
        param = self.spec.data_param
        backend = pb.DataParameter.DB.Name(param.backend)
        if param.backend == pb.DataParameter.ARROW:
            raise self.bad_param(("data_param", "backend"), "LMDB or LEVELDB", backend)
        reader = open_reader(param.source, backend)
        assert isinstance(reader, DatumReader)
        return reader

    def _first_shape(self) -> tuple[int, ...]:
        def use(index: int) -> None:
            self.transformer.output_shape(self.source.read(index))

        index = self.bad_records.first_good(0, len(self.source.reader), use)
        return self.transformer.output_shape(self.source.read(index))

    def name_of(self, sample: int) -> str:
        """The record behind a sample of the last batch, as errors name it."""
        return self.source.reader.where(int(self.records[sample]))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape((self.batch_size, *self.image_shape))
        if len(top) > 1:
            top[1].reshape((1, 1, 1, 8))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self._feeder is None:
            param = self.spec.data_param
            channels, height, width = self.image_shape
            self._feeder = AnnotatedFeeder(
                self.source,
                self.transformer,
                self.stream.schedule(),
                shape=None if self._is_any_size() else (channels, height, width),
                batch_size=self.batch_size,
                prefetch=param.prefetch,
                threads=param.threads or 1,
                bad=self.bad_records,
                name=self.name,
            )
        for blob in top:
            blob.data.release()
        batch = self._feeder.next()
        self.records = batch.indices
        self.waited_s += self._feeder.wait_s
        if self.bad_records.has_met_any:
            wanted = self.stream.schedule()(self.stream.served).records
            self.bad_records.serve(wanted, batch.indices, self.num_records)
        self.stream.served += 1
        top[0].reshape(batch.data.shape)
        top[0].data.take(batch.data)
        if len(top) > 1:
            top[1].reshape(batch.rows.shape)
            top[1].data.plain_overwrite()[...] = batch.rows

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
        self.source.reader.close()
