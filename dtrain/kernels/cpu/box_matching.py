"""Which prior answers for which object, and which priors without one are to learn that there is none.

Source: FindMatches and MineHardExamples in bbox_util of SSD's Caffe.
"""

from __future__ import annotations

import numpy as np

from dtrain.kernels.array import Plain
from dtrain.kernels.boxes import Mining, MultiBox
from dtrain.kernels.cpu.boxes import LEAST_AREA, areas, overlaps, suppress
from dtrain.kernels.cpu.labels import Index, Mask

UNMATCHED, IGNORED = -1, -2
LEAST_OVERLAP = 1e-6  # that counts as one


def match(settings: MultiBox, boxes: Plain, objects: Plain) -> tuple[Index, Plain]:
    """(for every box the index of its object, UNMATCHED or IGNORED; its overlap with that object, or its
    largest one).

    First the best pairs, each object once; then, per prediction, the best object above the threshold.
    """
    matched = np.full(len(boxes), UNMATCHED, np.int64)
    overlap = np.zeros(len(boxes), boxes.dtype)
    if not len(objects):
        return matched, overlap
    table = overlaps(boxes[:, None], objects[None])
    table[table <= LEAST_OVERLAP] = 0
    if settings.ignore_cross_boundary:
        outside = ((boxes < 0) | (boxes > 1)).any(axis=1)
        matched[outside] = IGNORED
        table[outside] = 0
    overlap[:] = table.max(axis=1)
    left = table.copy()
    for _ in range(len(objects)):
        i, j = np.unravel_index(left.argmax(), left.shape)
        if left[i, j] <= 0:
            break
        matched[i], overlap[i] = j, left[i, j]
        left[i], left[:, j] = 0, 0
    if settings.per_prediction:
        best = table.argmax(axis=1)
        value = table[np.arange(len(boxes)), best]
        more = (matched == UNMATCHED) & (value > 0) & (value >= settings.overlap_threshold)
        matched[more], overlap[more] = best[more], value[more]
    return matched, overlap


def mine(settings: MultiBox, matched: Index, overlap: Plain, loss: Plain, boxes: Plain) -> Mask:
    """Which priors of an image the mining selects; suppression looks at overlaps between `boxes`."""
    if settings.mining is Mining.MAX_NEGATIVE:
        eligible = np.flatnonzero((matched == UNMATCHED) & (overlap < settings.neg_overlap))
        most = int(np.count_nonzero(matched >= 0) * settings.neg_pos_ratio)
    else:
        eligible = np.arange(len(matched))
        most = settings.sample_size
    if settings.suppression is None:
        ranked = eligible[np.argsort(-loss[eligible], kind="stable")]
    else:
        ranked = eligible[suppress(settings.suppression, boxes[eligible], loss[eligible])]
        ranked = ranked[areas(boxes[ranked]) >= LEAST_AREA]
    selected = np.zeros(len(matched), bool)
    selected[ranked[:most]] = True
    return selected
