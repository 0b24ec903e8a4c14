"""GIF and WebP files whose first frame is not the whole canvas."""

import io
import struct
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import FailureCode, ImageFailure, Pixels, decode
from tests.pipeline.images.gif_files import COLORS, SIZE, VALUES, gif
from tests.pipeline.images.other_readers import read_with_opencv

SPEC = ImageSpec(height=SIZE, width=SIZE, channels=3, background=99)


def canvas(values: Pixels, left: int, top: int, transparent: int | None = None) -> Pixels:
    shown = np.full((SIZE, SIZE, 3), 99, np.uint8)
    height, width = values.shape
    inside = COLORS[values]
    if transparent is not None:
        inside[values == transparent] = 99
    shown[top : top + height, left : left + width] = inside
    return shown


@pytest.mark.parametrize("place", [(0, 0), (4, 4), (11, 9), (0, 9)])
@pytest.mark.parametrize("transparent", [None, 0, 2])
@pytest.mark.parametrize("local", [False, True])
def test_pixels_outside_the_first_frame_are_background(
    place: tuple[int, int], transparent: int | None, local: bool
) -> None:
    data = gif(VALUES, *place, transparent=transparent, local=local)
    assert np.array_equal(decode(data, SPEC).pixels, canvas(VALUES, *place, transparent))


def test_a_frame_that_covers_the_canvas_is_opaque() -> None:
    values = np.random.default_rng(0).integers(0, 4, (SIZE, SIZE), np.uint8)
    data = gif(values, 0, 0)
    assert np.array_equal(decode(data, SPEC).pixels, COLORS[values])
    assert np.array_equal(imageio.imread(data, index=0), COLORS[values])


def test_interlaced_rows_are_reordered() -> None:
    values = np.random.default_rng(0).integers(0, 4, (SIZE, SIZE), np.uint8)
    order = [*range(0, SIZE, 8), *range(4, SIZE, 8), *range(2, SIZE, 4), *range(1, SIZE, 2)]
    data = gif(values[order], 0, 0, flags=64)
    assert np.array_equal(decode(data, SPEC).pixels, COLORS[values])


def test_a_gif_without_an_end_marker_in_its_pixels_is_corrupt() -> None:
    data = gif(VALUES, 4, 4)
    for cut in (3, 4, 5):
        with pytest.raises(ImageFailure) as caught:
            decode(data[:-cut] + b"\0;", SPEC)
        assert caught.value.code == FailureCode.CORRUPT


def test_a_truncated_gif_is_corrupt() -> None:
    data = gif(np.random.default_rng(0).integers(0, 4, (SIZE, SIZE), np.uint8), 0, 0)
    for length in range(6, len(data) - 3):
        with pytest.raises(ImageFailure) as caught:
            decode(data[:length], SPEC)
        assert caught.value.code == FailureCode.CORRUPT


def lossless(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, **options)
    return buffer.getvalue()


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def three_bytes(value: int) -> bytes:
    return value.to_bytes(3, "little")


@pytest.mark.parametrize("place", [(0, 0), (4, 6), (10, 8)])
@pytest.mark.parametrize("flags", [0x02, 0x12])
def test_an_animation_with_a_partial_first_frame(place: tuple[int, int], flags: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    still = lossless(Image.fromarray(picture))
    assert still[12:16] == b"VP8L"
    frame = b"".join(map(three_bytes, (place[0] // 2, place[1] // 2, 5, 7, 100))) + b"\0" + still[12:]
    extended = bytes((flags, 0, 0, 0)) + three_bytes(SIZE - 1) + three_bytes(SIZE - 1)
    data = riff((b"VP8X", extended), (b"ANIM", bytes(6)), (b"ANMF", frame), (b"ANMF", frame))
    expected = np.full((SIZE, SIZE, 3), 99, np.uint8)
    expected[place[1] : place[1] + 8, place[0] : place[0] + 6] = picture
    assert np.array_equal(decode(data, SPEC).pixels, expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_webp_matches_another_reader(mode: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), np.uint8)
    data = lossless(Image.fromarray(picture).convert(mode), exact=True)
    read = read_with_opencv(data).astype(int)
    shown, alpha = read[..., 2::-1], read[..., 3:] if mode == "RGBA" else 255
    blended = (shown * alpha + 99 * (255 - alpha)) / 255
    assert np.abs(decode(data, SPEC).pixels - blended).max() <= 1


@pytest.mark.parametrize("exif", [b"MM\0*\0\0\0\x08\xff\xff", b"nothing", b"II*\0\xff\xff\xff\xff"])
def test_broken_metadata_of_a_webp_file_is_ignored(exif: bytes, recwarn: pytest.WarningsRecorder) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    data = lossless(Image.fromarray(picture), exif=exif, xmp=b"<x/>" * 1000)
    assert np.array_equal(decode(data, SPEC).pixels, picture)
    assert not recwarn.list
    for length in range(12, len(data) - 5000, 7):
        with pytest.raises(ImageFailure):
            decode(data[:length], SPEC)
