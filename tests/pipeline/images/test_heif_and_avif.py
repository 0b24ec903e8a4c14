"""HEIC and AVIF files: size before decoding, orientation, transparency, damage, and a missing package."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import (
    FORMATS,
    FailureCode,
    ImageFailure,
    decode,
    describe_file,
)

HEIGHT, WIDTH = 120, 160
SPEC = ImageSpec(height=HEIGHT, width=WIDTH, channels=3)
FORMS = ("HEIF", "AVIF")
# Two encoders and the conversion to YCbCr lie between the pixels and these.
TOLERANCE = 6


def corners() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image with a colour of its own in each quarter."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2, 0] = 220
    pixels[: HEIGHT // 2, :, 1] = 200
    return pixels


def encoded(form: str, pixels: Any, orientation: int = 1, **options: Any) -> bytes:
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    if form == "AVIF":
        image.save(buffer, form, quality=95, exif=exif, **options)
    else:
        pillow_heif.register_heif_opener()
        image.info["exif"] = exif.tobytes()
        image.save(buffer, form, quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pixels_are_as_displayed(form: str, orientation: int) -> None:
    data = encoded(form, corners(), orientation)
    turned = np.rot90(corners(), {1: 0, 3: 2, 6: 3, 8: 1}[orientation])
    height, width = turned.shape[:2]
    assert describe_file(data).format == form
    assert describe_file(data).displayed_size == (width, height)
    found = decode(data, ImageSpec(height=height, width=width, channels=3))
    assert (found.width, found.height) == (width, height)
    middles = [(height // 4, width // 4), (height // 4, -width // 4), (-height // 4, width // 4)]
    for place in middles:
        assert np.abs(found.pixels[place].astype(int) - turned[place]).max() <= TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_transparency_is_flattened_as_in_other_formats(form: str) -> None:
    pixels = np.dstack([corners(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    pixels[:, : WIDTH // 2, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    expected = decode(buffer.getvalue(), SPEC).pixels
    found = decode(encoded(form, pixels), SPEC).pixels
    for place in ((20, 20), (20, 140), (100, 20), (100, 140)):
        assert np.abs(found[place].astype(int) - expected[place]).max() <= TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_too_many_pixels_are_refused_before_decoding(form: str) -> None:
    with pytest.raises(ImageFailure) as failure:
        decode(encoded(form, corners()), SPEC, max_pixels=HEIGHT * WIDTH - 1)
    assert failure.value.code == FailureCode.TOO_MANY_PIXELS


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_a_failure(form: str, share: float) -> None:
    data = encoded(form, np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(ImageFailure) as failure:
        decode(data[: int(len(data) * share)], SPEC)
    assert failure.value.code == FailureCode.CORRUPT


def test_the_preprocessing_of_bundles_promises_nothing_of_them() -> None:
    assert set(FORMATS).isdisjoint(FORMS)


def test_a_missing_package_is_named() -> None:
    program = """
import sys
sys.modules["pillow_heif"] = None
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import ImageFailure, decode
try:
    decode(sys.stdin.buffer.read(), ImageSpec(height=8, width=8, channels=3))
except ImageFailure as failure:
    print(failure)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input=encoded("HEIF", corners()), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == ("unsupported: a HEIC file, which needs the extra `heif`")
