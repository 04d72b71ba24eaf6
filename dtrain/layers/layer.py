"""What every layer is: set up once, reshaped when shapes change, run forward and backward."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, final

import numpy as np

from dtrain import fillers
from dtrain.blob import MAX_COUNT, Blob, Blobs
from dtrain.errors import ConfigError
from dtrain.kernels.array import Plain, Shape
from dtrain.kernels.backend import Backend
from dtrain.layers import precision
from dtrain.proto import dtrain_pb2 as pb

__all__ = ["AT_LEAST_ONE", "NONE", "ONE", "TWO", "Blob", "Blobs", "Count", "Layer", "Scope"]


@final
@dataclass(frozen=True)
class Count:
    """How many bottoms or tops a layer type takes; `most` None is any number."""

    least: int
    most: int | None

    def __contains__(self, number: int) -> bool:
        return number >= self.least and (self.most is None or number <= self.most)

    def __str__(self) -> str:
        if self.most == self.least:
            return str(self.least)
        return f"at least {self.least}" if self.most is None else f"{self.least} to {self.most}"


NONE, ONE, TWO = Count(0, 0), Count(1, 1), Count(2, 2)
AT_LEAST_ONE = Count(1, None)

Where: TypeAlias = Callable[..., str]


@final
@dataclass
class Scope:
    """What the layers of one net share: where the net runs, as which rank, and how far it has come.

    `passes` counts the forward passes of the net; what a layer draws at random is a function of
    (seed, layer name, passes, index of the sample in the whole job's stream). `test_iter` is the number of
    batches in one pass over a test net, all ranks together.
    """

    backend: Backend
    phase: int  # pb.TRAIN or pb.TEST
    rank: int = 0
    size: int = 1
    seed: int = 0
    passes: int = 0
    test_iter: int = 0
    bad_records: int = 0  # how many different ones of a source the job may replace
    precision: str = ""  # of layers that name none; empty is what the net says, or else the backend's own
    sample_names: list[Callable[[int], str]] = field(default_factory=list)  # by source: a sample's record
    is_partial: bool = False  # the present pass runs some of the layers only, so nothing may be fused
    rng: np.random.Generator = field(default_factory=np.random.default_rng)  # for fillers

    @property
    def is_training(self) -> bool:
        """Whether the net was built for phase TRAIN."""
        return self.phase == pb.TRAIN


class Layer(ABC):
    """One layer of a net; a subclass in a file of its own is a layer type.

    `setup` reads the parameters and adds `blobs`; `reshape` gives the tops their shapes and builds the
    operators for them; `forward` fills the tops' data; `backward` overwrites the bottoms' diffs where
    `propagate_down` says so and adds to the blobs' diffs where `param_propagate_down` does.
    """

    type_name: ClassVar[str]
    num_bottoms: ClassVar[Count] = ONE
    num_tops: ClassVar[Count] = ONE
    tops_match_bottoms: ClassVar[bool] = False  # as many tops as bottoms
    makes_missing_tops: ClassVar[bool] = False  # a loss layer without tops gets its least number of them
    loss_by_default: ClassVar[bool] = False  # the first top has loss_weight 1 unless the net says otherwise
    param_name: ClassVar[str] = ""  # the spec's message that has an `engine`
    reshapes_in_forward: ClassVar[bool] = False  # top shapes depend on the data

    def __init__(self, spec: pb.LayerParameter, scope: Scope, where: Where) -> None:
        """`where(*path)` is the file:line of the layer's field at that path."""
        self.spec = spec
        self.name: str = spec.name
        self.scope = scope
        self.where = where
        asked = precision.of_layer(spec, where()) or scope.precision
        self.precision: str = asked if asked in scope.backend.precisions else ""
        self.ops = scope.backend.operators(self.engine(), self.precision)
        self.blobs: Blobs = []
        self.param_propagate_down: list[bool] = []
        self.loss_weights: list[float] = []  # one per top, set by the net

    def engine(self) -> str:
        """The `engine` that the prototxt names for this layer, or DEFAULT."""
        if self.param_name:
            message: Any = getattr(self.spec, self.param_name)
            enum = message.DESCRIPTOR.fields_by_name["engine"].enum_type
            return str(enum.values_by_number[message.engine].name)
        return "DEFAULT"

    @abstractmethod
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the parameters and add the layer's blobs; bottoms have their shapes, tops not yet."""

    @abstractmethod
    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Give the tops their shapes and build the operators; called again when a bottom's shape changed."""

    @abstractmethod
    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Fill the tops' data."""

    @abstractmethod
    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Overwrite the wanted bottoms' diffs and add to the wanted blobs' diffs."""

    def refresh(self) -> None:  # noqa: B027 -- most layers have no such numbers
        """Set the numbers that change from pass to pass: called by forward, or by who replays it instead."""

    def check_data(self) -> None:  # noqa: B027 -- most layers look at no labels
        """Raise the DataError for what the device found wrong in the data of the last pass."""

    def allows_force_backward(self, bottom_index: int) -> bool:
        """Whether the net's force_backward may ask for this bottom's diff: not for a loss layer's labels."""
        return True

    def statistics(self) -> Blobs:
        """Those of the blobs that forward itself changes, each rank its own: the solver averages them."""
        return []

    def bytes_held(self) -> int:
        """Memory that the layer holds beside its blobs, for the memory report."""
        return 0

    def implementations(self) -> list[str]:
        """What computes this layer, each name once, as the operators that it keeps in attributes tell."""
        kept = [
            one for value in vars(self).values() for one in (value if isinstance(value, list) else [value])
        ]
        names = [getattr(one, "implementation", None) for one in kept if one is not self.ops]
        return list(dict.fromkeys(name for name in names if isinstance(name, str)))

    # -- what subclasses use

    @property
    def is_training(self) -> bool:
        """Whether the net was built for phase TRAIN."""
        return self.scope.is_training

    def add_blob(self, shape: Shape, filler: pb.FillerParameter) -> Blob:
        """A parameter of this shape, filled."""
        if not 1 <= math.prod(shape) <= MAX_COUNT:
            raise self.bad_shape(f"blob {len(self.blobs)}", f"from 1 to {MAX_COUNT} values", tuple(shape))
        blob = Blob(self.scope.backend, shape)
        try:
            blob.data.plain_overwrite()[...] = fillers.fill(filler, shape, self.scope.rng)
        except ConfigError as error:
            raise self.error(str(error)) from None
        self.blobs.append(blob)
        self.param_propagate_down.append(True)
        return blob

    def random_key(self, seed: int | None = None) -> int:
        """64 bits for this layer's draws in this forward pass: the same on every rank.

        `seed` takes the place of the net's.
        """
        start = self.scope.seed if seed is None else seed
        words = [start & 0xFFFFFFFF, self.scope.passes & 0xFFFFFFFF, *self.name.encode()]
        return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])

    def error(self, message: str, *path: str | int) -> ConfigError:
        """`file:line: layer "name" (Type): message`, at the field that `path` leads to."""
        return ConfigError(f'{self.where(*path)}: layer "{self.name}" ({self.spec.type}): {message}')

    def bad_param(self, path: str | Sequence[str | int], rule: str, got: object) -> ConfigError:
        """The error for a field that breaks a rule; `path` from the layer, the last part is named."""
        parts = (path,) if isinstance(path, str) else tuple(path)
        return self.error(f"{parts[-1]} must be {rule}, got {got}", *parts)

    def bad_shape(self, what: str, rule: str, got: object) -> ConfigError:
        """The error for a blob whose shape breaks a rule."""
        return self.error(f"{what} must have {rule}, got {got}")

    def axis(self, index: int, num_axes: int, *path: str | int) -> int:
        """A canonical axis: negative counts from the end; an error where there is no such axis."""
        if not -num_axes <= index < num_axes:
            raise self.error(f"axis must be in [-{num_axes}, {num_axes}), got {index}", *path)
        return index % num_axes


def scalar(plain: Plain) -> float:
    """The one element of a scalar blob's values."""
    return float(plain.reshape(-1)[0])
