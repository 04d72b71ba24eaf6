"""MultiBoxLoss: SSD's loss over classes and box offsets. Source: MultiBoxLossLayer of SSD's Caffe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.boxes import Mining, MultiBox, Suppression
from dtrain.layers.detection import coding, num_classes, num_priors
from dtrain.layers.layer import Blobs, Count, Layer, scalar
from dtrain.layers.loss import locating_data_errors, normalization, normalizer
from dtrain.proto import dtrain_pb2 as pb

NAME = "multibox_loss_param"


@final
class MultiBoxLoss(Layer):
    """bottom[0] box predictions, bottom[1] class scores, bottom[2] priors, bottom[3] objects -> top[0].

    `propagate_down` false for bottom[0] or bottom[1] takes that part out of the loss.
    """

    type_name = "MultiBoxLoss"
    num_bottoms = Count(4, 4)
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.mode = normalization(self, pb.LossParameter.VALID)
        self.settings = self._settings()
        self.parts = list(self.spec.propagate_down)[:2] or [True, True]

    def _settings(self) -> MultiBox:
        param = self.spec.multibox_loss_param
        classes = num_classes(self, NAME)
        mining = Mining[pb.MultiBoxLossParameter.MiningType.Name(param.mining_type)]
        if param.HasField("do_neg_mining") and param.do_neg_mining != (mining is not Mining.NONE):
            raise self.bad_param(
                (NAME, "do_neg_mining"), f"what mining_type {mining.name} means", param.do_neg_mining
            )
        if mining is not Mining.NONE and not param.share_location:
            raise self.bad_param((NAME, "share_location"), "true where priors are mined", "false")
        if mining is Mining.HARD_EXAMPLE and param.sample_size < 1:
            raise self.bad_param((NAME, "sample_size"), "at least 1", param.sample_size)
        logistic = param.conf_loss_type == pb.MultiBoxLossParameter.LOGISTIC
        background = param.background_label_id
        if not logistic and background >= classes:
            raise self.bad_param(
                (NAME, "background_label_id"), f"below num_classes ({classes}) for SOFTMAX", background
            )
        if param.map_object_to_agnostic and classes != 2:
            raise self.bad_param((NAME, "num_classes"), "2 where map_object_to_agnostic", classes)
        if param.ignore_difficult_gt:
            raise self.bad_param((NAME, "ignore_difficult_gt"), "false; set use_difficult_gt: false", "true")
        nms = param.nms_param
        return MultiBox(
            num_classes=classes,
            coding=coding(param.code_type, param.encode_variance_in_target),
            smooth_l1=param.loc_loss_type == pb.MultiBoxLossParameter.SMOOTH_L1,
            logistic=logistic,
            share_location=param.share_location,
            per_prediction=param.match_type == pb.MultiBoxLossParameter.PER_PREDICTION,
            overlap_threshold=param.overlap_threshold,
            use_prior_for_matching=param.use_prior_for_matching,
            background=background,
            use_difficult=param.use_difficult_gt,
            mining=mining,
            neg_pos_ratio=param.neg_pos_ratio,
            neg_overlap=param.neg_overlap,
            agnostic=param.map_object_to_agnostic,
            ignore_cross_boundary=param.ignore_cross_boundary_bbox,
            bp_inside=param.bp_inside,
            suppression=Suppression(
                threshold=nms.nms_threshold, top_k=nms.top_k if nms.HasField("top_k") else None
            )
            if param.HasField("nms_param") and nms.nms_threshold > 0
            else None,
            use_prior_for_nms=param.use_prior_for_nms,
            sample_size=param.sample_size,
        )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        s = self.settings
        self.num_priors = num_priors(self, bottom, 1 if s.share_location else s.num_classes, s.num_classes)
        if bottom[3].count % 8:
            raise self.bad_shape("bottom[3] (objects)", "rows of 8 values", bottom[3].shape)
        self.op = self.ops.MultiBoxLoss(s, self.num_priors)
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        with locating_data_errors(self):
            loc, conf, matches = self.op.forward(*(blob.data for blob in bottom))
        num = bottom[0].shape[0]
        divisor = normalizer(self, self.mode, num, self.num_priors).divisor(matches)
        self.loc_factor = self.spec.multibox_loss_param.loc_weight / divisor if self.parts[0] else 0.0
        self.conf_factor = 1 / divisor if self.parts[1] else 0.0
        top[0].data.plain_overwrite()[...] = self.loc_factor * loc + self.conf_factor * conf

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        scale = scalar(top[0].diff.plain())
        self.op.backward(
            bottom[0].diff if propagate_down[0] else None,
            bottom[1].diff if propagate_down[1] else None,
            scale * self.loc_factor,
            scale * self.conf_factor,
        )
        for blob, wanted in zip(bottom[2:], propagate_down[2:], strict=True):
            if wanted:
                blob.diff.clear()  # priors and objects count as constants

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index < 2
