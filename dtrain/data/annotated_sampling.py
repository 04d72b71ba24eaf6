"""Random boxes of an image that must overlap its objects so and so: what SSD crops to.

Source: SSD's BatchSampler.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import final

import numpy as np
import numpy.typing as npt

from dtrain.data.annotated_boxes import Boxes, coverage, jaccard
from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb

DRAWS_OF_TRIAL = 4

_MEASURES = ("jaccard_overlap", "sample_coverage", "object_coverage")


@final
@dataclass(frozen=True)
class Bounds:
    """From `least` to `most`, both included."""

    least: float = -inf
    most: float = inf

    @property
    def hold_always(self) -> bool:
        """Whether neither end is given."""
        return self.least == -inf and self.most == inf

    def __call__(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        # the prototxt's numbers are float32: compare as SSD does
        single = values.astype(np.float32)
        return (single >= np.float32(self.least)) & (single <= np.float32(self.most))


@final
@dataclass(frozen=True, kw_only=True)
class BoxSampler:
    """Tries boxes of random size, form and place; keeps those for which some object meets all bounds."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Square root of the box's share of the image's area."""
    aspect_ratio: tuple[float, float] = (1.0, 1.0)
    """Of the shares of width and height, not of pixels."""
    jaccard_overlap: Bounds = field(default_factory=Bounds)
    sample_coverage: Bounds = field(default_factory=Bounds)
    """Share of the box that lies in the object."""
    object_coverage: Bounds = field(default_factory=Bounds)
    """Share of the object that lies in the box."""
    max_sample: int | None = None
    max_trials: int = 100

    @classmethod
    def from_param(cls, param: pb.BatchSampler, where: str) -> BoxSampler:
        """Raises ConfigError for ranges that hold no value."""
        sampler = param.sampler
        for name, most in (("scale", 1.0), ("aspect_ratio", inf)):
            low, high = getattr(sampler, f"min_{name}"), getattr(sampler, f"max_{name}")
            if not 0 < low <= high or high > most or high == inf:
                limit = "1" if most == 1 else "a finite number"
                raise ConfigError(
                    f"{where}: sampler must have 0 < min_{name} <= max_{name} <= {limit}, "
                    f"got {low:g} and {high:g}"
                )
        bounds = [_bounds(param.sample_constraint, name, where) for name in _MEASURES]
        return cls(
            scale=(sampler.min_scale, sampler.max_scale),
            aspect_ratio=(sampler.min_aspect_ratio, sampler.max_aspect_ratio),
            jaccard_overlap=bounds[0],
            sample_coverage=bounds[1],
            object_coverage=bounds[2],
            max_sample=param.max_sample if param.HasField("max_sample") else None,
            max_trials=param.max_trials if param.use_original_image else 0,  # there is no other image
        )

    def __call__(self, objects: Boxes, draws: npt.NDArray[np.float64]) -> Boxes:
        """The boxes kept, of draws (max_trials, 4) in [0, 1); at most max_sample, the first found."""
        tried = self.boxes(draws)
        return tried[self.accepts(tried, objects)][: self.max_sample]

    def boxes(self, draws: npt.NDArray[np.float64]) -> Boxes:
        """A box for every row of draws: scale, form, left, top."""
        scale = self.scale[0] + draws[:, 0] * (self.scale[1] - self.scale[0])
        ratio = self.aspect_ratio[0] + draws[:, 1] * (self.aspect_ratio[1] - self.aspect_ratio[0])
        ratio = np.clip(ratio, scale**2, 1 / scale**2)  # neither side longer than the image's
        width = np.minimum(scale * np.sqrt(ratio), 1)
        height = np.minimum(scale / np.sqrt(ratio), 1)
        left, top = draws[:, 2] * (1 - width), draws[:, 3] * (1 - height)
        return np.stack([left, top, left + width, top + height], axis=1)

    def accepts(self, tried: Boxes, objects: Boxes) -> npt.NDArray[np.bool_]:
        """Whether some object meets all bounds that are given; every box where none is."""
        checks = (
            (self.jaccard_overlap, jaccard),
            (self.sample_coverage, coverage),
            (self.object_coverage, lambda boxes, others: coverage(others, boxes).T),
        )
        given = [(bounds, measure) for bounds, measure in checks if not bounds.hold_always]
        if not given:
            return np.ones(len(tried), np.bool_)
        met = np.ones((len(tried), len(objects)), np.bool_)
        for bounds, measure in given:
            met &= bounds(measure(tried, objects))
        return np.asarray(met.any(axis=1))


def _bounds(param: pb.SampleConstraint, name: str, where: str) -> Bounds:
    least, most = (
        getattr(param, f"{end}_{name}") if param.HasField(f"{end}_{name}") else None for end in ("min", "max")
    )
    bounds = Bounds(-inf if least is None else least, inf if most is None else most)
    if bounds.least > min(bounds.most, 1) or bounds.most < 0:
        told = ", ".join(
            f"{end}_{name} {value:g}" for end, value in (("min", least), ("max", most)) if value is not None
        )
        raise ConfigError(
            f"{where}: sample_constraint must be what a share from 0 to 1 can meet, with min_{name} at most "
            f"max_{name}, got {told}"
        )
    return bounds
