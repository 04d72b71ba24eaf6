"""What SSD's layers share: reading their settings, and the shapes of predictions and priors."""

from __future__ import annotations

from typing import Any

from dtrain.kernels.boxes import BoxCode, Coding
from dtrain.layers.layer import Blobs, Layer
from dtrain.proto import dtrain_pb2 as pb


def coding(code_type: int, variance_in_target: bool) -> Coding:
    """The way boxes are coded."""
    name = pb.PriorBoxParameter.CodeType.DESCRIPTOR.values_by_number[code_type].name
    return Coding(code=BoxCode[name], variance_in_target=variance_in_target)


def num_classes(layer: Layer, message: str) -> int:
    """The field num_classes, which has no default."""
    param: Any = getattr(layer.spec, message)
    if param.num_classes < 1:
        raise layer.bad_param((message, "num_classes"), "at least 1", param.num_classes or "none")
    return int(param.num_classes)


def num_priors(layer: Layer, bottom: Blobs, loc_classes: int, classes: int) -> int:
    """From bottom[2], the priors; checks the predictions of bottom[0] and bottom[1] against it."""
    loc, conf, priors = bottom[:3]
    if len(priors.shape) < 3 or priors.shape[:2] != (1, 2) or priors.count % 8:
        raise layer.bad_shape("bottom[2] (priors)", "shape (1, 2, 4 x priors)", priors.shape)
    num = priors.count // 8
    if not loc.shape or not conf.shape or loc.shape[0] != conf.shape[0]:
        raise layer.bad_shape("bottom[1]", f"as many samples as bottom[0] {loc.shape}", conf.shape)
    for i, (blob, each) in enumerate(((loc, 4 * loc_classes), (conf, classes))):
        if blob.count != blob.shape[0] * num * each:
            raise layer.bad_shape(
                f"bottom[{i}]", f"{each} values for each of {num} priors in a sample", blob.shape
            )
    return num
