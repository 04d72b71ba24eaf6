"""Arithmetic on boxes (..., 4) of corners. Source: bbox_util of SSD's Caffe."""

from __future__ import annotations

import numpy as np

from dtrain.kernels.array import Plain
from dtrain.kernels.boxes import BoxCode, Coding, Suppression
from dtrain.kernels.cpu.labels import Index

LEAST_AREA = 1e-5  # smaller boxes never survive a suppression while mining


def areas(boxes: Plain) -> Plain:
    """0 where a box is turned inside out."""
    extent = boxes[..., 2:] - boxes[..., :2]
    return np.where((extent < 0).any(axis=-1), 0, extent.prod(axis=-1))


def overlaps(a: Plain, b: Plain) -> Plain:
    """Intersection over union of boxes that broadcast against each other; 0 where they do not meet."""
    extent = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.where((extent > 0).all(axis=-1), extent.prod(axis=-1), 0)
    union = areas(a) + areas(b) - common
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def _centers(boxes: Plain) -> tuple[Plain, Plain]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def encode(coding: Coding, priors: Plain, variances: Plain, boxes: Plain) -> Plain:
    """What a prediction has to be for its box to be `boxes`."""
    if coding.code is BoxCode.CENTER_SIZE:
        prior_center, prior_size = _centers(priors)
        center, size = _centers(boxes)
        coded = np.concatenate([(center - prior_center) / prior_size, np.log(size / prior_size)], axis=-1)
    else:
        coded = boxes - priors
        if coding.code is BoxCode.CORNER_SIZE:
            coded = coded / np.tile(priors[..., 2:] - priors[..., :2], 2)
    return coded if coding.variance_in_target else coded / variances


def decode(coding: Coding, priors: Plain, variances: Plain, predictions: Plain) -> Plain:
    """The boxes that predictions tell."""
    if not coding.variance_in_target:
        predictions = predictions * variances
    if coding.code is BoxCode.CENTER_SIZE:
        prior_center, prior_size = _centers(priors)
        center = predictions[..., :2] * prior_size + prior_center
        half = np.exp(predictions[..., 2:]) * prior_size / 2
        return np.concatenate([center - half, center + half], axis=-1)
    if coding.code is BoxCode.CORNER_SIZE:
        predictions = predictions * np.tile(priors[..., 2:] - priors[..., :2], 2)
    return priors + predictions


def suppress(rule: Suppression, boxes: Plain, scores: Plain) -> Index:
    """Indices of the boxes that stay, best first; of equal scores the earlier counts as better."""
    order = np.argsort(-scores, kind="stable")[: rule.top_k]
    candidates = boxes[order]
    worst = np.zeros(len(order))  # overlap with the boxes kept so far
    threshold = rule.threshold
    kept = []
    for i in range(len(order)):
        if worst[i] > threshold:
            continue
        kept.append(i)
        np.maximum(worst[i + 1 :], overlaps(candidates[i + 1 :], candidates[i]), out=worst[i + 1 :])
        if rule.eta < 1 and threshold > 0.5:
            threshold *= rule.eta
    return order[kept]
