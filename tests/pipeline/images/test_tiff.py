"""TIFF pages of every layout decode to the original picture, or are rejected."""

import io
import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import FailureCode, ImageFailure, Pixels, decode, describe_file
from tests.pipeline.images.other_readers import read_with_opencv
from tests.pipeline.images.tiff_files import Samples, TiffFile, encode_pages

HEIGHT, WIDTH = 21, 37
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6


def spec_of(channels: Any, background: int = 255) -> ImageSpec:
    return ImageSpec(height=HEIGHT, width=WIDTH, channels=channels, background=background)


def random_samples(bits: int, count: int, seed: int = 0) -> Samples:
    kind = np.uint8 if bits <= 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 1 << bits, (HEIGHT, WIDTH, count), kind)


def in_8_bits(samples: Samples, bits: int) -> Pixels:
    """The displayed values: few levels are scaled to 0..255, of many the upper eight bits are kept."""
    if bits >= 8:
        return (samples >> (bits - 8)).astype(np.uint8)
    return np.round(samples / ((1 << bits) - 1) * 255).astype(np.uint8)


def failure(data: bytes) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        decode(data, spec_of(3))
    return caught.value


def layouts() -> Iterator[dict[str, Any]]:
    """Byte orders, strips and tiles, planes and compressions, which do not change the pixels."""
    shapes: list[dict[str, Any]] = [{}, {"rows": 4}, {"tile": (16, 16)}, {"tile": (32, 48)}]
    for order, planar, compression, shape in product("<>", (1, 2), (1, 8, 32773), shapes):
        yield {"order": order, "planar": planar, "compression": compression, **shape}
    for order in "<>":
        yield {"order": order, "big": True, "rows": 5}
    yield {"fill_order": 2}
    yield {"fill_order": 2, "compression": 8, "rows": 4}
    yield {"compression": 32946}


def layout_name(layout: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in layout.items())


@pytest.mark.parametrize("layout", list(layouts()), ids=layout_name)
def test_every_layout_shows_the_samples(layout: dict[str, Any]) -> None:
    for bits in (*range(1, 17),):
        samples = random_samples(bits, 1)
        page = TiffFile(samples, bits, BLACK_IS_ZERO, **layout)
        assert np.array_equal(decode(page.encode(), spec_of(1)).pixels, in_8_bits(samples, bits)), bits
        page = TiffFile(samples, bits, WHITE_IS_ZERO, **layout)
        inverted = (1 << bits) - 1 - samples
        assert np.array_equal(decode(page.encode(), spec_of(1)).pixels, in_8_bits(inverted, bits)), bits
    for bits in (4, 8, 12, 16):
        samples = random_samples(bits, 3)
        page = TiffFile(samples, bits, RGB, **layout)
        assert np.array_equal(decode(page.encode(), spec_of(3)).pixels, in_8_bits(samples, bits)), bits


@pytest.mark.parametrize("layout", list(layouts()), ids=layout_name)
@pytest.mark.parametrize("bits", [1, 8, 16])
def test_samples_match_another_reader(layout: dict[str, Any], bits: int) -> None:
    for photometric, count in ((BLACK_IS_ZERO, 1), (RGB, 3))[: 1 if bits == 1 else 2]:
        samples = random_samples(bits, count)
        data = TiffFile(samples, bits, photometric, **layout).encode()
        if layout.get("fill_order") == 2:  # tifffile reverses the bits of 16-bit samples differently.
            read = read_with_opencv(data)
            read = read.reshape(samples.shape)[..., ::-1] // (255 if bits == 1 else 1)
        else:
            read = tifffile.imread(io.BytesIO(data))
        if layout.get("planar") == 2 and count == 3:
            read = np.moveaxis(read, 0, 2)
        assert np.array_equal(read.reshape(samples.shape), samples)
        assert np.array_equal(decode(data, spec_of(count)).pixels, in_8_bits(samples, bits))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [{}, {"rows": 4}, {"tile": (16, 16)}], ids=layout_name)
@pytest.mark.parametrize("planar", [1, 2])
def test_the_difference_predictor_is_reversed(
    order: str, bits: int, shape: dict[str, Any], planar: int
) -> None:
    samples = random_samples(bits, 3)
    page = TiffFile(samples, bits, RGB, order=order, planar=planar, compression=8, predictor=2, **shape)
    assert np.array_equal(decode(page.encode(), spec_of(3)).pixels, in_8_bits(samples, bits))


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_files_from_another_writer(compression: str, kind: type) -> None:
    samples = random_samples(np.dtype(kind).itemsize * 8, 3)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric="rgb", compression=compression, predictor=True)
    expected = in_8_bits(samples, samples.dtype.itemsize * 8)
    assert np.array_equal(decode(buffer.getvalue(), spec_of(3)).pixels, expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "raw", "zstd"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "I;16"])
def test_files_from_pillow(compression: str, mode: str) -> None:
    picture = Image.fromarray(random_samples(8, 3)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(random_samples(16, 1)[..., 0])
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF", compression=compression)
    shown = (
        in_8_bits(np.asarray(picture)[..., np.newaxis], 16).repeat(3, axis=2)
        if mode == "I;16"
        else np.asarray(picture.convert("RGB"))
    )
    assert np.array_equal(decode(buffer.getvalue(), spec_of(3)).pixels, shown)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "raw"])
def test_fax_pages(compression: str) -> None:
    picture = Image.fromarray(random_samples(1, 1)[..., 0] * 255).convert("1")
    for inverted in (False, True):
        buffer = io.BytesIO()
        tags = {262: WHITE_IS_ZERO} if inverted else {}
        picture.save(buffer, "TIFF", compression=compression, tiffinfo=tags)
        plain = Image.open(io.BytesIO(buffer.getvalue())).convert("L")
        assert np.array_equal(decode(buffer.getvalue(), spec_of(1)).pixels[..., 0], np.asarray(plain))


def smooth() -> Image.Image:
    ramp = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) * 4
    return Image.fromarray(np.dstack([ramp, 255 - ramp, ramp // 2]).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_in_tiff(mode: str) -> None:
    picture = smooth().convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF", compression="jpeg", quality=100)
    expected = np.asarray(picture.convert("RGB"), np.int16)
    assert np.abs(decode(buffer.getvalue(), spec_of(3)).pixels - expected).max() <= 6


def test_a_truncated_jpeg_in_tiff_is_corrupt() -> None:
    buffer = io.BytesIO()
    Image.fromarray(random_samples(8, 3)).save(buffer, "TIFF", compression="jpeg", quality=95)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        page = file.pages[0]
        start, length = page.dataoffsets[0], page.databytecounts[0]
    data[start + length // 2 : start + length] = b"\xff\xd9" + bytes(length - length // 2 - 2)
    assert failure(bytes(data)).code == FailureCode.CORRUPT


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("levels", [256, 65536])
def test_palettes_of_8_and_of_16_bits(bits: int, compression: int, levels: int) -> None:
    table = np.random.default_rng(1).integers(0, levels, (3, 1 << bits))
    table[0, 0] = levels - 1
    indices = random_samples(bits, 1)
    page = TiffFile(indices, bits, PALETTE, compression=compression, color_map=table.ravel().tolist())
    expected = (table >> 8 if levels > 256 else table).T[indices[..., 0]]
    assert np.array_equal(decode(page.encode(), spec_of(3)).pixels, expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("photometric", [BLACK_IS_ZERO, RGB])
def test_alpha_is_composited_over_the_background(bits: int, planar: int, photometric: int) -> None:
    count = 3 if photometric == RGB else 1
    samples = random_samples(bits, count + 1)
    samples[..., -1] = np.where(random_samples(1, 1)[..., 0], (1 << bits) - 1, 0)
    opaque = samples[..., -1:] > 0
    expected = np.where(opaque, in_8_bits(samples[..., :count], bits), 99)
    for extra, stored in (
        ((2,), samples),
        ((1,), np.where(opaque, samples, 0).astype(samples.dtype)),
        ((999,), samples),
    ):
        page = TiffFile(stored, bits, photometric, planar=planar, extra=extra)
        got = decode(page.encode(), spec_of(count, background=99)).pixels
        assert np.array_equal(got, expected), extra


def test_half_transparent_pixels_of_either_kind_blend_alike() -> None:
    straight = np.full((HEIGHT, WIDTH, 4), (200, 100, 0, 128), np.uint8)
    multiplied = np.full((HEIGHT, WIDTH, 4), (100, 50, 0, 128), np.uint8)
    for samples, extra in ((straight, (2,)), (multiplied, (1,))):
        got = decode(TiffFile(samples, 8, RGB, extra=extra).encode(), spec_of(3, background=0)).pixels
        np.testing.assert_allclose(got[0, 0], (100, 50, 0), atol=1)


def test_samples_without_a_meaning_are_ignored() -> None:
    samples = random_samples(8, 5)
    page = TiffFile(samples, 8, RGB, extra=(0, 0))
    assert np.array_equal(decode(page.encode(), spec_of(3)).pixels, samples[..., :3])
    nameless = samples[..., :4].copy()
    nameless[..., 3] = 0
    page = TiffFile(nameless, 8, RGB)
    assert np.array_equal(decode(page.encode(), spec_of(3)).pixels, samples[..., :3])


@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk(bits: int) -> None:
    samples = np.zeros((HEIGHT, WIDTH, 4), np.uint16 if bits == 16 else np.uint8)
    samples[..., 1:3] = (1 << bits) - 1  # Magenta and yellow give red.
    expected = np.full((HEIGHT, WIDTH, 3), (255, 0, 0))
    assert np.array_equal(decode(TiffFile(samples, bits, CMYK).encode(), spec_of(3)).pixels, expected)
    other = TiffFile(samples, bits, CMYK, tags={332: (3, [2])})
    assert failure(other.encode()).code == FailureCode.UNSUPPORTED


def test_ycbcr_of_full_resolution() -> None:
    picture = smooth().convert("YCbCr")
    samples = np.asarray(picture)
    page = TiffFile(samples, 8, YCBCR, tags={530: (3, [1, 1])})
    assert np.array_equal(decode(page.encode(), spec_of(3)).pixels, np.asarray(picture.convert("RGB")))
    # Without the tag, or with other values, the samples are subsampled or have another formula.
    assert failure(TiffFile(samples, 8, YCBCR).encode()).code == FailureCode.UNSUPPORTED
    video = {530: (3, [1, 1]), 532: (5, [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1])}
    assert failure(TiffFile(samples, 8, YCBCR, tags=video).encode()).code == FailureCode.UNSUPPORTED


SMALL = TiffFile(np.zeros((8, 8, 1), np.uint8), tags={254: (4, [1])})
OLD_SMALL = TiffFile(np.zeros((8, 8, 1), np.uint8), tags={255: (3, [2])})
MASK = TiffFile(np.zeros((HEIGHT, WIDTH, 1), np.uint8), 1, 4, tags={254: (4, [4])})


@pytest.mark.parametrize("before", [[SMALL], [SMALL, SMALL], [OLD_SMALL], [MASK], [SMALL, MASK]])
def test_a_reduced_copy_before_the_image_is_skipped(before: list[TiffFile]) -> None:
    samples = random_samples(8, 1)
    data = encode_pages([*before, TiffFile(samples), TiffFile(samples + 1)])
    assert np.array_equal(decode(data, spec_of(1)).pixels, samples)
    assert describe_file(data).width == WIDTH
    assert tifffile.TiffFile(io.BytesIO(data)).pages[len(before)].asarray().shape == (HEIGHT, WIDTH)


def test_an_image_in_the_subpage_of_its_thumbnail() -> None:
    samples = random_samples(8, 3)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.zeros((8, 8), np.uint8), photometric="minisblack", subfiletype=1, subifds=1)
        writer.write(samples, photometric="rgb")
    assert np.array_equal(decode(buffer.getvalue(), spec_of(3)).pixels, samples)


def test_a_file_with_only_a_thumbnail_gives_the_thumbnail() -> None:
    small = TiffFile(random_samples(8, 1), tags={254: (4, [1])})
    assert np.array_equal(decode(small.encode(), spec_of(1)).pixels, small.samples)


def test_circular_pages_end() -> None:
    data = bytearray(SMALL.encode())
    start = int.from_bytes(data[4:8], "little")
    data[-4:] = start.to_bytes(4, "little")
    assert decode(bytes(data), spec_of(1)).width == 8


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (TiffFile(np.zeros((9, 9, 1), np.int8), tags={339: (3, [2])}), FailureCode.UNSUPPORTED),
        (TiffFile(np.zeros((9, 9, 1), np.float32), 32, tags={339: (3, [3])}), FailureCode.UNSUPPORTED),
        (TiffFile(np.zeros((9, 9, 1), np.uint32), 32), FailureCode.UNSUPPORTED),
        (TiffFile(np.zeros((9, 9, 3), np.uint8), 8, 8), FailureCode.UNSUPPORTED),
        (TiffFile(np.zeros((9, 9, 1), np.uint8), 8, 32803), FailureCode.UNSUPPORTED),
        (TiffFile(np.zeros((9, 9, 2), np.uint8), 8, 1), FailureCode.UNSUPPORTED),
        (TiffFile(np.zeros((9, 9, 1), np.uint8), 8, 2), FailureCode.CORRUPT),
        (TiffFile(np.zeros((9, 9, 1), np.uint8), tags={259: (3, [34712])}), FailureCode.UNSUPPORTED),
        (TiffFile(np.zeros((9, 9, 1), np.uint8), tags={259: (3, [8])}), FailureCode.CORRUPT),
        (TiffFile(np.zeros((9, 9, 3), np.uint8), 8, 2, tags={258: (3, [5, 6, 5])}), FailureCode.UNSUPPORTED),
        (TiffFile(np.zeros((9, 9, 1), np.uint8), tags={257: (4, [900])}), FailureCode.CORRUPT),
        (TiffFile(np.zeros((9, 9, 1), np.uint8), 8, PALETTE, color_map=[1] * 30), FailureCode.CORRUPT),
        (TiffFile(np.zeros((9, 9, 1), np.uint8), tags={273: (4, [1 << 31])}), FailureCode.CORRUPT),
    ],
)
def test_undefined_layouts_are_refused(page: TiffFile, code: FailureCode) -> None:
    assert failure(page.encode()).code == code


def test_any_truncation_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    for options in ({}, {"compression": 8}, {"rows": 3}, {"tile": (16, 16)}):
        page = TiffFile(random_samples(8, 1), **options)
        data = page.encode()
        for length in range(len(data)):
            with pytest.raises(ImageFailure):
                decode(data[:length], spec_of(1))
    assert capfd.readouterr() == ("", "")


@settings(max_examples=150, deadline=None)
@given(
    bits=st.integers(1, 16),
    photometric=st.sampled_from([WHITE_IS_ZERO, BLACK_IS_ZERO, RGB]),
    order=st.sampled_from("<>"),
    big=st.booleans(),
    planar=st.sampled_from([1, 2]),
    block=st.one_of(
        st.fixed_dictionaries({"rows": st.integers(1, HEIGHT)}),
        st.fixed_dictionaries({"tile": st.tuples(st.sampled_from([16, 32]), st.sampled_from([16, 48]))}),
    ),
    compression=st.sampled_from([1, 8, 32773]),
    extras=st.integers(0, 2),
    orientation=st.integers(1, 8),
)
def test_any_combination(
    bits: int, photometric: int, extras: int, orientation: int, block: dict[str, Any], **layout: Any
) -> None:
    count = 3 if photometric == RGB else 1
    samples = random_samples(bits, count + extras)
    page = TiffFile(samples, bits, photometric, extra=(0,) * extras or None, **block, **layout)
    page.tags = {274: (3, [orientation])}
    shown = samples[..., :count]
    shown = in_8_bits((1 << bits) - 1 - shown if photometric == WHITE_IS_ZERO else shown, bits)
    upright = {
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: shown.transpose(1, 0, 2),
        6: np.rot90(shown, -1),
        7: np.rot90(shown, 2).transpose(1, 0, 2),
        8: np.rot90(shown, 1),
    }[orientation]
    spec = ImageSpec.model_validate(
        {"height": upright.shape[0], "width": upright.shape[1], "channels": count}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = decode(page.encode(), spec)
    assert np.array_equal(got.pixels, upright)
    assert (got.width, got.height) == (spec.width, spec.height)
