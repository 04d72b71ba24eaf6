"""SSD's loss: how far the boxes of matched priors are off, and what classes priors take.

Source: MultiBoxLossLayer of SSD's Caffe.
"""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.errors import DataError
from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.boxes import Mining, MultiBox
from dtrain.kernels.cpu.box_matching import UNMATCHED, match, mine
from dtrain.kernels.cpu.boxes import decode, encode
from dtrain.kernels.cpu.labels import Index, Mask, integers
from dtrain.kernels.cpu.sigmoid_cross_entropy_loss import sigmoid
from dtrain.kernels.cpu.softmax import softmax


@final
class MultiBoxLoss:
    """loc (N, P * L * 4), conf (N, P * C), priors (1, 2, P * 4), truth (1, 1, objects, 8) -> two sums.

    L is 1 where classes share boxes, else C. A row of truth: image of the batch (-1: none), class,
    instance, corners, difficult.
    """

    def __init__(self, backend: Backend, settings: MultiBox, num_priors: int) -> None:
        self.settings = settings
        self.num_priors = num_priors
        self.implementation = "numpy"

    def forward(
        self, loc: SyncedArray, conf: SyncedArray, priors: SyncedArray, truth: SyncedArray
    ) -> tuple[float, float, int]:
        """(sum over boxes, sum over classes, matched priors); keeps what backward needs."""
        s = self.settings
        table = priors.plain().reshape(2, self.num_priors, 4)
        self.priors, self.variances = table[0], table[1]
        x = loc.plain().reshape(loc.shape[0], self.num_priors, -1, 4)
        scores = conf.plain().reshape(conf.shape[0], self.num_priors, s.num_classes)
        self._read(truth.plain().reshape(-1, 8), len(x))
        self._match(x)
        selected = self._mine(x, scores)
        image, group, prior = np.nonzero(self.matched >= 0)
        self.at_loc = image, prior, group
        self.residual = self._residual(x)
        self._choose(image, prior, group, selected)
        self.picked = scores[self.at_conf]
        loc_loss = float(self._robust(self.residual).sum(dtype=np.float64))
        conf_loss = float(self._class_losses(self.picked, self.labels).sum(dtype=np.float64))
        return loc_loss, conf_loss, len(image)

    def _read(self, truth: Plain, num: int) -> None:
        """The objects of every image: boxes and classes."""
        s = self.settings
        image, label = integers(truth[:, 0]), integers(truth[:, 1])
        used = image != -1
        wrong = np.flatnonzero(used & ((image < 0) | (image >= num)))
        if len(wrong):
            raise DataError(
                f"image of object {wrong[0]} must be in [0, {num}) or -1, got {truth[wrong[0], 0]:g}"
            )
        classes = np.iinfo(np.int64).max if s.agnostic else s.num_classes
        wrong = np.flatnonzero(used & ((label < 0) | (label >= classes) | (label == s.background)))
        if len(wrong):
            raise DataError(
                f"label of object {wrong[0]}, in sample {image[wrong[0]]} of the batch, must be in "
                f"[0, {classes}) and not the background ({s.background}), got {truth[wrong[0], 1]:g}"
            )
        if not s.use_difficult:
            used &= integers(truth[:, 7]) == 0
        rows = [np.flatnonzero(used & (image == n)) for n in range(num)]
        self.objects = [truth[r, 3:7] for r in rows]
        self.classes = [label[r] for r in rows]

    def _match(self, x: Plain) -> None:
        """matched, overlap (N, L, P)."""
        s = self.settings
        num, _, groups, _ = x.shape
        self.matched = np.full((num, groups, self.num_priors), UNMATCHED, np.int64)
        self.overlap = np.zeros(self.matched.shape, x.dtype)
        for n, (objects, classes) in enumerate(zip(self.objects, self.classes, strict=True)):
            if not len(objects):
                continue
            shared = match(s, self.priors, objects) if s.use_prior_for_matching else None
            for c in range(groups):
                if groups > 1 and c == s.background:
                    continue
                wanted = np.arange(len(objects)) if groups == 1 else np.flatnonzero(classes == c)
                if not len(wanted):
                    continue
                if shared is not None:
                    found, overlap = shared
                    self.matched[n, c] = np.where((found < 0) | np.isin(found, wanted), found, UNMATCHED)
                else:
                    boxes = decode(s.coding, self.priors, self.variances, x[n, :, c])
                    found, overlap = match(s, boxes, objects[wanted])
                    self.matched[n, c] = np.where(found >= 0, wanted[np.maximum(found, 0)], found)
                self.overlap[n, c] = overlap

    def _mine(self, x: Plain, scores: Plain) -> Mask | None:
        """(N, P) priors that the mining selects, or None; hard examples give up their other matches."""
        s = self.settings
        if s.mining is Mining.NONE:
            return None
        selected = np.zeros((len(x), self.num_priors), bool)
        for n, objects in enumerate(self.objects):
            if not len(objects):
                continue
            matched = self.matched[n, 0]
            loss = self._class_losses(scores[n], self._labels(n, matched))
            if s.mining is Mining.HARD_EXAMPLE:
                loss = loss.copy()
                own = np.flatnonzero(matched >= 0)
                self.at_loc = np.full(len(own), n), own, np.zeros(len(own), np.int64)
                loss[own] += self._robust(self._residual(x)).sum(axis=1)
            boxes = self.priors
            if s.suppression is not None and not s.use_prior_for_nms:
                boxes = decode(s.coding, self.priors, self.variances, x[n, :, 0])
            selected[n] = mine(s, matched, self.overlap[n, 0], loss, boxes)
            if s.mining is Mining.HARD_EXAMPLE:
                matched[(matched >= 0) & ~selected[n]] = UNMATCHED
        return selected

    def _labels(self, n: int, matched: Index) -> Index:
        """The class that every prior of an image is to take."""
        s = self.settings
        labels = np.full(len(matched), s.background, np.int64)
        own = matched >= 0
        labels[own] = s.background + 1 if s.agnostic else self.classes[n][matched[own]]
        return labels

    def _residual(self, x: Plain) -> Plain:
        """Prediction less target of every matched prior, (matches, 4)."""
        s = self.settings
        image, prior, group = self.at_loc
        predicted = x[image, prior, group]
        if not len(image):
            return predicted
        objects = np.array(
            [self.objects[n][self.matched[n, c, p]] for n, p, c in zip(*self.at_loc, strict=True)], x.dtype
        )
        priors, variances = self.priors[prior], self.variances[prior]
        residual = predicted - encode(s.coding, priors, variances, objects)
        if s.bp_inside:
            boxes = priors
            if not s.use_prior_for_matching:
                boxes = decode(s.coding, priors, variances, predicted)
            residual[(boxes < 0) | (boxes > 1)] = 0
        if s.coding.variance_in_target:
            residual /= variances
        return residual

    def _choose(self, image: Index, prior: Index, group: Index, selected: Mask | None) -> None:
        """The priors whose classes count, `at_conf`, and the classes they are to take."""
        taken = np.full((len(self.objects), self.num_priors), UNMATCHED, np.int64)
        taken[image, prior] = self.matched[image, group, prior]
        labels = np.stack([self._labels(n, row) for n, row in enumerate(taken)])
        if selected is None:
            counted = np.ones(taken.shape, bool)
        else:
            counted = (taken >= 0) | (selected & (self.matched[:, 0] == UNMATCHED))
        self.at_conf = np.nonzero(counted)
        self.labels = labels[self.at_conf]

    def _robust(self, residual: Plain) -> Plain:
        size = np.abs(residual)
        square = residual * residual / 2
        return np.where(size < 1, square, size - 0.5) if self.settings.smooth_l1 else square

    def _targets(self, scores: Plain, labels: Index) -> Plain:
        """One-hot; without mining, a logistic loss knows no background class."""
        s = self.settings
        targets = np.zeros_like(scores)
        known = (labels >= 0) & (labels < s.num_classes)
        if s.logistic and s.mining is Mining.NONE:
            known &= labels != s.background
        targets[np.flatnonzero(known), labels[known]] = 1
        return targets

    def _class_losses(self, scores: Plain, labels: Index) -> Plain:
        """The loss of every row of scores."""
        if self.settings.logistic:
            targets = self._targets(scores, labels)
            loss = np.maximum(scores, 0) - scores * targets + np.log1p(np.exp(-np.abs(scores)))
            return np.asarray(loss.sum(axis=1))
        if not len(scores):
            return np.zeros(0, scores.dtype)
        prob = np.empty_like(scores)
        softmax(scores, prob)
        own = prob[np.arange(len(prob)), labels]
        return np.asarray(-np.log(np.maximum(own, np.finfo(prob.dtype).tiny)))

    def backward(
        self,
        loc_diff: SyncedArray | None,
        conf_diff: SyncedArray | None,
        loc_scale: float,
        conf_scale: float,
    ) -> None:
        """Scaled slopes at the priors of the last forward pass, zero elsewhere."""
        s = self.settings
        if loc_diff is not None:
            dx = loc_diff.plain_overwrite()
            dx.fill(0)
            slope = np.clip(self.residual, -1, 1) if s.smooth_l1 else self.residual
            if s.coding.variance_in_target:
                slope = slope / self.variances[self.at_loc[1]]
            dx.reshape(dx.shape[0], self.num_priors, -1, 4)[self.at_loc] = slope * loc_scale
        if conf_diff is not None:
            dx = conf_diff.plain_overwrite()
            dx.fill(0)
            prob = np.empty_like(self.picked)
            if s.logistic:
                sigmoid(self.picked, prob)
            elif len(prob):
                softmax(self.picked, prob)
            slope = prob - self._targets(self.picked, self.labels)
            dx.reshape(dx.shape[0], self.num_priors, -1)[self.at_conf] = slope * conf_scale
