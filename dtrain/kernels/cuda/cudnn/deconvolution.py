"""Deconvolution by cuDNN: the graphs of the convolution from top to bottom, its image gradient forward."""

from __future__ import annotations

from functools import partial
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, own, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cudnn.convolution_graphs import IMAGE, RESULT, WEIGHTS, ConvolutionGraphs
from dtrain.kernels.cuda.cudnn.passes import Convolving, is_planned, run
from dtrain.kernels.cuda.deconvolution import Deconvolution as DirectDeconvolution
from dtrain.kernels.cuda.device import Buffer
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
        self._graphs = graphs = ConvolutionGraphs(
            backend.cudnn, window, *shapes, backend.form, strict=not backend.tf32
        )
        self._shared = Convolving(backend, graphs, top.shape)
        self._ways = self._shared.plan_forward(graphs.image_gradient, bias is not None, False)
        own(top).offer(graphs.form)
        self._direct = partial(DirectDeconvolution, backend, window, bottom, weights, bias, top)
        self.implementation = "cudnn"

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        form = self._graphs.form
        sides: dict[int, Access | Buffer] = {
            RESULT: read(bottom, form=form),
            WEIGHTS: read(weights, form=form),
            IMAGE: write(top, form=form),
        }
        self._shared.forward(self._graphs.image_gradient, self._ways, sides, top, bias, relu=False)

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
        form = self._graphs.form
        if bias_diff is not None:
            self._shared.bias_gradient(top_diff, bias_diff)
        if weights_diff is not None and self._shared.weights_gradient(top_diff, bottom, weights_diff):
            weights_diff = None
        if bottom_diff is not None and is_planned(self._graphs.forward):
            own(bottom_diff).offer(form)
            sides = {
                IMAGE: read(top_diff, form=form),
                WEIGHTS: read(weights, form=form),
                RESULT: write(bottom_diff, form=form),
            }
            run(self._graphs.forward(), sides)
            bottom_diff = None
        if weights_diff is not None or bottom_diff is not None:
            direct = self._direct()
            direct.backward(top_diff, bottom, weights, bottom_diff, weights_diff, None)
