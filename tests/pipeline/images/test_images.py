"""The decoder: formats, damage, orientation, transparency, geometry."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.image_encoding import encode_png, encode_thumbnail
from pixelmill.pipeline.images import (
    FORMATS,
    FailureCode,
    FileFacts,
    ImageFailure,
    Pixels,
    decode,
    decode_with_pillow,
    describe_file,
    fit_array,
)

HEIGHT, WIDTH = 9, 12
SPEC = ImageSpec(height=HEIGHT, width=WIDTH, channels=3)
GREY = ImageSpec(height=HEIGHT, width=WIDTH, channels=1)
SPECS = [
    ImageSpec(height=5, width=7, channels=channels, resize=resize)
    for channels in (1, 3)
    for resize in ("stretch", "crop", "pad")
]


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def colourful(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Different pixels everywhere, so that any rotation or shift is noticed."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


PICTURE = Image.fromarray(colourful())
VALID: dict[str, bytes] = {
    "jpeg": encoded(PICTURE, "JPEG"),
    "jpeg grey": encoded(PICTURE.convert("L"), "JPEG"),
    "jpeg cmyk": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "png": encoded(PICTURE, "PNG"),
    "png 1 bit": encoded(PICTURE.convert("1"), "PNG"),
    "png palette": encoded(PICTURE.convert("P"), "PNG", transparency=bytes(range(200))),
    "png transparent": encoded(PICTURE.convert("RGBA"), "PNG"),
    "png 16 bits": encoded(PICTURE.convert("L").convert("I;16"), "PNG"),
    "webp": encoded(PICTURE, "WEBP"),
    "bmp": encoded(PICTURE, "BMP"),
    "gif": encoded(PICTURE.convert("P"), "GIF", transparency=3),
    "tiff": encoded(PICTURE, "TIFF"),
    "tiff packed": encoded(PICTURE.convert("RGBA"), "TIFF", compression="tiff_lzw"),
}
LAB = encoded(Image.new("LAB", (WIDTH, HEIGHT)), "TIFF")


def png_of_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with valid checksums and any chunks."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        parts += [struct.pack(">I", len(data)), name, data, checksum]
    return b"".join(parts)


def png_header(width: int, height: int, bits: int, colour_type: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)


def png_rows(*rows: bytes) -> tuple[bytes, bytes]:
    return b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))


def failure(data: bytes, spec: ImageSpec = SPEC, **options: int) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        decode(data, spec, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{caught.value.code}: ")
    return caught.value


def accepts_or_fails(data: bytes, spec: ImageSpec) -> None:
    """Check that any bytes give a valid image or an ImageFailure, and no other exception or warning."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            image = decode(data, spec, max_pixels=1_000_000)
        except ImageFailure:
            return
        finally:
            assert not warned
    assert image.pixels.shape == (spec.height, spec.width, spec.channels)
    assert image.pixels.dtype == np.uint8
    assert min(image.width, image.height) > 0


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_decoded_by_its_content(form: str) -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT), (10, 200, 90))
    result = decode(encoded(image, form), SPEC)
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    np.testing.assert_allclose(result.pixels, np.full((HEIGHT, WIDTH, 3), (10, 200, 90)), atol=3)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_exact_pixels(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(decode(encoded(PICTURE, form, **options), SPEC).pixels, colourful())


def test_no_bytes() -> None:
    assert failure(b"").code == FailureCode.EMPTY


@pytest.mark.parametrize("data", [b"\0", b"hello, I am no image", b"<svg/>", b"%PDF-1.7", bytes(10_000)])
def test_a_file_that_is_not_an_image(data: bytes) -> None:
    assert failure(data).code == FailureCode.NOT_AN_IMAGE


@pytest.mark.parametrize("form", ["ICO", "PPM", "TGA", "PCX"])
def test_a_format_that_is_not_listed(form: str) -> None:
    assert failure(encoded(PICTURE, form)).code == FailureCode.NOT_AN_IMAGE


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_truncated_file(form: str) -> None:
    data = encoded(Image.fromarray(colourful(64, 64)), form)
    assert failure(data[: len(data) // 2]).code == FailureCode.CORRUPT


@pytest.mark.parametrize("name", ["jpeg", "png"])
def test_every_prefix_of_a_file(name: str) -> None:
    data = VALID[name]
    for length in range(len(data)):
        accepts_or_fails(data[:length], SPEC)
    assert decode(data, SPEC).pixels.shape == (HEIGHT, WIDTH, 3)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), start=st.sampled_from([b"", *(data[:12] for data in VALID.values())]))
def test_random_bytes(data: bytes, start: bytes) -> None:
    accepts_or_fails(start + data, SPEC)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(VALID)),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.none() | st.integers(1, 10_000),
    spec=st.sampled_from(SPECS),
)
def test_damaged_bytes_of_valid_files(
    name: str, changes: list[tuple[int, int]], cut: int | None, spec: ImageSpec
) -> None:
    data = bytearray(VALID[name])
    for position, value in changes:
        data[position % len(data)] = value
    accepts_or_fails(bytes(data[: cut and cut % len(data)]), spec)


@settings(max_examples=200, deadline=None)
@given(
    bits=st.sampled_from([1, 2, 4, 8, 16]),
    colour_type=st.sampled_from([0, 2, 3, 4, 6]),
    chunks=st.lists(
        st.tuples(
            st.sampled_from([b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"gAMA", b"zTXt", b"iTXt", b"acTL"]),
            st.binary(max_size=40),
        ),
        max_size=3,
    ),
    spec=st.sampled_from(SPECS),
)
def test_png_chunks_with_any_content_and_a_valid_checksum(
    bits: int, colour_type: int, chunks: list[tuple[bytes, bytes]], spec: ImageSpec
) -> None:
    header = png_header(3, 2, bits, colour_type)
    row = bytes(range(-(-3 * bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type] // 8)))
    accepts_or_fails(png_of_chunks(header, *chunks, png_rows(row, row), (b"IEND", b"")), spec)


@pytest.mark.parametrize("name", sorted(VALID))
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.resize}-{spec.channels}")
def test_every_kind_of_image_decodes_to_every_tensor(name: str, spec: ImageSpec) -> None:
    result = decode(VALID[name], spec)
    assert result.pixels.shape == (spec.height, spec.width, spec.channels)
    assert (result.width, result.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.resize}-{spec.channels}")
def test_a_colour_space_that_cannot_be_converted_is_a_failure(spec: ImageSpec) -> None:
    accepts_or_fails(LAB, spec)


def test_a_palette_image_without_its_palette_is_a_failure() -> None:
    data = png_of_chunks(png_header(2, 1, 8, 3), png_rows(b"\0\1"), (b"IEND", b""))
    assert failure(data).code in (FailureCode.CORRUPT, FailureCode.UNSUPPORTED)


def rotated(orientation: int, upright: Pixels) -> Pixels:
    """The pixels as a camera stores them; the inverse of the table in the EXIF standard."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_upright_pixels(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    stored = Image.fromarray(np.ascontiguousarray(rotated(orientation, colourful())))
    assert stored.size == ((WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH))
    result = decode(encoded(stored, form, exif=exif, **options), SPEC)
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    assert np.array_equal(result.pixels, colourful())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg(orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 250  # The top left quarter is bright.
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(rotated(orientation, upright)))
    result = decode(encoded(stored, "JPEG", exif=exif), ImageSpec(height=16, width=32, channels=3))
    assert (result.width, result.height) == (32, 16)
    np.testing.assert_allclose(result.pixels, upright, atol=10)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_undefined_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(encoded(PICTURE, "PNG", exif=exif), SPEC).pixels, colourful())


@pytest.mark.parametrize("exif", [b"MM\0*\xff\xff\xff\xff and no more", b"no TIFF header", b""])
def test_broken_exif_is_ignored(exif: bytes) -> None:
    data = encoded(PICTURE, "PNG", exif=b"Exif\0\0" + exif)
    assert np.array_equal(decode(data, SPEC).pixels, colourful())


def test_16_bit_grey_keeps_the_upper_byte() -> None:
    samples = np.array([[0x0000, 0x00FF, 0x0100], [0x1234, 0x80FF, 0xFFFF]], np.uint16)
    result = decode(encoded(Image.fromarray(samples), "PNG"), ImageSpec(height=2, width=3, channels=1))
    assert result.pixels[..., 0].tolist() == [[0x00, 0x00, 0x01], [0x12, 0x80, 0xFF]]


def test_16_bit_colour_keeps_the_upper_byte() -> None:
    row = struct.pack(">6H", 0x00FF, 0x1234, 0xFFFF, 0x80FF, 0x7F00, 0x0100)
    data = png_of_chunks(png_header(2, 1, 16, 2), png_rows(row), (b"IEND", b""))
    result = decode(data, ImageSpec(height=1, width=2, channels=3))
    assert result.pixels.tolist() == [[[0x00, 0x12, 0xFF], [0x80, 0x7F, 0x01]]]


def test_a_16_bit_tiff_keeps_the_upper_byte_in_either_byte_order() -> None:
    samples = np.array([[0x12FF, 0xFE00]], np.uint16)
    for mode in ("I;16", "I;16B"):
        stored = Image.frombytes(mode, (2, 1), samples.astype("<u2" if mode == "I;16" else ">u2").tobytes())
        result = decode(encoded(stored, "TIFF"), ImageSpec(height=1, width=2, channels=1))
        assert result.pixels[..., 0].tolist() == [[0x12, 0xFE]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_defined_range_are_refused(mode: str) -> None:
    assert failure(encoded(Image.new(mode, (4, 4)), "TIFF")).code == FailureCode.UNSUPPORTED


@pytest.mark.parametrize("background", [0, 100, 255])
def test_palette_transparency_is_composited_over_the_background(background: int) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    spec = ImageSpec(height=1, width=3, channels=3, background=background)
    result = decode(encoded(image, "PNG", transparency=bytes([255, 0, 255])), spec)
    assert result.pixels.tolist() == [[[255, 0, 0], [background] * 3, [0, 0, 255]]]


@pytest.mark.parametrize("background", [0, 100, 255])
def test_rgba_is_composited_over_the_background(background: int) -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(10, 20, 30, 255), (10, 20, 30, 0), (200, 100, 0, 128)])
    spec = ImageSpec(height=1, width=3, channels=3, background=background)
    result = decode(encoded(image, "PNG"), spec).pixels
    assert result[0, 0].tolist() == [10, 20, 30]
    assert result[0, 1].tolist() == [background] * 3
    blended = [round((value * 128 + background * 127) / 255) for value in (200, 100, 0)]
    np.testing.assert_allclose(result[0, 2], blended, atol=1)


def test_grey_with_alpha_is_composited_over_the_background() -> None:
    image = Image.new("LA", (2, 1))
    image.putdata([(40, 255), (40, 0)])
    result = decode(encoded(image, "PNG"), ImageSpec(height=1, width=2, channels=1, background=7))
    assert result.pixels[..., 0].tolist() == [[40, 7]]


def test_a_transparent_grey_level_or_colour() -> None:
    grey = Image.new("L", (2, 1))
    grey.putdata([40, 50])
    spec = ImageSpec(height=1, width=2, channels=1, background=7)
    assert decode(encoded(grey, "PNG", transparency=50), spec).pixels[..., 0].tolist() == [[40, 7]]
    colour = Image.new("RGB", (2, 1))
    colour.putdata([(1, 2, 3), (4, 5, 6)])
    spec = ImageSpec(height=1, width=2, channels=3, background=7)
    result = decode(encoded(colour, "PNG", transparency=(1, 2, 3)), spec)
    assert result.pixels.tolist() == [[[7, 7, 7], [4, 5, 6]]]


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # Magenta and yellow give red.
    result = decode(encoded(image, "JPEG", quality=95), ImageSpec(height=16, width=16, channels=3))
    np.testing.assert_allclose(result.pixels, np.full((16, 16, 3), (255, 0, 0)), atol=4)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(form: str) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    data = encoded(first, form, save_all=True, append_images=[second])
    result = decode(data, ImageSpec(height=8, width=8, channels=3))
    np.testing.assert_allclose(result.pixels, np.full((8, 8, 3), (255, 0, 0)), atol=3)


def test_the_pixel_limit_needs_only_the_header() -> None:
    bomb = png_of_chunks(png_header(60_000, 60_000, 8, 2), png_rows(b"\0"), (b"IEND", b""))
    assert len(bomb) < 100
    problem = failure(bomb)
    assert problem.code == FailureCode.TOO_MANY_PIXELS
    assert "60000 x 60000" in problem.reason


def test_the_frame_of_a_gif_cannot_bypass_the_pixel_limit() -> None:
    data = bytearray(VALID["gif"])
    frame = data.index(b"\x2c\0\0\0\0")  # The image descriptor, whose size may exceed that of the screen.
    data[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    assert failure(bytes(data)).code == FailureCode.TOO_MANY_PIXELS


def test_the_pixel_limit_is_inclusive() -> None:
    data = VALID["png"]
    assert decode(data, SPEC, max_pixels=WIDTH * HEIGHT).width == WIDTH
    assert failure(data, max_pixels=WIDTH * HEIGHT - 1).code == FailureCode.TOO_MANY_PIXELS


def bars() -> bytes:
    """An image of 12 x 4 pixels: a red, a green and a blue square."""
    image = np.zeros((4, 12, 3), np.uint8)
    for square in range(3):
        image[:, 4 * square : 4 * square + 4, square] = 255
    return encode_png(image)


def test_stretch_keeps_everything() -> None:
    result = decode(bars(), ImageSpec(height=12, width=12, channels=3, resize="stretch")).pixels
    assert (result == result[:1]).all()
    for column, square in ((1, 0), (6, 1), (10, 2)):
        assert result[0, column].tolist() == [255 * (channel == square) for channel in range(3)]


def test_crop_keeps_the_centre() -> None:
    result = decode(bars(), ImageSpec(height=4, width=4, channels=3, resize="crop")).pixels
    assert (result == (0, 255, 0)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_pad_adds_bars_of_background(channels: int) -> None:
    spec = ImageSpec.model_validate(
        {"height": 12, "width": 12, "channels": channels, "resize": "pad", "background": 99}
    )
    result = decode(bars(), spec).pixels
    plain = decode(bars(), spec.model_copy(update={"height": 4})).pixels
    assert (result[:4] == 99).all()
    assert (result[8:] == 99).all()
    assert np.array_equal(result[4:8], plain)


@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (1, 1)])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.resize}-{spec.channels}")
def test_the_thinnest_images(size: tuple[int, int], spec: ImageSpec) -> None:
    result = decode(encoded(Image.new("RGB", size, (50, 50, 50)), "PNG"), spec)
    assert result.pixels.shape == (spec.height, spec.width, spec.channels)
    assert (result.width, result.height) == size


def test_grey_follows_the_documented_formula() -> None:
    red, green, blue = (colourful()[..., channel].astype(np.int64) for channel in range(3))
    expected = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    assert np.array_equal(decode(VALID["png"], GREY).pixels[..., 0], expected)


def test_grey_as_three_channels_repeats_it() -> None:
    grey = decode(VALID["png"], GREY).pixels
    assert np.array_equal(decode(encode_png(grey), SPEC).pixels, np.repeat(grey, 3, axis=2))


def arrays() -> st.SearchStrategy[Pixels]:
    shapes = st.tuples(
        st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1)
    )
    return shapes.map(
        lambda drawn: np.random.default_rng(drawn[3]).integers(0, 256, drawn[:3], dtype=np.uint8)
    )


@settings(max_examples=60, deadline=None)
@given(array=arrays())
def test_an_encoded_png_decodes_to_the_same_pixels(array: Pixels) -> None:
    height, width, channels = array.shape
    spec = ImageSpec.model_validate({"height": height, "width": width, "channels": channels})
    result = decode(encode_png(array), spec)
    assert np.array_equal(result.pixels, array)
    assert (result.width, result.height) == (width, height)


@settings(max_examples=100, deadline=None)
@given(array=arrays(), spec=st.sampled_from(SPECS))
def test_fit_array_matches_decode(array: Pixels, spec: ImageSpec) -> None:
    assert np.array_equal(fit_array(array, spec), decode(encode_png(array), spec).pixels)


def test_fit_array_accepts_a_grey_image_without_a_channel_axis() -> None:
    grey = colourful()[..., 0]
    assert np.array_equal(fit_array(grey, GREY), grey[..., np.newaxis])


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from((1, 3)),
    resize=st.sampled_from(("stretch", "crop", "pad")),
    mode=st.sampled_from(("RGB", "L", "CMYK")),
    orientation=st.integers(1, 8),
    options=st.fixed_dictionaries(
        {
            "quality": st.integers(20, 100),
            "subsampling": st.sampled_from((0, 1, 2)),
            "progressive": st.booleans(),
        }
    ),
)
def test_both_decoders_give_the_same_jpeg_pixels(
    size: tuple[int, int],
    target: tuple[int, int],
    channels: Any,
    resize: Any,
    mode: str,
    orientation: int,
    options: dict[str, Any],
) -> None:
    image = Image.fromarray(colourful(*size)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", exif=exif, **options)
    spec = ImageSpec(height=target[0], width=target[1], channels=channels, resize=resize)
    fast, slow = decode(data, spec), decode_with_pillow(data, spec)
    assert np.array_equal(fast.pixels, slow.pixels)
    assert (fast.width, fast.height) == (slow.width, slow.height)


def test_a_large_jpeg_is_downscaled_during_decoding_and_looks_the_same() -> None:
    ramp = np.add.outer(np.arange(480), np.arange(640)) / 1118 * 255
    data = encoded(Image.fromarray(np.repeat(ramp[..., None], 3, 2).astype(np.uint8)), "JPEG", quality=95)
    spec = ImageSpec(height=60, width=80, channels=3)
    whole = np.asarray(Image.open(io.BytesIO(data)).resize((80, 60), Image.Resampling.BILINEAR))
    assert np.abs(decode(data, spec).pixels.astype(int) - whole).max() <= 4


def test_a_thumbnail_keeps_the_shape_and_is_never_enlarged() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (200, 100)), "JPEG", exif=exif)
    assert Image.open(io.BytesIO(encode_thumbnail(data, 50))).size == (25, 50)
    assert Image.open(io.BytesIO(encode_thumbnail(VALID["png"], 50))).size == (WIDTH, HEIGHT)


def test_the_header_is_described_as_stored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = describe_file(encoded(Image.new("CMYK", (20, 10)), "JPEG", exif=exif))
    assert facts == FileFacts("JPEG", "CMYK", 20, 10, 6)


@pytest.mark.parametrize("name", ["jpeg", "png", "png transparent", "bmp", "gif", "tiff"])
def test_the_header_is_described_even_if_the_pixels_are_damaged(name: str) -> None:
    data = VALID[name][:-40] if name != "tiff" else VALID[name].replace(b"\x11\x01\x04\0", b"\x11\x01\x04\1")
    assert failure(data).code == FailureCode.CORRUPT
    facts = describe_file(data)
    assert (facts.width, facts.height) == (WIDTH, HEIGHT)
    assert failure(data, max_pixels=1).code == FailureCode.TOO_MANY_PIXELS
