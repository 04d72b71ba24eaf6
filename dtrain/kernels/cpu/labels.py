"""Class labels, stored as numbers of the net's type, as indices."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtrain.errors import DataError
from dtrain.kernels.array import Plain

Index: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]


def integers(values: Plain) -> Index:
    """Numbers cut to integers, as Caffe reads labels; what is no number becomes the least integer."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.int64)


def wrong_label(sample: int, value: float, num_classes: int, ignore_label: int | None) -> DataError:
    """The error for the label of a sample that is no class."""
    unless = "" if ignore_label is None else f" or ignore_label ({ignore_label})"
    return DataError(
        f"label of sample {sample} of the batch must be in [0, {num_classes}){unless}, got {value:g}",
        sample=sample,
    )


def class_indices(labels: Plain, num_classes: int, ignore_label: int | None) -> tuple[Index, Mask]:
    """Class indices of labels (samples, ...), 0 where ignored, and which of them count.

    Raises DataError, naming the sample, for a label that is no class.
    """
    index = integers(labels)
    counted = np.ones(index.shape, bool) if ignore_label is None else index != ignore_label
    wrong = counted & ((index < 0) | (index >= num_classes))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise wrong_label(int(at[0]), float(labels[at]), num_classes, ignore_label)
    return np.where(counted, index, 0), counted
