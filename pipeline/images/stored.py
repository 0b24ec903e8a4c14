"""What every reader of a file format hands on: the facts of the header, and a way to the pixels."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from pixelmill.pipeline.config import ImageSpec


@dataclass(frozen=True)
class FileFacts:
    """What a file's header says: `width`, `height` as stored; `orientation` from 1 to 8 as EXIF counts."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Width and height after the rotation that the orientation asks for."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


@dataclass(frozen=True)
class StoredImage:
    """An image whose header is read, and its pixels not yet.

    Attributes:
        facts: What the header says.
        load: Decodes the pixels as they are stored, not rotated. The spec tells a decoder that can shrink
            while it decodes how large the result has to be. The image is of mode 1, L, LA, P, RGB, RGBA,
            CMYK, YCbCr or I;16; transparency is in its alpha channel or its palette.
    """

    facts: FileFacts
    load: Callable[[ImageSpec], Image.Image]
