"""Settings of operators on boxes, which are corners (xmin, ymin, xmax, ymax) as shares of the image."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import final


@final
class BoxCode(enum.Enum):
    """How a predicted box is told relative to its prior."""

    CORNER = "offsets of the corners"
    CENTER_SIZE = "offset of the centre over the prior's size, logarithm of the size's ratio"
    CORNER_SIZE = "offsets of the corners over the prior's size"


@final
class Mining(enum.Enum):
    """Which priors without an object count in the loss."""

    NONE = "all of them"
    MAX_NEGATIVE = "those of the highest loss, in proportion to the matched ones"
    HARD_EXAMPLE = "those among the highest losses of all; so for the matched ones"


@final
@dataclass(frozen=True, kw_only=True)
class Coding:
    """`variance_in_target`: predictions are not divided by the prior's variances."""

    code: BoxCode
    variance_in_target: bool


@final
@dataclass(frozen=True, kw_only=True)
class Suppression:
    """Of boxes that overlap by more than `threshold` the best stays; of `top_k` candidates (None: all).

    With eta below 1, every box that stays lowers a threshold above 0.5 by that factor.
    """

    threshold: float
    top_k: int | None
    eta: float = 1.0


@final
@dataclass(frozen=True, kw_only=True)
class MultiBox:
    """The settings of a MultiBoxLoss. Source of names: MultiBoxLossParameter."""

    num_classes: int
    coding: Coding
    smooth_l1: bool  # or half the square
    logistic: bool  # or softmax
    share_location: bool
    per_prediction: bool  # or one prior per object only
    overlap_threshold: float
    use_prior_for_matching: bool
    background: int
    use_difficult: bool
    mining: Mining
    neg_pos_ratio: float
    neg_overlap: float
    agnostic: bool
    ignore_cross_boundary: bool
    bp_inside: bool
    suppression: Suppression | None
    use_prior_for_nms: bool
    sample_size: int


@final
@dataclass(frozen=True, kw_only=True)
class Detection:
    """The settings of a DetectionOutput. Source of names: DetectionOutputParameter."""

    num_classes: int
    coding: Coding
    share_location: bool
    background: int
    confidence_threshold: float
    suppression: Suppression
    keep_top_k: int | None
