"""Batches that a card makes of pixels: Caffe's, the host's, and what training on them gives."""

from __future__ import annotations

import pytest

from dtrain.kernels.cuda.cupy_device import CupyDevice
from tests.kernels.cuda import test_pixel_training
from tests.kernels.cuda.test_pixel_training import (
    source,
    test_a_run_on_pixels_resumes_bit_for_bit,
    test_replayed_training_on_pixels_is_that_of_layers_that_run,
    test_training_on_pixels_is_that_on_batches_of_the_host,
)
from tests.layers import test_pixel_batches
from tests.layers.test_pixel_batches import (
    folder,
    test_batches_of_the_goldens_are_those_of_the_host,
    test_batches_on_a_device_are_those_of_the_host,
    test_grey_batches_are_those_of_the_host,
    test_images_of_16_bits_are_rounded_once_and_written_in_the_order_that_is_wanted,
)

__all__ = [  # tests and fixtures of other folders, which here get the card
    "folder",
    "source",
    "test_a_run_on_pixels_resumes_bit_for_bit",
    "test_batches_of_the_goldens_are_those_of_the_host",
    "test_batches_on_a_device_are_those_of_the_host",
    "test_grey_batches_are_those_of_the_host",
    "test_images_of_16_bits_are_rounded_once_and_written_in_the_order_that_is_wanted",
    "test_replayed_training_on_pixels_is_that_of_layers_that_run",
    "test_training_on_pixels_is_that_on_batches_of_the_host",
]

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def on_the_card(device: CupyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that make their device by themselves get the card."""
    for module in (test_pixel_training, test_pixel_batches):
        monkeypatch.setattr(module, "CpuDevice", lambda: device)
