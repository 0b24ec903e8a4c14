"""Decoding by OpenCV, compared with ours."""

import numpy as np
import pytest

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.image_encoding import encode_as, encode_jpeg, encode_png
from pixelmill.pipeline.images import Pixels, decode
from pixelmill.pipeline.images.opencv import decode_with_opencv


def smooth(height: int, width: int, channels: int) -> Pixels:
    rows, columns = np.indices((height, width))
    planes = [120 + 60 * np.sin(rows / 9 + plane) + 40 * np.cos(columns / 7) for plane in range(channels)]
    image: Pixels = np.stack(planes, axis=2).astype(np.uint8)
    return image


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(40, 64), (64, 40), (16, 16), (100, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_smooth_images_become_nearly_the_same_tensor(
    resize: str, size: tuple[int, int], channels: int
) -> None:
    spec = ImageSpec.model_validate({"height": 24, "width": 32, "channels": channels, "resize": resize})
    for data in (encode_png(smooth(*size, channels)), encode_jpeg(smooth(*size, channels))):
        tensor = decode_with_opencv(data, spec)
        assert tensor is not None
        assert tensor.shape == (24, 32, channels)
        assert tensor.dtype == np.uint8
        difference = np.abs(tensor.astype(int) - decode(data, spec).pixels)
        assert np.median(difference) <= 6


def test_the_orientation_is_applied() -> None:
    _, data = encode_as("turned", smooth(40, 64, 3))
    spec = ImageSpec(height=40, width=64, channels=3)
    tensor = decode_with_opencv(data, spec)
    assert tensor is not None
    assert np.abs(tensor.astype(int) - decode(data, spec).pixels).mean() < 8


@pytest.mark.parametrize("data", [b"", b"no image", encode_png(smooth(9, 9, 3))[:60], b"GIF89a" + bytes(20)])
def test_what_it_cannot_read_is_none(data: bytes) -> None:
    assert decode_with_opencv(data, ImageSpec(height=8, width=8, channels=3)) is None
