"""The guarantees for any bytes."""

import io
import logging
import warnings

import numpy as np
from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import DecodedImage, ImageFailure, decode, decode_with_pillow, describe_file
from pixelmill.pipeline.images.libtiff import libtiff_errors

MOST_PIXELS = 1_000_000
SPECS = [
    ImageSpec(height=7, width=9, channels=3, resize="pad"),
    ImageSpec(height=24, width=30, channels=1),
]
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def check(data: bytes, file_format: str) -> str:
    """Check the guarantees for any file.

    Returns:
        `scored`, or the failure code.

    Raises:
        AssertionError: A guarantee is violated, as it is by any other exception.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        outcomes = [_outcome(data, spec) for spec in SPECS]
    assert not warned, [str(warning.message) for warning in warned]
    assert len(set(outcomes)) == 1, f"one size is decoded, the other is not: {outcomes}"
    if outcomes[0] == "scored":
        assert not _is_refused_by_pillow(data, file_format), "Pillow alone refuses the file"
    return outcomes[0]


def _outcome(data: bytes, spec: ImageSpec) -> str:
    try:
        facts = describe_file(data)
        assert facts.width * facts.height >= 0
    except (ImageFailure, MemoryError):
        pass
    try:
        image = decode(data, spec, MOST_PIXELS)
        other = decode_with_pillow(data, spec, MOST_PIXELS)
    except ImageFailure as failure:
        return failure.code
    except MemoryError:
        return "memory"
    _check_form(image, spec)
    assert np.array_equal(image.pixels, other.pixels), "the two ways to decode differ"
    assert (image.width, image.height) == (other.width, other.height)
    return "scored"


def _check_form(image: DecodedImage, spec: ImageSpec) -> None:
    assert image.pixels.shape == (spec.height, spec.width, spec.channels)
    assert image.pixels.dtype == np.uint8
    assert min(image.width, image.height) > 0


def _is_refused_by_pillow(data: bytes, file_format: str) -> bool:
    """Whether Pillow opens the file but cannot decode it.

    Files that it does not open have an unknown layout or broken metadata.
    """
    if file_format == "PNG":
        data = _pixel_chunks(data)
    facts = describe_file(data)
    # Do not print the errors of Pillow's attempt.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(action="ignore"), libtiff_errors():
        try:
            image = Image.open(io.BytesIO(data), formats=(file_format,))
        except Exception:  # noqa: BLE001  # A dozen types.
            return file_format in ("PNG", "GIF", "WEBP")
        if sorted(image.size) != sorted((facts.width, facts.height)):
            return False  # Pillow shows another page of a TIFF file.
        try:
            image.load()
        except Exception:  # noqa: BLE001
            return True
    return False


def _pixel_chunks(data: bytes) -> bytes:
    """A PNG file without the chunks that do not affect pixels; checksums are unchanged."""
    kept, at = data[:8], 8
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] in _PIXEL_CHUNKS:
            kept += data[at:end]
        at = end
    return kept
