"""Silence: takes blobs that nobody else takes, so that they are not printed. Source: Caffe's SilenceLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import AT_LEAST_ONE, NONE, Blobs, Layer


@final
class Silence(Layer):
    """Any number of bottoms -> nothing; their diffs are zero."""

    type_name = "Silence"
    num_bottoms = AT_LEAST_ONE
    num_tops = NONE

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """There are no parameters."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """There are no tops."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """There is nothing to compute."""

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for blob, wants in zip(bottom, propagate_down, strict=True):
            if wants:
                blob.diff.clear()
