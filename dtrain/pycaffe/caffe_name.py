"""The name `caffe` in import statements, where no Caffe is installed."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Final

from dtrain.layers import python_face
from dtrain.proto import dtrain_pb2

FACE: Final = "dtrain.pycaffe"
PARTS: Final = ("classifier", "coord_map", "detector", "draw", "io", "net_spec", "proto")
ALSO_FACE: Final = ("pycaffe", "_caffe")  # modules of Caffe's whose names are all in the package here


def provide() -> None:
    """Let `import caffe` and `import caffe.io` find this package, unless a Caffe is installed.

    In place of the few classes that Python layers get while nobody imports this package.
    """
    present = sys.modules.get("caffe")
    face = sys.modules[FACE]
    if present is face:
        return
    if present is not None and vars(present).get("Layer") is not python_face.Layer:
        return
    if present is None and _is_installed():
        return
    names: dict[str, ModuleType] = {"caffe": face, "caffe.proto.caffe_pb2": dtrain_pb2}
    names.update({f"caffe.{part}": sys.modules[f"{FACE}.{part}"] for part in PARTS})
    names.update({f"caffe.{name}": face for name in ALSO_FACE})
    sys.modules.update(names)


def _is_installed() -> bool:
    spec = importlib.util.find_spec("caffe")
    return spec is not None and spec.origin is not None  # without origin: just some folder of that name
