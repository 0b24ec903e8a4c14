"""The result of reading the header of an image file: its facts, and a function that loads the pixels."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from pixelmill.pipeline.config import ImageSpec


@dataclass(frozen=True)
class FileFacts:
    """The content of a file's header: `width`, `height` as stored; `orientation` from 1 to 8 as in EXIF."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Width and height after the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


@dataclass(frozen=True)
class EncodedImage:
    """An image whose header has been read but whose pixels have not been decoded.

    Attributes:
        facts: The content of the header.
        load: Decodes the pixels as stored, without rotation. A decoder that can shrink while decoding takes
            the required size from the spec. The image has mode 1, L, LA, P, RGB, RGBA, CMYK, YCbCr or I;16;
            transparency is in its alpha channel or its palette.
    """

    facts: FileFacts
    load: Callable[[ImageSpec], Image.Image]
