"""GIF files: the first frame, on a transparent canvas."""

import io
from functools import partial

from PIL import GifImagePlugin, Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images.exif import UPRIGHT
from pixelmill.pipeline.images.failures import corrupt
from pixelmill.pipeline.images.header import EncodedImage, FileFacts
from pixelmill.pipeline.images.tensors import show_only


def accepts(data: bytes) -> bool:
    """Whether the bytes begin like a GIF file."""
    return data.startswith((b"GIF87a", b"GIF89a"))


def read(data: bytes) -> EncodedImage:
    """Read the header of a GIF file, up to its first frame."""
    image = GifImagePlugin.GifImageFile(io.BytesIO(data))
    facts = FileFacts("GIF", image.mode, *image.size, UPRIGHT)
    return EncodedImage(facts, partial(_load, data, image))


def _load(data: bytes, image: GifImagePlugin.GifImageFile, _spec: ImageSpec) -> Image.Image:
    frame = image.tile[0].extents if image.tile else None
    if frame is None:
        raise corrupt("the file has no frame")
    _check_end(data, image.tile[0].offset)
    image.load()
    # Pillow fills what the frame does not cover with the first color of the palette.
    return show_only(image, frame)


def _check_end(data: bytes, at: int) -> None:
    """Reject a file that ends within the blocks of its first frame, which a decoder may not notice."""
    while at < len(data):
        if not data[at]:
            return
        at += 1 + data[at]
    raise corrupt("the file ends within its first frame")
