"""`debug_info`: the mean magnitude of every blob as forward and backward come by, in Caffe's lines.

Source of the lines: Net::ForwardDebugInfo, Net::BackwardDebugInfo and Net::Backward of BVLC Caffe 1.0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.net import Net

logger = logging.getLogger(__name__)


@contextmanager
def debug_info(net: Net) -> Iterator[None]:
    """Print while the body runs the net."""

    def forward(index: int) -> None:
        step = net.steps[index]
        name = step.layer.name
        for top, blob in zip(step.top_names, step.top, strict=True):
            _line(f"    [Forward] Layer {name}, top blob {top} data: {mean_abs(blob.data)}")
        for j, blob in enumerate(step.layer.blobs):
            label = _param_name(net, index, j)
            _line(f"    [Forward] Layer {name}, param blob {label} data: {mean_abs(blob.data)}")

    def backward(index: int) -> None:
        step = net.steps[index]
        name = step.layer.name
        if step.needs_backward:
            wanted = zip(step.bottom_names, step.bottom, step.bottom_need_backward, strict=True)
            for bottom, blob, needed in wanted:
                if needed:
                    _line(f"    [Backward] Layer {name}, bottom blob {bottom} diff: {mean_abs(blob.diff)}")
            for j, blob in enumerate(step.layer.blobs):
                if step.layer.param_propagate_down[j]:
                    _line(f"    [Backward] Layer {name}, param blob {j} diff: {mean_abs(blob.diff)}")
        if index == 0:
            _all_params(net)

    net.after_forward.append(forward)
    net.after_backward.insert(0, backward)  # before a finished gradient is given away to be summed
    try:
        yield
    finally:
        net.after_forward.remove(forward)
        net.after_backward.remove(backward)


def mean_abs(array: SyncedArray) -> str:
    """Mean magnitude, as C++ prints a float; an empty array has 0."""
    return f"{float(np.abs(array.plain()).mean()) if array.size else 0.0:.6g}"


def _param_name(net: Net, layer_index: int, blob_index: int) -> str:
    return net.params.of_layer(layer_index, blob_index).name or str(blob_index)


def _all_params(net: Net) -> None:
    arrays = [(p.blob.data.plain(), p.blob.diff.plain()) for p in net.params.owned]
    l1 = [sum(float(np.abs(pair[side]).sum()) for pair in arrays) for side in (0, 1)]
    l2 = [sum(float(np.square(pair[side]).sum()) for pair in arrays) ** 0.5 for side in (0, 1)]
    _line(
        f"    [Backward] All net params (data, diff): L1 norm = ({l1[0]:.6g}, {l1[1]:.6g}); "
        f"L2 norm = ({l2[0]:.6g}, {l2[1]:.6g})"
    )


def _line(text: str) -> None:
    logger.info("%s", text)
