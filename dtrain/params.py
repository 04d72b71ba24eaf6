"""The learnable parameters of a net: who owns them, their multipliers, and the flat buffers they lie in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from dtrain.blob import Blob
from dtrain.layers.layer import Layer
from dtrain.proto import dtrain_pb2 as pb

Flat: TypeAlias = NDArray[np.floating[Any]]
Allocate: TypeAlias = Callable[[int], Flat]

ALIGNMENT_ELEMENTS = 16  # a slice starts on a cache line


@final
@dataclass
class Param:
    """One learnable parameter: the blob of the first layer that declares it.

    `start` and `stop` are its slice of every flat buffer, in elements of the native layout.
    """

    blob: Blob
    layer: Layer
    layer_index: int
    blob_index: int
    name: str  # shared under this name; empty if it is not shared
    lr_mult: float
    decay_mult: float
    has_lr_mult: bool
    has_decay_mult: bool
    start: int = 0
    stop: int = 0

    @property
    def label(self) -> str:
        """For people: "conv1[0]"."""
        return f"{self.layer.name}[{self.blob_index}]"


@final
class Params:
    """All parameters in Caffe's order, which is that of a snapshot's history.

    In the flat buffers they lie in the order in which backward completes them: last layer first. A
    parameter that several layers share is complete when the first of them has run backward.
    """

    def __init__(self) -> None:
        self.owned: list[Param] = []
        self._by_name: dict[str, Param] = {}
        self._by_place: dict[tuple[int, int], Param] = {}  # (layer index, blob index), sharers included
        self.data: Flat | None = None
        self.diff: Flat | None = None

    def __len__(self) -> int:
        return len(self.owned)

    def add(self, layer: Layer, layer_index: int, blob_index: int) -> Param:
        """Register a layer's blob, or make it share an earlier one of the same name.

        Raises ConfigError where shapes or multipliers of sharers disagree.
        """
        spec = layer.spec.param[blob_index] if blob_index < len(layer.spec.param) else pb.ParamSpec()
        owner = self._by_name.get(spec.name) if spec.name else None
        if owner is None:
            owner = Param(
                blob=layer.blobs[blob_index],
                layer=layer,
                layer_index=layer_index,
                blob_index=blob_index,
                name=spec.name,
                lr_mult=spec.lr_mult,
                decay_mult=spec.decay_mult,
                has_lr_mult=spec.HasField("lr_mult"),
                has_decay_mult=spec.HasField("decay_mult"),
            )
            self.owned.append(owner)
            if spec.name:
                self._by_name[spec.name] = owner
        else:
            self._share(layer, blob_index, spec, owner)
        self._by_place[layer_index, blob_index] = owner
        return owner

    def _share(self, layer: Layer, blob_index: int, spec: pb.ParamSpec, owner: Param) -> None:
        mine = layer.blobs[blob_index]
        path = ("param", blob_index)
        told = f'param "{spec.name}" shared with layer "{owner.layer.name}"'
        if spec.share_mode == pb.ParamSpec.PERMISSIVE:
            if mine.count != owner.blob.count:
                raise layer.error(
                    f"{told}: count must be {owner.blob.count}, got {mine.count} {mine.shape}", *path
                )
        elif mine.shape != owner.blob.shape:
            raise layer.error(
                f"{told}: shape must be {owner.blob.shape}, got {mine.shape}; "
                f"share_mode: PERMISSIVE compares counts only",
                *path,
            )
        for field in ("lr_mult", "decay_mult"):
            if spec.HasField(field):
                value = float(getattr(spec, field))
                if not getattr(owner, f"has_{field}"):
                    setattr(owner, field, value)
                    setattr(owner, f"has_{field}", True)
                elif getattr(owner, field) != value:
                    raise layer.error(f"{told}: {field} must be {getattr(owner, field)}, got {value}", *path)
        mine.share_data(owner.blob)
        mine.share_diff(owner.blob)

    def of_layer(self, layer_index: int, blob_index: int) -> Param:
        """The parameter that a layer's blob is, or shares."""
        return self._by_place[layer_index, blob_index]

    @property
    def has_shared(self) -> bool:
        """Whether some layer uses another layer's parameter."""
        return len(self._by_place) > len(self.owned)

    def lay_out(self, allocate: Allocate, allocate_diff: Allocate) -> None:
        """Move all data and diffs into two flat buffers, values kept; padding is zero and stays so."""
        offset = 0
        for param in self.in_completion_order():
            size = param.blob.data.native_size
            param.start, param.stop = offset, offset + size
            offset += -(-size // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS
        self.data = allocate(offset)
        self.diff = allocate_diff(offset)
        for param in self.owned:
            param.blob.data.bind(self.data[param.start : param.stop])
            param.blob.diff.match_layout(param.blob.data)
            param.blob.diff.bind(self.diff[param.start : param.stop])

    def in_completion_order(self) -> list[Param]:
        """As backward completes them: layers from last to first, a layer's blobs in their order."""
        return sorted(self.owned, key=lambda p: (-p.layer_index, p.blob_index))

    def native_data(self) -> Flat:
        """The flat buffer of all data, up to date."""
        assert self.data is not None, "a net that takes its weights from another has no buffer of its own"
        for param in self.owned:
            param.blob.data.pull()
        return self.data

    def clear_diffs(self) -> None:
        """Make all diffs zero, at no cost until somebody looks."""
        for param in self.owned:
            param.blob.diff.clear()
