"""Boxes of objects from predictions, offsets and priors. Source: DetectionOutputLayer of SSD's Caffe."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.boxes import Detection
from dtrain.kernels.cpu.boxes import decode, suppress


@final
class DetectionOutput:
    """loc (N, P * L * 4), conf (N, P * C), priors (1, 2, P * 4) -> rows (image, class, score, corners)."""

    def __init__(self, backend: Backend, settings: Detection, num_priors: int) -> None:
        self.settings = settings
        self.num_priors = num_priors
        self.implementation = "numpy"

    def forward(self, loc: SyncedArray, conf: SyncedArray, priors: SyncedArray) -> Plain:
        """(detections, 7) by image, class and falling score; without any, a row (image, -1, ...) for each."""
        s = self.settings
        table = priors.plain().reshape(2, self.num_priors, 4)
        x = loc.plain().reshape(loc.shape[0], self.num_priors, -1, 4)
        scores = conf.plain().reshape(len(x), self.num_priors, s.num_classes)
        boxes = decode(s.coding, table[0][:, None], table[1][:, None], x)
        found = [self._of_image(n, boxes[n], scores[n]) for n in range(len(x))]
        rows = np.concatenate(found)
        if not len(rows):
            rows = np.full((len(x), 7), -1, x.dtype)
            rows[:, 0] = np.arange(len(x))
        return rows

    def _of_image(self, n: int, boxes: Plain, scores: Plain) -> Plain:
        s = self.settings
        parts = [np.empty((0, 7), boxes.dtype)]
        for c in range(s.num_classes):
            if c == s.background:
                continue
            own = boxes[:, 0 if s.share_location else c]
            sure = np.flatnonzero(scores[:, c] > s.confidence_threshold)
            kept = sure[suppress(s.suppression, own[sure], scores[sure, c])]
            part = np.empty((len(kept), 7), boxes.dtype)
            part[:, 0], part[:, 1] = n, c
            part[:, 2], part[:, 3:] = scores[kept, c], own[kept]
            parts.append(part)
        rows = np.concatenate(parts)
        if s.keep_top_k is not None and len(rows) > s.keep_top_k:
            best = np.argsort(-rows[:, 2], kind="stable")[: s.keep_top_k]
            rows = rows[best]
            rows = rows[np.argsort(rows[:, 1], kind="stable")]
        return rows
