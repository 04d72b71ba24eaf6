"""Random changes of brightness, contrast, saturation, hue and the order of channels.

Source: SSD's DistortionParameter and its order of operations (Liu et al., SSD, 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from dtrain.data.decode import opencv
from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb

Image = npt.NDArray[np.uint8]
"""(H, W, 3): blue, green, red."""

DRAWS = 10
"""Numbers in [0, 1) that an image needs."""

_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@final
@dataclass(frozen=True, kw_only=True)
class ColourJitter:
    """Each change happens with its probability, by an amount drawn between its bounds."""

    brightness_prob: float = 0.0
    brightness_delta: float = 0.0
    """Added to all values: between -delta and delta."""
    contrast_prob: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    """All values are multiplied by it."""
    saturation_prob: float = 0.0
    saturation: tuple[float, float] = (1.0, 1.0)
    hue_prob: float = 0.0
    hue_delta: float = 0.0
    """In OpenCV's half degrees."""
    order_prob: float = 0.0

    @classmethod
    def from_param(cls, param: pb.DistortionParameter, where: str) -> ColourJitter:
        """Raises ConfigError for bounds that SSD refuses too."""
        for name in ("contrast", "saturation"):
            lower, upper = getattr(param, f"{name}_lower"), getattr(param, f"{name}_upper")
            if getattr(param, f"{name}_prob") > 0 and not 0 <= lower <= upper:
                raise ConfigError(
                    f"{where}: distort_param.{name}_lower must be from 0 to {name}_upper ({upper:g}), "
                    f"got {lower:g}"
                )
        for name in ("brightness", "hue"):
            delta = getattr(param, f"{name}_delta")
            if delta < 0:
                raise ConfigError(f"{where}: distort_param.{name}_delta must be at least 0, got {delta:g}")
        return cls(
            brightness_prob=param.brightness_prob,
            brightness_delta=param.brightness_delta,
            contrast_prob=param.contrast_prob,
            contrast=(param.contrast_lower, param.contrast_upper),
            saturation_prob=param.saturation_prob,
            saturation=(param.saturation_lower, param.saturation_upper),
            hue_prob=param.hue_prob,
            hue_delta=param.hue_delta,
            order_prob=param.random_order_prob,
        )

    def __call__(self, image: Image, draws: Sequence[float]) -> Image:
        """The changed image; the given one stays as it is."""
        contrast_last = draws[0] >= 0.5
        image = self._brightness(image, draws)
        if not contrast_last:
            image = self._contrast(image, draws)
        image = self._hue_and_saturation(image, draws)
        if contrast_last:
            image = self._contrast(image, draws)
        if draws[8] < self.order_prob:
            image = np.ascontiguousarray(image[:, :, _ORDERS[int(draws[9] * len(_ORDERS))]])
        return image

    def _brightness(self, image: Image, draws: Sequence[float]) -> Image:
        delta = (2 * draws[2] - 1) * self.brightness_delta if draws[1] < self.brightness_prob else 0.0
        return _scaled(image, 1.0, delta) if delta else image

    def _contrast(self, image: Image, draws: Sequence[float]) -> Image:
        factor = _between(self.contrast, draws[4]) if draws[3] < self.contrast_prob else 1.0
        return _scaled(image, factor, 0.0) if factor != 1 else image

    def _hue_and_saturation(self, image: Image, draws: Sequence[float]) -> Image:
        factor = _between(self.saturation, draws[6]) if draws[5] < self.saturation_prob else 1.0
        # one draw tells whether, and, spread over [0, 1) again, how much
        turns = draws[7] < self.hue_prob
        delta = round((2 * draws[7] / self.hue_prob - 1) * self.hue_delta) if turns else 0
        if factor == 1 and delta == 0:
            return image
        cv2 = opencv()
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        if factor != 1:
            hsv[:, :, 1] = _scaled(np.ascontiguousarray(hsv[:, :, 1]), factor, 0.0)
        if delta:
            hsv[:, :, 0] = (hsv[:, :, 0].astype(np.int16) + delta) % 180
        changed: Image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        return changed


def _scaled(image: Image, factor: float, delta: float) -> Image:
    """image * factor + delta, rounded, within 0 to 255."""
    levels = np.clip(np.rint(np.arange(256) * factor + delta), 0, 255).astype(np.uint8)
    changed: Image = opencv().LUT(image, levels)
    return changed


def _between(bounds: tuple[float, float], draw: float) -> float:
    return bounds[0] + draw * (bounds[1] - bounds[0])
