"""Deconvolution by cuDNN: the graphs of the convolution from top to bottom, its image gradient forward."""

from __future__ import annotations

from functools import partial
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cudnn.convolution_graphs import IMAGE, RESULT, ConvolutionGraphs
from dtrain.kernels.cuda.cudnn.passes import Passes, Roles
from dtrain.kernels.cuda.deconvolution import Deconvolution as DirectDeconvolution
from dtrain.kernels.window import ConvolutionWindow


@final
class Deconvolution:
    """As kernels/cpu/deconvolution.py says. What cuDNN has no engine for is the direct kernels'."""

    def __init__(
        self,
        backend: CudaBackend,
        window: ConvolutionWindow,
        bottom: SyncedArray,
        weights: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        shapes = top.shape, weights.shape, bottom.shape
        graphs = ConvolutionGraphs(backend.cudnn, window, *shapes, backend.form, strict=not backend.tf32)
        roles = Roles(RESULT, IMAGE, graphs.image_gradient, graphs.forward)
        direct = partial(DirectDeconvolution, backend, window, bottom, weights, bias, top)
        self._passes = Passes(backend, graphs, roles, top, direct, has_bias=bias is not None)
        self.implementation = "cudnn"

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        self._passes.forward(bottom, weights, bias, top)

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        weights: SyncedArray,
        bottom_diff: SyncedArray | None,
        weights_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, adds to the others; None is not computed."""
        self._passes.backward(top_diff, bottom, weights, bottom_diff, weights_diff, bias_diff)
