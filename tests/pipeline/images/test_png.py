"""PNG files: every depth and kind of transparency, damage, and metadata that must not use resources."""

import io
import zlib
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import (
    FailureCode,
    ImageFailure,
    Pixels,
    decode,
    decode_with_pillow,
    describe_file,
)
from tests.pipeline.images.other_readers import read_with_opencv
from tests.pipeline.images.png_files import (
    COLOR,
    COLOR_ALPHA,
    GREY,
    GREY_ALPHA,
    PALETTE,
    SAMPLES,
    SIGNATURE,
    Samples,
    chunk,
    header,
    pixels,
    png,
)

HEIGHT, WIDTH = 13, 22
DEPTHS = [
    *((GREY, depth) for depth in (1, 2, 4, 8, 16)),
    *((color, depth) for color in (COLOR, GREY_ALPHA, COLOR_ALPHA) for depth in (8, 16)),
]
BACKGROUND = 99


def spec_of(channels: Any) -> ImageSpec:
    return ImageSpec(height=HEIGHT, width=WIDTH, channels=channels, background=BACKGROUND)


def random_samples(depth: int, count: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(0, 1 << depth, (HEIGHT, WIDTH, count)).astype(np.uint16)


def in_8_bits(samples: Samples, depth: int) -> Pixels:
    scaled = samples >> 8 if depth == 16 else samples * (255 // ((1 << depth) - 1))
    return scaled.astype(np.uint8)


def failure(data: bytes) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        decode(data, spec_of(3))
    return caught.value


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color", "depth"), DEPTHS)
def test_every_depth_shows_its_samples(color: int, depth: int, interlaced: bool) -> None:
    samples = random_samples(depth, SAMPLES[color])
    most, colors = (1 << depth) - 1, 1 if color in (GREY, GREY_ALPHA) else 3
    if color in (GREY_ALPHA, COLOR_ALPHA):
        samples[..., -1] = np.where(random_samples(1, 1)[..., 0], most, 0)
    data = png(samples, depth, color, interlaced=interlaced)
    expected = in_8_bits(samples[..., :colors], depth)
    if samples.shape[2] > colors:
        expected = np.where(samples[..., -1:] > 0, expected, BACKGROUND)
    assert np.array_equal(decode(data, spec_of(colors)).pixels, expected)
    if color in (GREY, COLOR):  # The samples according to another reader.
        read = read_with_opencv(data).reshape(samples.shape)
        scale = 255 // most if depth < 8 else 1
        assert np.array_equal(read[..., ::-1] if colors == 3 else read, samples * scale)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color", "depth"), [pair for pair in DEPTHS if pair[0] in (GREY, COLOR)])
def test_one_level_is_transparent(color: int, depth: int, interlaced: bool) -> None:
    count = SAMPLES[color]
    samples = random_samples(depth, count)
    clear = samples[4, 5].copy()
    samples[2] = clear
    # The adjacent level is not transparent, even if the difference is lost in 8 bits.
    samples[3] = clear
    samples[3, :, -1] ^= 1
    transparency = chunk(b"tRNS", clear.astype(">u2").tobytes())
    data = png(samples, depth, color, transparency, interlaced=interlaced)
    is_clear = (samples == clear).all(axis=2, keepdims=True)
    expected = np.where(is_clear, BACKGROUND, in_8_bits(samples, depth))
    assert np.array_equal(decode(data, spec_of(count)).pixels, expected)
    if color == COLOR:
        read = read_with_opencv(data)
        assert np.array_equal(read[..., 3] == 0, is_clear[..., 0])


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("known", [0, 1, 2])
def test_palettes_with_some_transparent_colors(depth: int, known: int) -> None:
    indices = random_samples(depth, 1)
    table = np.random.default_rng(1).integers(0, 256, (1 << depth, 3), np.uint8)
    alpha = np.array([0, 255], np.uint8)[:known]
    extra = [chunk(b"PLTE", table.tobytes())] + ([chunk(b"tRNS", alpha.tobytes())] if known else [])
    shown = table[indices[..., 0]]
    expected = np.where(indices == 0, BACKGROUND, shown) if known else shown
    assert np.array_equal(decode(png(indices, depth, PALETTE, *extra), spec_of(3)).pixels, expected)


def test_alpha_that_is_zero_everywhere_is_transparent() -> None:
    samples = random_samples(8, 4)
    samples[..., 3] = 0
    assert (decode(png(samples, 8, COLOR_ALPHA), spec_of(3)).pixels == BACKGROUND).all()


PICTURE = random_samples(8, 3)
SHOWN = PICTURE.astype(np.uint8)
TWO_MEGABYTES = zlib.compress(b"A" * 2_000_000)
BOMB = zlib.compress(bytes(100 << 20), 9)
METADATA = {
    "wrong check sum": chunk(b"tEXt", b"Comment\0hello", check_sum=1),
    "text": chunk(b"tEXt", b"Comment\0" + b"A" * 2_000_000),
    "compressed text": chunk(b"zTXt", b"Comment\0\0" + TWO_MEGABYTES),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + TWO_MEGABYTES),
    "many texts": b"".join(chunk(b"zTXt", b"k%d\0\0" % n + TWO_MEGABYTES) for n in range(70)),
    "text bomb": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "profile": chunk(b"iCCP", b"x\0\0" + BOMB),
    "broken profile": chunk(b"iCCP", b"x"),
    "profile of another compression": chunk(b"iCCP", b"x\0\7" + TWO_MEGABYTES),
    "short gamma": chunk(b"gAMA", b"\0"),
    "animation without frames": chunk(b"acTL", bytes(8)),
    "frame of another size": chunk(b"acTL", b"\0\0\0\1" * 2) + chunk(b"fcTL", b"\xff" * 26),
    "unknown": chunk(b"abCd", b"anything"),
    "broken EXIF": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff and no more"),
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("place", ["before", "after"])
def test_metadata_never_causes_a_failure(
    name: str, place: str, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    data = png(PICTURE, 8, COLOR, *([METADATA[name]] if place == "before" else []))
    if place == "after":
        data = data[:-12] + METADATA[name] + data[-12:]
    assert np.array_equal(decode(data, spec_of(3)).pixels, SHOWN)
    assert np.array_equal(decode_with_pillow(data, spec_of(3)).pixels, SHOWN)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_an_orientation_after_the_pixels_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    data = png(PICTURE, 8, COLOR)
    assert np.array_equal(decode(data[:-12] + turned + data[-12:], spec_of(3)).pixels, SHOWN[::-1, ::-1])
    assert describe_file(data[:-12] + turned + data[-12:]).orientation == 3


HEAD, BODY, END = header(WIDTH, HEIGHT, 8, COLOR), pixels(PICTURE, 8), chunk(b"IEND", b"")
TEXT = chunk(b"tEXt", b"Comment\0hello")
RAW = zlib.compress(b"".join(b"\0" + bytes(row) for row in SHOWN))
WRONG: dict[str, tuple[bytes, FailureCode]] = {
    "check sum of the header": (chunk(b"IHDR", HEAD[8:-4], 1) + BODY + END, FailureCode.CORRUPT),
    "check sum of the pixels": (HEAD + chunk(b"IDAT", RAW, 1) + END, FailureCode.CORRUPT),
    "check sum of the transparency": (HEAD + chunk(b"tRNS", bytes(6), 1) + BODY + END, FailureCode.CORRUPT),
    "check sum of the EXIF": (HEAD + chunk(b"eXIf", b"MM", 1) + BODY + END, FailureCode.CORRUPT),
    "check sum of the end": (HEAD + BODY + chunk(b"IEND", b"", 1), FailureCode.CORRUPT),
    "text that swallows pixels": (
        HEAD + (len(TEXT) - 12 + len(BODY)).to_bytes(4) + TEXT[4:] + BODY + BODY + END,
        FailureCode.CORRUPT,
    ),
    "half of the pixels": (HEAD + chunk(b"IDAT", RAW[: len(RAW) // 2]) + END, FailureCode.CORRUPT),
    "no pixels": (HEAD + END, FailureCode.CORRUPT),
    "no header": (BODY + END, FailureCode.CORRUPT),
    "two headers": (HEAD + HEAD + BODY + END, FailureCode.CORRUPT),
    "text within the pixels": (
        HEAD + chunk(b"IDAT", RAW[:50]) + TEXT + chunk(b"IDAT", RAW[50:]) + END,
        FailureCode.CORRUPT,
    ),
    "no palette": (header(WIDTH, HEIGHT, 8, PALETTE) + BODY + END, FailureCode.CORRUPT),
    "a depth that is none": (header(WIDTH, HEIGHT, 3, GREY) + BODY + END, FailureCode.CORRUPT),
    "no height": (header(WIDTH, 0, 8, COLOR) + BODY + END, FailureCode.CORRUPT),
    "a chunk that must be known": (
        chunk(b"CgBI", bytes(4)) + HEAD + BODY + END,
        FailureCode.UNSUPPORTED,
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_damaged_files_are_refused_with_the_reason(name: str) -> None:
    data, code = WRONG[name]
    assert failure(SIGNATURE + data).code == code


def test_the_end_chunk_may_be_missing_but_not_the_pixels() -> None:
    data = SIGNATURE + HEAD + BODY
    assert np.array_equal(decode(data, spec_of(3)).pixels, SHOWN)
    assert np.array_equal(decode(data + END[:5], spec_of(3)).pixels, SHOWN)
    for length in range(1, len(data)):
        failure(data[:length])


def pillow_loads(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data), formats=("PNG",)).load()
    except Exception:  # noqa: BLE001  # A dozen types.
        return False
    return True


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["plain", "color", "palette"])
def test_no_flipped_bit_changes_a_pixel_silently(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    between = [TEXT, chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]
    if kind == "plain":  # Without EXIF, a reader that looks for it decodes the complete file.
        between = []
    if kind == "palette":
        table = np.random.default_rng(1).integers(0, 256, (16, 3), np.uint8)
        between += [chunk(b"PLTE", table.tobytes()), chunk(b"tRNS", b"\x80\0\xff\x10")]
        data = png(random_samples(4, 1), 4, PALETTE, *between, TEXT)
    else:
        data = png(PICTURE, 8, COLOR, *between, TEXT)
    whole = decode(data, spec_of(3)).pixels
    generator = np.random.default_rng(0)
    few = generator.choice(8 * len(data), 300, replace=False)
    bits = range(8 * len(data)) if kind == "palette" else few
    scored = 0
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            got = decode(bytes(damaged), spec_of(3)).pixels
        except ImageFailure:
            continue
        scored += 1
        assert np.array_equal(got, whole), bit
        # Among files that we decode, Pillow refuses only those with a wrong checksum of a text chunk.
        in_text = [range(at, at + len(TEXT)) for at in range(len(data)) if data.startswith(TEXT, at)]
        assert any(bit // 8 in place for place in in_text) or pillow_loads(bytes(damaged)), bit
    assert scored > 0


@pytest.mark.parametrize(("first", "second"), list(product([b"", TEXT, METADATA["XMP"]], repeat=2)))
def test_other_chunks_do_not_change_the_pixels(first: bytes, second: bytes) -> None:
    halves = chunk(b"IDAT", RAW[:50]) + chunk(b"IDAT", b"") + chunk(b"IDAT", RAW[50:])
    data = SIGNATURE + HEAD + first + halves + second + END + b"bytes after the end"
    assert np.array_equal(decode(data, spec_of(3)).pixels, SHOWN)


def test_a_million_chunks_are_read_in_linear_time() -> None:
    samples = random_samples(8, 1)
    data = png(samples, 8, GREY)
    at = data.index(b"IDAT") - 4
    # If the time per chunk grew with the number of chunks before it, this would take hours.
    many = data[:at] + chunk(b"abCd", b"") * 1_000_000 + data[at:]
    assert np.array_equal(decode(many, spec_of(1)).pixels, samples.astype(np.uint8))
