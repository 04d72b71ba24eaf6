"""Fill a part of a batch: the one place where a reader meets a writer."""

from __future__ import annotations

import numpy as np

from dtrain.data.bad_records import BadRecords
from dtrain.data.reader import ColumnReader, DatumReader, Reader
from dtrain.data.sample_writer import Floats, Samples, SampleWriter
from dtrain.data.sampler import Numbers
from dtrain.errors import DataError


def fill(
    reader: Reader,
    writer: SampleWriter,
    records: Numbers,
    samples: Numbers,
    data: Samples,
    labels: Floats,
    bad: BadRecords,
) -> None:
    """data (N, ...) and labels (N,) or (N, L) <- the records, written as those samples.

    Overwrites the number of a bad record in `records` by that of the record which replaces it.
    """
    try:
        _fill(reader, writer, records, samples, data, labels)
    except DataError:
        if bad.limit == 0:
            raise
        for n in range(len(records)):
            one = slice(n, n + 1)

            def use(index: int, one: slice = one) -> None:
                _fill(reader, writer, np.array([index]), samples[one], data[one], labels[one])

            records[n] = bad.first_good(int(records[n]), len(reader), use)


def _fill(
    reader: Reader, writer: SampleWriter, records: Numbers, samples: Numbers, data: Samples, labels: Floats
) -> None:
    if isinstance(reader, DatumReader):
        with reader.datums(records) as messages:
            writer.apply_datums(messages, lambda n: reader.where(int(records[n])), samples, data, labels)
        return
    if isinstance(reader, ColumnReader):
        with reader.columns(records, as_arrays=writer.takes_each) as columns:
            if columns.labels[0].size != labels[0].size:
                raise DataError(
                    f"{reader.where(int(records[0]))}: all records must have the same number of labels, "
                    f"got {columns.labels[0].size} after {labels[0].size}"
                )
            labels[...] = columns.labels.reshape(labels.shape)
            writer.apply_columns(columns, lambda n: reader.where(int(records[n])), samples, data)
        return
    for n in range(len(records)):
        record = reader.read(int(records[n]))
        if len(record.labels) != labels[n].size:
            raise DataError(
                f"{record.where}: all records must have the same number of labels, "
                f"got {len(record.labels)} after {labels[n].size}"
            )
        labels[n] = record.labels if labels.ndim == 2 else record.labels[0]
        writer.apply(record, int(samples[n]), data[n])
