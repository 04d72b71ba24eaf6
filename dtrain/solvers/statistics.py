"""Running statistics that each rank keeps of its own batches, such as BatchNorm's, averaged before use."""

from __future__ import annotations

import numpy as np

from dtrain.comm.communicator import Communicator
from dtrain.net import Net


def average_statistics(net: Net, comm: Communicator) -> None:
    """Make every layer's statistics their mean over the ranks. Collective.

    The statistics are sums of what the batches gave, so averaging them sooner or later gives the same.
    """
    blobs = [blob for layer in net.layers for blob in layer.statistics()]
    if comm.size == 1 or not blobs:
        return
    values = np.concatenate([blob.data.plain().reshape(-1).astype(np.float64) for blob in blobs])
    comm.wait(comm.allreduce(values, "running statistics"))
    values /= comm.size
    start = 0
    for blob in blobs:
        blob.data.plain_overwrite()[...] = values[start : start + blob.count].reshape(blob.shape)
        start += blob.count
