"""Any exception or allocation of an image becomes a failure of that image, and the process survives."""

import io
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding import guard as guard_module
from pixelmill.pipeline.decoding.costs import require_affordable
from pixelmill.pipeline.decoding.guard import decode_guarded, guard
from pixelmill.pipeline.decoding.memory import MEMORY_LIMIT
from pixelmill.pipeline.images import FailureCode, ImageFailure, decode
from tests.pipeline.decoding.bombs import jpeg_with_scans, photograph, png, tiff

SPEC = ImageSpec(height=28, width=28, channels=3)
MEGABYTE = 1 << 20


def failure_of(data: bytes, limits: DecodingLimits) -> ImageFailure:
    with MEMORY_LIMIT.allowing(limits.max_memory), pytest.raises(ImageFailure) as caught:
        decode_guarded(data, SPEC, limits)
    return caught.value


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyError("4:4:1"), FailureCode.CORRUPT, "KeyError: '4:4:1'"),
        (ZeroDivisionError("division by zero"), FailureCode.CORRUPT, "ZeroDivisionError: division by zero"),
        (NotImplementedError("12 bit"), FailureCode.UNSUPPORTED, "NotImplementedError: 12 bit"),
        (RecursionError(), FailureCode.CORRUPT, "RecursionError: "),
        (MemoryError(), FailureCode.TOO_COSTLY, "the limit of 1,073,741,824 bytes"),
        (ImageFailure(FailureCode.EMPTY, "nothing"), FailureCode.EMPTY, "nothing"),
    ],
)
def test_any_exception_becomes_a_failure_of_the_image(
    error: Exception, code: FailureCode, words: str
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(ImageFailure) as caught:
        guard(fail, DecodingLimits())
    assert caught.value.code is code
    assert words in caught.value.reason


def test_a_failure_is_one_short_line_of_text() -> None:
    text = str(ImageFailure(FailureCode.CORRUPT, "a\nb \udcff " + "x" * 10_000))
    assert text.startswith("corrupt: a b \\udcff x")
    assert len(text) < 600
    text.encode()


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0"]))
def test_any_bytes_raise_only_failures(content: bytes, start: bytes) -> None:
    with pytest.raises(ImageFailure):
        decode_guarded(start + content, SPEC, DecodingLimits())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(1, 20_000_000, 8, 4, 2), id="thin PNG"),
        pytest.param(png(6000, 6000, 8, 6, 4), id="PNG"),
        pytest.param(tiff(10, 12_000), id="tile"),
    ],
)
@pytest.mark.parametrize("is_estimated", [True, False])
def test_memory_over_the_limit_is_not_allocated(
    data: bytes, is_estimated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_estimated:
        monkeypatch.setattr(guard_module, "require_affordable", lambda *_: None)
    before = peak_memory()
    failure = failure_of(data, DecodingLimits(max_memory=64 * MEGABYTE))
    assert failure.code is FailureCode.TOO_COSTLY
    assert "67,108,864" in failure.reason
    assert peak_memory() - before < 150 * MEGABYTE


def test_the_limit_is_lifted_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    normal = resource.getrlimit(resource.RLIMIT_DATA)
    failure_of(png(6000, 6000, 8, 6, 4), DecodingLimits(max_memory=32 * MEGABYTE))
    assert resource.getrlimit(resource.RLIMIT_DATA) == normal
    assert len(bytearray(256 * MEGABYTE)) == 256 * MEGABYTE


def test_memory_of_other_objects_does_not_count_against_an_image() -> None:
    limits = DecodingLimits(max_memory=64 * MEGABYTE)
    data = png(3000, 3000, 8, 0, 1)
    with MEMORY_LIMIT.allowing(limits.max_memory):
        held = bytearray(40 * MEGABYTE)
        assert decode_guarded(data, SPEC, limits).pixels.shape == (28, 28, 3)
    assert held


@pytest.mark.parametrize(("form", "width", "height"), [("JPEG", 6000, 4000), ("PNG", 4000, 3000)])
def test_large_photographs_are_within_the_limits(form: str, width: int, height: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photograph(width, height)).save(buffer, form, compress_level=0)
    limits, spec = DecodingLimits(), ImageSpec(height=224, width=224, channels=3)
    with MEMORY_LIMIT.allowing(limits.max_memory):
        found = decode_guarded(buffer.getvalue(), spec, limits)
    assert (found.width, found.height) == (width, height)
    assert np.array_equal(found.pixels, decode(buffer.getvalue(), spec).pixels)


def test_too_many_scans_are_refused_without_decoding() -> None:
    limits = DecodingLimits(max_seconds=0.1)
    with pytest.raises(ImageFailure, match=r"too_costly: decoding 3,0\d\d scans of 250,000 pixels .* 0\.1 s"):
        require_affordable(jpeg_with_scans(500, 3000), limits)
    require_affordable(jpeg_with_scans(500, 30), limits)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tiles_are_measured_in_every_variant_of_tiff(order: str, big: bool) -> None:
    limits = DecodingLimits(max_memory=MEGABYTE)
    with pytest.raises(ImageFailure, match="tiles of 2048 x 2048 pixels takes 4,194,304 bytes"):
        require_affordable(tiff(10, 2048, order, big), limits)
    require_affordable(tiff(10, 1024, order, big), limits)


@given(st.binary(max_size=300), st.sampled_from([b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"II*\0", b"MM\0+\0\x08"]))
def test_damaged_headers_are_left_to_the_decoder(content: bytes, start: bytes) -> None:
    require_affordable(start + content, DecodingLimits(max_memory=1 << 80))


@given(st.binary(max_size=3000))
def test_damaged_jpeg_headers_are_left_to_the_decoder(content: bytes) -> None:
    require_affordable(b"\xff\xd8\xff" + content + bytes(4096), DecodingLimits(max_seconds=1e9))


def test_the_test_files_decode_without_limits(tmp_path: Path) -> None:
    """Without limits, each of the bombs decodes, so it is the limit that refuses it.

    A JPEG file that repeats a scan is corrupt in any case, but its scans are counted before it is decoded.
    """
    for data in (png(600, 600, 8, 6, 4), tiff(10, 1024), jpeg_with_scans(100, 0)):
        assert decode(data, SPEC).pixels.shape == (28, 28, 3)
