"""Thumbnails of image files as data URLs, made in processes that a decoder may crash."""

import base64
from collections.abc import Sequence
from pathlib import Path

from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.costs import require_affordable
from pixelmill.pipeline.decoding.files import read_file
from pixelmill.pipeline.decoding.pool import map_guarded
from pixelmill.pipeline.image_encoding import encode_thumbnail
from pixelmill.pipeline.images import ImageFailure

SIDE = 96
"""The largest width and height of a thumbnail, in pixels."""
_PNG_START = b"\x89PNG"


def encode_pictures(files: Sequence[Path]) -> list[str]:
    """A thumbnail of each file as a data URL; empty for one that cannot be decoded."""
    if not files:
        return []
    return ["" if isinstance(one, ImageFailure) else _as_url(one) for one in map_guarded(_make, files, 1)]


def _make(file: Path) -> bytes:
    data = read_file(file)
    require_affordable(data, DecodingLimits())
    return encode_thumbnail(data, SIDE)


def _as_url(picture: bytes) -> str:
    form = "png" if picture.startswith(_PNG_START) else "jpeg"
    return f"data:image/{form};base64,{base64.b64encode(picture).decode()}"
