"""HEIC photographs, the primary image of a file. Needs the package `pillow-heif`, of the extra `heif`."""

import io
from collections.abc import Callable
from functools import partial

from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images.bmff import brands_of
from pixelmill.pipeline.images.exif import UPRIGHT
from pixelmill.pipeline.images.failures import unsupported
from pixelmill.pipeline.images.header import EncodedImage, FileFacts

_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def accepts(data: bytes) -> bool:
    """Whether the bytes begin like a HEIF file that is no AVIF file."""
    brands = brands_of(data)
    return not _BRANDS.isdisjoint(brands) and not {b"avif", b"avis"}.intersection(brands)


def read(data: bytes) -> EncodedImage:
    """Read the boxes of a HEIC file; nothing is decoded."""
    try:
        from pillow_heif import HeifImageFile, options
    except ImportError:
        raise unsupported("a HEIC file, which needs the extra `heif`") from None
    # Each process decodes one image at a time, and its threads would not count in its limits.
    options.DECODE_THREADS = 1
    # The package has no types.
    opened: Callable[[io.BytesIO], Image.Image] = HeifImageFile
    image = opened(io.BytesIO(data))
    # The decoder turns the image itself: HEIF has its own field for that, and EXIF only repeats it.
    facts = FileFacts("HEIF", image.mode, *image.size, UPRIGHT)
    return EncodedImage(facts, partial(_load, image))


def _load(image: Image.Image, _spec: ImageSpec) -> Image.Image:
    size = image.size
    image.load()
    if image.size != size:
        raise unsupported(f"{image.size} pixels, where the header says {size}")
    return image
