"""AVIF files: the still image, or a sequence's first frame."""

import io
from functools import partial

from PIL import Image, features

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images.bmff import brands_of
from pixelmill.pipeline.images.exif import orientation_of
from pixelmill.pipeline.images.failures import unsupported
from pixelmill.pipeline.images.header import EncodedImage, FileFacts


def accepts(data: bytes) -> bool:
    """Whether the bytes begin like an AVIF file."""
    return bool({b"avif", b"avis"}.intersection(brands_of(data)))


def read(data: bytes) -> EncodedImage:
    """Read the boxes of an AVIF file; nothing is decoded."""
    if not features.check("avif"):
        raise unsupported("an AVIF file, which this build of Pillow cannot read: pip install -U pillow")
    from PIL import AvifImagePlugin

    # Each process decodes one image at a time, and its threads would not count in its limits.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    image = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    # Pillow reports the turn that the boxes of the file prescribe as an EXIF orientation.
    facts = FileFacts("AVIF", image.mode, *image.size, orientation_of(image.info.get("exif", b"")))
    return EncodedImage(facts, partial(_load, image))


def _load(image: Image.Image, _spec: ImageSpec) -> Image.Image:
    image.load()
    return image
