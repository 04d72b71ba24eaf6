"""The face that scripts written for pycaffe know: `from dtrain import pycaffe as caffe`.

Importing it makes `import caffe` mean it too, where no Caffe is installed: Python layers do so.
"""

from __future__ import annotations

from dtrain.layers.python_face import Layer
from dtrain.proto.dtrain_pb2 import TEST, TRAIN
from dtrain.pycaffe import caffe_name, classifier, coord_map, detector, draw, io, net_spec, proto
from dtrain.pycaffe.blob import Blob
from dtrain.pycaffe.classifier import Classifier
from dtrain.pycaffe.detector import Detector
from dtrain.pycaffe.net import Net
from dtrain.pycaffe.net_spec import NetSpec, layers, params, to_proto
from dtrain.pycaffe.process import (
    has_nccl,
    init_log,
    layer_type_list,
    log,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from dtrain.pycaffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)
from dtrain.pycaffe.timer import Timer

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "classifier",
    "coord_map",
    "detector",
    "draw",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "net_spec",
    "params",
    "proto",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]

__version__ = "1.0.0"  # of the interface: scripts compare it with Caffe's

caffe_name.provide()
