"""BMP files of every header, depth and mask decode to the original picture, or are rejected."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import FailureCode, ImageFailure, Pixels, decode
from tests.pipeline.images.bmp_files import (
    BGRA,
    COLORS,
    HEIGHT,
    MASKS,
    RLE4,
    RLE8,
    WIDTH,
    bmp,
    indices,
    packed,
    padded,
    run_lengths,
)
from tests.pipeline.images.other_readers import read_with_opencv

SPEC = ImageSpec(height=HEIGHT, width=WIDTH, channels=3, background=99)


def read_by_another(data: bytes) -> Pixels:
    return read_with_opencv(data, cv2.IMREAD_COLOR)[..., ::-1].astype(np.uint8)


def failure(data: bytes) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        decode(data, SPEC)
    return caught.value


@pytest.mark.parametrize("size", [12, 40, 56, 64, 108, 124])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(size: int, bits: int) -> None:
    values = indices(bits)
    data = bmp(packed(values, bits), bits, size=size, palette=COLORS[: 1 << bits])
    assert np.array_equal(decode(data, SPEC).pixels, COLORS[values])
    if size in (12, 40):
        assert np.array_equal(read_by_another(data), COLORS[values])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("table", ["black and white", "grey", "dark grey"])
def test_a_palette_of_greys_does_not_determine_the_depth(bits: int, table: str) -> None:
    greys = {"black and white": [0, 255], "grey": [0, 80, 200], "dark grey": list(range(1 << bits))}[table]
    palette = np.repeat(np.array(greys, np.uint8)[:, np.newaxis], 3, axis=1)
    values = (indices(bits).astype(int) % len(palette)).astype(np.uint8)
    data = bmp(packed(values, bits), bits, palette=palette, colors=len(palette))
    assert np.array_equal(decode(data, SPEC).pixels, palette[values])
    assert np.array_equal(read_by_another(data), palette[values])


@pytest.mark.parametrize("top_down", [False, True])
def test_24_bits(top_down: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    rows = (picture[::-1] if top_down else picture)[..., ::-1]
    data = bmp(padded(rows.reshape(HEIGHT, -1)), 24, top_down=top_down)
    assert np.array_equal(decode(data, SPEC).pixels, picture)
    assert np.array_equal(read_by_another(data), picture)


@pytest.mark.parametrize("size", [40, 56, 108, 124])
def test_a_fourth_byte_without_a_mask_is_ignored(size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    data = bmp(padded(pixels.reshape(HEIGHT, -1)), 32, size=size, masks=BGRA if size > 40 else ())
    assert np.array_equal(decode(data, SPEC).pixels, pixels[..., 2::-1])


@pytest.mark.parametrize("size", [56, 108, 124])
@pytest.mark.parametrize("alpha", ["zero", "full", "mixed"])
def test_alpha_of_zero_everywhere_is_ignored(size: int, alpha: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    levels = {"zero": 0, "full": 255, "mixed": np.where(indices(1), 255, 0)}[alpha]
    pixels[..., 3] = levels
    data = bmp(padded(pixels.reshape(HEIGHT, -1)), 32, size=size, compression=MASKS, masks=BGRA)
    shown = pixels[..., 2::-1]
    expected = np.where(pixels[..., 3:] == 0, 99, shown) if alpha == "mixed" else shown
    assert np.array_equal(decode(data, SPEC).pixels, expected)


@settings(max_examples=100, deadline=None)
@given(
    bits=st.sampled_from([16, 32]),
    widths=st.tuples(*[st.integers(1, 10)] * 4),
    order=st.permutations(range(4)),
    size=st.sampled_from([40, 52, 56, 108, 124]),
)
def test_samples_with_any_mask(bits: int, widths: tuple[int, ...], order: list[int], size: int) -> None:
    channels = [channel for channel in order if channel < 3 or size >= 56]
    if sum(widths[channel] for channel in channels) > bits:
        return
    masks, values = [0] * 4, np.zeros((HEIGHT, WIDTH), np.uint64)
    samples = np.random.default_rng(2).integers(0, 1 << 10, (HEIGHT, WIDTH, 4))
    expected = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    at = 0
    for channel in channels:
        most = (1 << widths[channel]) - 1
        sample = samples[..., channel] & most if channel < 3 else np.full((HEIGHT, WIDTH), most)
        masks[channel] = most << at
        values |= sample.astype(np.uint64) << np.uint64(at)
        at += widths[channel]
        if channel < 3:
            expected[..., channel] = sample * 255 // most
    body = padded(values.astype(f"<u{bits // 8}"))
    used = masks[: 4 if size >= 56 else 3]
    if size == 40:  # The masks follow this header.
        data = bmp(struct.pack("<3I", *used) + body, bits, compression=MASKS, start=14 + 40 + 12)
    else:
        data = bmp(body, bits, size=size, compression=MASKS, masks=tuple(used))
    assert np.array_equal(decode(data, SPEC).pixels, expected)


@pytest.mark.parametrize("masks", [(0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)])
def test_16_bits_match_another_reader(masks: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 15, (HEIGHT, WIDTH)).astype("<u2")
    body = struct.pack("<3I", *masks) + padded(values)
    data = bmp(body, 16, compression=MASKS, start=14 + 40 + 12)
    got = decode(data, SPEC).pixels.astype(int)
    assert (
        np.abs(got - read_by_another(data)).max() <= 8
    )  # OpenCV shifts the bits, so white becomes light grey.
    if masks[0] == 0x7C00:
        assert np.array_equal(decode(bmp(padded(values), 16), SPEC).pixels, got)


@pytest.mark.parametrize(("bits", "compression"), [(8, RLE8), (4, RLE4)])
@pytest.mark.parametrize("absolute", [False, True])
def test_run_lengths(bits: int, compression: int, absolute: bool) -> None:
    values = indices(bits)
    body = run_lengths(values, bits, absolute)
    data = bmp(body, bits, compression=compression, palette=COLORS[: 1 << bits])
    assert np.array_equal(decode(data, SPEC).pixels, COLORS[values])
    assert np.array_equal(read_by_another(data), COLORS[values])
    for length in range(len(data) - len(body), len(data) - 6):
        assert failure(data[:length]).code == FailureCode.CORRUPT
    left_out = body[: len(body) // 2 // 2 * 2] + b"\0\1" if not absolute else b"\0\1"
    skipping = bmp(left_out, bits, compression=compression, palette=COLORS[: 1 << bits])
    assert failure(skipping).code == FailureCode.UNSUPPORTED


def test_runs_of_two_colors() -> None:
    row = bytes((WIDTH, 0x5A)) + b"\0\0"
    data = bmp(row * HEIGHT + b"\0\1", 4, compression=RLE4, palette=COLORS[:16])
    expected = COLORS[np.tile(np.where(np.arange(WIDTH) % 2, 0xA, 5), (HEIGHT, 1))]
    assert np.array_equal(decode(data, SPEC).pixels, expected)


def test_the_offset_of_the_pixels_may_be_missing() -> None:
    values = indices(8)
    for start in (0, 14 + 40):
        data = bmp(packed(values, 8), 8, palette=COLORS, start=start)
        assert np.array_equal(decode(data, SPEC).pixels, COLORS[values])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bmp(bytes(999), 8, compression=4), FailureCode.UNSUPPORTED),
        (bmp(bytes(999), 8, compression=RLE4), FailureCode.UNSUPPORTED),
        (bmp(bytes(999), 5), FailureCode.UNSUPPORTED),
        (bmp(bytes(999), 32, size=64, compression=3), FailureCode.UNSUPPORTED),
        (bmp(bytes(999), 32, size=56, compression=MASKS, masks=(5, 2, 8, 0)), FailureCode.UNSUPPORTED),
        (bmp(bytes(10), 24), FailureCode.CORRUPT),
        (b"BM" + bytes(12) + struct.pack("<I", 40) + bytes(36), FailureCode.CORRUPT),
        (b"BM" + bytes(12) + struct.pack("<I", 40), FailureCode.CORRUPT),
        (b"BMW is a maker of cars", FailureCode.NOT_AN_IMAGE),
    ],
)
def test_unsupported_files_are_refused(data: bytes, code: FailureCode) -> None:
    assert failure(data).code == code
