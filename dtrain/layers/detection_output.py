"""DetectionOutput: the objects that SSD's predictions tell. Source: DetectionOutputLayer of SSD's Caffe.

Files and windows of detections are not written here: a script reads top[0].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.boxes import Detection, Suppression
from dtrain.layers.detection import coding, num_classes, num_priors
from dtrain.layers.layer import Blobs, Count, Layer
from dtrain.layers.no_gradient import refuse_gradient

NAME = "detection_output_param"


@final
class DetectionOutput(Layer):
    """bottom[0] box predictions, bottom[1] class scores, bottom[2] priors -> top[0] (1, 1, detections, 7).

    A row is image, class, score, xmin, ymin, xmax, ymax; bottom[3], the images, is for drawing and unread.
    """

    type_name = "DetectionOutput"
    num_bottoms = Count(3, 4)
    reshapes_in_forward = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.detection_output_param
        nms = param.nms_param
        if nms.nms_threshold < 0:
            raise self.bad_param((NAME, "nms_param", "nms_threshold"), "at least 0", nms.nms_threshold)
        if not 0 < nms.eta <= 1:
            raise self.bad_param((NAME, "nms_param", "eta"), "in (0, 1]", nms.eta)
        if param.save_output_param.output_directory:
            raise self.bad_param(
                (NAME, "save_output_param", "output_directory"),
                "absent: write the detections from top[0]",
                param.save_output_param.output_directory,
            )
        if param.visualize:
            raise self.bad_param((NAME, "visualize"), "false: draw the detections from top[0]", "true")
        threshold = param.confidence_threshold if param.HasField("confidence_threshold") else float("-inf")
        self.settings = Detection(
            num_classes=num_classes(self, NAME),
            coding=coding(param.code_type, param.variance_encoded_in_target),
            share_location=param.share_location,
            background=param.background_label_id,
            confidence_threshold=threshold,
            suppression=Suppression(
                threshold=nms.nms_threshold,
                top_k=nms.top_k if nms.HasField("top_k") and nms.top_k > -1 else None,
                eta=nms.eta,
            ),
            keep_top_k=param.keep_top_k if param.keep_top_k > -1 else None,
        )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        s = self.settings
        num = num_priors(self, bottom, 1 if s.share_location else s.num_classes, s.num_classes)
        top[0].reshape((1, 1, 1, 7))
        self.op = self.ops.DetectionOutput(s, num)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        rows = self.op.forward(*(blob.data for blob in bottom[:3]))
        top[0].reshape((1, 1, *rows.shape))
        top[0].data.plain_overwrite()[0, 0] = rows

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for i in range(len(bottom)):
            refuse_gradient(self, propagate_down, i)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return False
