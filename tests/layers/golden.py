"""Cases that BVLC Caffe computed: a one-layer net, its inputs and parameters, and what came out."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.shared import shared_path

Values = NDArray[np.float32]


@dataclass
class Case:
    """One net of golden/layers with all of its arrays, by kind and name."""

    name: str
    net: str = ""
    arrays: dict[str, dict[str, Values]] = field(default_factory=dict)

    def of(self, kind: str) -> dict[str, Values]:
        return self.arrays.get(kind, {})

    @property
    def layer_type(self) -> str:
        net = pb.NetParameter()
        text.parse(self.net, net)
        return next(layer.type for layer in net.layer if layer.name == "layer")


@functools.cache
def cases() -> dict[str, Case]:
    """All cases by name, e.g. "Pooling_MAX_1"."""
    found: dict[str, Case] = {}
    for path in sorted(shared_path("golden", "layers").glob("layers_*.npz")):
        with np.load(path) as stored:
            for key in stored.files:
                name, kind, blob = key.split("|")
                case = found.setdefault(name, Case(name))
                if kind == "net":
                    case.net = str(stored[key])
                else:
                    case.arrays.setdefault(kind, {})[blob] = stored[key]
    return found
