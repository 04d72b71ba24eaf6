"""Boxes of objects from predictions, offsets and priors.

The host computes it: non-maximum suppression is a chain of decisions, and the result goes to files.
"""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.boxes import Detection
from dtrain.kernels.cpu.detection_output import DetectionOutput as HostDetectionOutput
from dtrain.kernels.cuda.backend import CudaBackend


@final
class DetectionOutput:
    """loc (N, P * L * 4), conf (N, P * C), priors (1, 2, P * 4) -> rows (image, class, score, corners)."""

    def __init__(self, backend: CudaBackend, settings: Detection, num_priors: int) -> None:
        self._host = HostDetectionOutput(backend, settings, num_priors)
        self.implementation = "host numpy"

    def forward(self, loc: SyncedArray, conf: SyncedArray, priors: SyncedArray) -> Plain:
        """(detections, 7) by image, class and falling score; without any, a row (image, -1, ...) for each."""
        return self._host.forward(loc, conf, priors)
