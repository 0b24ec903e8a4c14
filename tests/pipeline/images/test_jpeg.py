"""Truncated or damaged JPEG files are never scored, even if decoders fill in missing pixels."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
import pytest
import simplejpeg
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

END = b"\xff\xd9"
SIZE = 100
SMALL = ImageSpec(height=12, width=12, channels=3)
FULL = ImageSpec(height=SIZE, width=SIZE, channels=3)
_MARKER = re.compile(rb"\xff[^\x00\xff]")


def noise(height: int = SIZE, width: int = SIZE) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def encoded(mode: str = "RGB", picture: Pixels | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(noise() if picture is None else picture)
    image.convert(mode).save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


def failure(data: bytes, spec: ImageSpec = SMALL) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        decode(data, spec)
    return caught.value


def start_of_scan(data: bytes) -> int:
    at = data.index(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4])


def kinds() -> Iterator[tuple[str, dict[str, Any]]]:
    for mode, progressive, restarts in product(("L", "RGB", "CMYK"), (False, True), (0, 2)):
        for subsampling in (0, 2) if mode == "RGB" else (0,):
            options = {"progressive": progressive, "subsampling": subsampling}
            yield mode, options | ({"restart_marker_blocks": restarts} if restarts else {})


KINDS = list(kinds())


@pytest.mark.parametrize(("mode", "options"), KINDS)
@pytest.mark.parametrize("spec", [SMALL, FULL], ids=["shrunk", "full"])
def test_a_truncated_file_is_corrupt_even_with_its_end_marker(
    mode: str, options: dict[str, Any], spec: ImageSpec
) -> None:
    data = encoded(mode, **options)
    decode(data, spec)
    start = start_of_scan(data)
    for part in range(40):
        cut = start + (len(data) - 2 - start) * part // 40
        assert failure(data[:cut] + END, spec).code == FailureCode.CORRUPT, cut
        assert failure(data[:cut] + END + b"bytes after the end", spec).code == FailureCode.CORRUPT, cut
        assert failure(data[:cut], spec).code == FailureCode.CORRUPT, cut
    for found in _MARKER.finditer(data, start, len(data) - 2):  # Restart markers, and further scans.
        assert failure(data[: found.start()] + END, spec).code == FailureCode.CORRUPT, found


@pytest.mark.parametrize(("mode", "options"), KINDS)
def test_extraneous_bytes_are_harmless_and_hide_no_damage(mode: str, options: dict[str, Any]) -> None:
    data = encoded(mode, **options)
    whole = decode(data, FULL).pixels
    start = start_of_scan(data)
    places = [found.start() for found in _MARKER.finditer(data, start)]
    for place in {places[0], places[len(places) // 2], places[-1]}:
        padded = data[:place] + b"bytes that are none of the image's" + data[place:]
        assert np.array_equal(decode(padded, FULL).pixels, whole)
        assert np.array_equal(decode_with_pillow(padded, FULL).pixels, whole)
        assert np.array_equal(decode(padded + b"after the end", FULL).pixels, whole)
        # The first warning is about the harmless bytes, before the truncation.
        if place != places[-1]:
            cut = len(padded) - 2 - (len(data) - place) // 3
            assert failure(padded[:cut] + END).code == FailureCode.CORRUPT
    in_header = data[:20] + b"abcdef" + data[20:] if mode != "CMYK" else data
    assert np.array_equal(decode(in_header, FULL).pixels, whole)


def test_truncation_is_found_after_any_extraneous_bytes() -> None:
    data = encoded(restart_marker_blocks=4)
    restarts = [found.start() for found in _MARKER.finditer(data, start_of_scan(data))][:-1]
    for first, second in ((1, 2), (3, 9), (5, 6)):
        padded = (
            data[: restarts[first]]
            + b"\0" * 40
            + data[restarts[first] : restarts[second]]
            + b"\1" * 30
            + data[restarts[second] :]
        )
        assert np.array_equal(decode(padded, FULL).pixels, decode(data, FULL).pixels)
        assert failure(padded[:-200] + END).code == FailureCode.CORRUPT


@pytest.mark.parametrize("filler", [b"\0", b"\xaa", b"\xff"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_a_filled_gap_is_corrupt_but_padding_is_not(filler: bytes, progressive: bool, part: float) -> None:
    data = encoded(progressive=progressive)
    cut = int(len(data) * part)
    assert failure(data[:cut] + filler * (len(data) - cut - 2) + END).code == FailureCode.CORRUPT
    assert decode(data[:-2] + filler * 500 + END, SMALL).width == SIZE


@pytest.mark.parametrize("subsampling", [1, 2])
def test_cmyk_with_unusual_subsampling_is_checked(subsampling: int) -> None:
    data = encoded("CMYK", subsampling=subsampling)
    assert decode(data, FULL).width == SIZE
    start = start_of_scan(data)
    for part in range(40):
        cut = start + (len(data) - 2 - start) * part // 40
        assert failure(data[:cut] + END).code == FailureCode.CORRUPT, cut


def test_a_missing_restart_marker_is_corrupt() -> None:
    data = encoded(restart_marker_blocks=2)
    place = data.index(b"\xff\xd2", start_of_scan(data))
    assert failure(data[:place] + data[place + 2 :]).code == FailureCode.CORRUPT


def patched(data: bytes, marker: bytes, offset: int, value: bytes) -> bytes:
    """The file with bytes replaced at an offset after a marker."""
    at = data.index(marker) + offset
    return data[:at] + value + data[at + len(value) :]


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "another version of JFIF": lambda data: patched(data, b"JFIF\0", 5, b"\x07"),
    "odd limits of the scan": lambda data: (
        data[: start_of_scan(data) - 3] + b"\0\0\0" + data[start_of_scan(data) :]
    ),
    "a comment": lambda data: data[:2] + b"\xff\xfe\0\x06text" + data[2:],
    "a broken EXIF block": lambda data: data[:2] + b"\xff\xe1\0\x0cExif\0\0II*\0"[:14] + data[2:],
    "a thumbnail cut short": lambda data: (
        data[:2] + b"\xff\xe1\x01\0Exif\0\0" + encoded(picture=noise(16, 16))[:248] + data[2:]
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_harmless_irregularities_are_ignored(
    name: str, mode: str, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded(mode)
    odd = HARMLESS[name](data)
    assert np.array_equal(decode(odd, FULL).pixels, decode(data, FULL).pixels)
    assert np.array_equal(decode_with_pillow(odd, FULL).pixels, decode(data, FULL).pixels)
    assert describe_file(odd).width == SIZE
    start = start_of_scan(odd)
    assert failure(odd[: (start + len(odd)) // 2] + END).code == FailureCode.CORRUPT
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("frame", [0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
def test_unsupported_kinds_of_jpeg(frame: int) -> None:
    problem = failure(patched(encoded(), b"\xff\xc0", 1, bytes((frame,))))
    assert problem.code == FailureCode.UNSUPPORTED


def test_other_depths_and_a_height_in_another_place_are_not_supported() -> None:
    extended = patched(encoded(), b"\xff\xc0", 1, b"\xc1")
    assert decode(extended, SMALL).width == SIZE
    assert failure(patched(extended, b"\xff\xc1", 4, b"\x0c")).code == FailureCode.UNSUPPORTED
    assert failure(patched(encoded(), b"\xff\xc0", 5, b"\0\0")).code == FailureCode.UNSUPPORTED
    assert describe_file(patched(extended, b"\xff\xc1", 4, b"\x0c")).width == SIZE


def test_any_subsampling_gives_an_image_or_a_failure() -> None:
    data = encoded(subsampling=0)
    for factors in product(range(5), range(5), (0x11, 0x12, 0x21, 0x22, 0x41, 0x14, 0x00)):
        for spec in (SMALL, FULL):
            sampling = bytes((factors[0] << 4 | factors[1],))
            damaged = patched(patched(data, b"\xff\xc0", 11, sampling), b"\xff\xc0", 14, bytes(factors[2:]))
            with suppress(ImageFailure):
                assert decode(damaged, spec).pixels.shape == (spec.height, spec.width, 3)


def test_true_441_subsampling_is_decoded() -> None:
    flat = np.full((32, 32, 3), (200, 40, 90), np.uint8)
    wide = simplejpeg.encode_jpeg(flat, quality=95, colorsubsampling="411")
    # If all blocks are equal, four blocks in a row can be declared as a column.
    high = patched(wide, b"\xff\xc0", 11, b"\x14")
    assert high != wide
    got = decode(high, ImageSpec(height=32, width=32, channels=3)).pixels
    assert np.abs(got.astype(int) - flat).max() <= 3
    assert failure(high[: start_of_scan(high) + 8] + END).code == FailureCode.CORRUPT


@pytest.mark.parametrize("progressive", [False, True])
def test_files_that_pillow_refuses_are_never_decoded(progressive: bool) -> None:
    data = encoded(picture=noise(40, 40), progressive=progressive)
    generator = np.random.default_rng(0)
    refused = 0
    for bit in generator.choice(8 * len(data), 300, replace=False):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            Image.open(io.BytesIO(bytes(damaged)), formats=("JPEG",)).load()
        except Exception:  # noqa: BLE001  # A dozen types.
            refused += 1
            failure(bytes(damaged))
            continue
        try:
            got = decode(bytes(damaged), SMALL)
        except ImageFailure:
            continue
        assert got.pixels.shape == (12, 12, 3)
    assert refused > 0


def test_a_segment_that_is_longer_than_the_file() -> None:
    data = encoded()
    assert failure(patched(data, b"\xff\xc0", 2, b"\xff\xff")).code == FailureCode.CORRUPT
    for length in range(3, len(data), 7):
        failure(data[:length])
