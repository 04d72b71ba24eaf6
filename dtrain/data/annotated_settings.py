"""What a transform_param and batch samplers ask for, where images have boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from dtrain.data.annotated_boxes import Emit
from dtrain.data.annotated_resize import Fit, Resize
from dtrain.data.annotated_sampling import BoxSampler
from dtrain.data.colour_jitter import ColourJitter
from dtrain.data.transform_settings import TransformSettings
from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb

_CLOSE = 1e-2  # to 1: SSD leaves an image alone that could grow no more than this

_WITH_BOXES = ("resize_param", "distort_param", "expand_param", "emit_constraint")
_WITHOUT_BOXES = (
    "random_resize_param",
    "random_aspect_ratio_param",
    "img_rand_resize_lower",
    "img_rand_resize_upper",
    "rand_resize_ratio_lower",
    "rand_resize_ratio_upper",
    "vertical_stretch_lower",
    "vertical_stretch_upper",
    "horizontal_stretch_lower",
    "horizontal_stretch_upper",
    "allow_upscale",
    "interpolation_algo_down",
    "interpolation_algo_up",
)


@final
@dataclass(frozen=True)
class Expand:
    """With a probability, an image is put on a canvas of the mean, up to `most` times as high and wide."""

    probability: float
    most: float


@final
@dataclass(frozen=True, kw_only=True)
class AnnotatedSettings:
    """What is random happens in both phases, as in SSD, where each phase has a layer; but see `image`."""

    image: TransformSettings
    """Crop (at random in TRAIN only), mirror, mean, scale and colour."""
    resize: Resize | None = None
    jitter: ColourJitter | None = None
    expand: Expand | None = None
    emit: Emit = field(default_factory=Emit)
    samplers: tuple[BoxSampler, ...] = ()

    @classmethod
    def from_param(
        cls,
        param: pb.TransformationParameter,
        samplers: Sequence[BoxSampler],
        *,
        train: bool,
        seed: int,
        where: str,
    ) -> AnnotatedSettings:
        """Settings of the layer that `where` names in errors."""
        for name in _WITHOUT_BOXES:
            if param.HasField(name):
                raise ConfigError(
                    f"{where}: transform_param.{name} must be absent where images have boxes, got one; "
                    "give resize_param or a batch_sampler"
                )
        rest = pb.TransformationParameter()
        rest.CopyFrom(param)
        for name in _WITH_BOXES:
            rest.ClearField(name)
        expand = _expand(param, where)
        return cls(
            image=TransformSettings.from_param(rest, train=train, seed=seed, where=where),
            resize=Resize.from_param(param.resize_param, where) if param.HasField("resize_param") else None,
            jitter=ColourJitter.from_param(param.distort_param, where)
            if param.HasField("distort_param")
            else None,
            expand=expand,
            emit=_emit(param, where),
            samplers=tuple(samplers),
        )

    @property
    def is_one_size(self) -> bool:
        """Whether all images get one size, whatever theirs was."""
        return bool(self.image.crop_h) or (
            self.resize is not None and self.resize.fit is not Fit.FIT_SMALL_SIZE
        )


def _expand(param: pb.TransformationParameter, where: str) -> Expand | None:
    if not param.HasField("expand_param"):
        return None
    expand = param.expand_param
    if not 1 < expand.max_expand_ratio < float("inf"):
        raise ConfigError(
            f"{where}: expand_param.max_expand_ratio must be above 1, got {expand.max_expand_ratio:g}"
        )
    if not 0 <= expand.prob <= 1:
        raise ConfigError(f"{where}: expand_param.prob must be from 0 to 1, got {expand.prob:g}")
    if param.HasField("mean_file"):
        raise ConfigError(
            f"{where}: expand_param must be absent with mean_file, which has one size, got both; "
            "give mean_value"
        )
    return Expand(expand.prob, expand.max_expand_ratio) if expand.max_expand_ratio - 1 >= _CLOSE else None


def _emit(param: pb.TransformationParameter, where: str) -> Emit:
    if not param.HasField("emit_constraint"):
        return Emit()
    emit = param.emit_constraint
    if emit.emit_type == pb.EmitConstraint.CENTER:
        if emit.HasField("emit_overlap"):
            raise ConfigError(
                f"{where}: emit_constraint.emit_overlap must be absent unless emit_type is MIN_OVERLAP, "
                f"got {emit.emit_overlap:g}"
            )
        return Emit(by_centre=True)
    if not 0 <= emit.emit_overlap < 1:
        raise ConfigError(
            f"{where}: emit_constraint.emit_overlap must be at least 0 and below 1, got {emit.emit_overlap:g}"
        )
    return Emit(overlap=emit.emit_overlap)
