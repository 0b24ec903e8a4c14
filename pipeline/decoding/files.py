"""Decoding of image files in separate processes, outside of scoring."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.guard import decode_guarded
from pixelmill.pipeline.decoding.pool import map_guarded
from pixelmill.pipeline.images import (
    DecodedImage,
    FailureCode,
    FileFacts,
    ImageFailure,
    decode_with_pillow,
    describe_file,
)
from pixelmill.pipeline.resources import processor_limit

Decoding = Literal["header", "tensor", "pillow"]


def decode_files(
    files: Iterable[Path], spec: ImageSpec, limits: DecodingLimits | None = None
) -> Iterator[DecodedImage | ImageFailure]:
    """Decode files, yielding an image or a failure for each, in order.

    Args:
        files: Local files.
        spec: The shape of the tensors.
        limits: Limits on each image; the default limits if None.
    """
    limits = limits or DecodingLimits()
    return map_guarded(partial(_decode_file, spec, limits), files, processor_limit().count, limits)


def decode_all_ways(
    data: bytes, spec: ImageSpec, limits: DecodingLimits
) -> dict[Decoding, FileFacts | DecodedImage | ImageFailure]:
    """Read a file's header, decode the file as in scoring, and decode it with Pillow alone.

    Args:
        data: The whole file.
        spec: The shape of the tensor.
        limits: Limits on each of these steps.
    """
    decodings = get_args(Decoding)
    found = map_guarded(partial(_decode, data, spec, limits), decodings, 1, limits)
    return dict(zip(decodings, found, strict=True))


def _decode(
    data: bytes, spec: ImageSpec, limits: DecodingLimits, which: Decoding
) -> FileFacts | DecodedImage:
    if which == "header":
        return describe_file(data)
    if which == "pillow":
        return decode_with_pillow(data, spec, limits.max_pixels)
    return decode_guarded(data, spec, limits)


def read_file(file: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageFailure: It cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise ImageFailure(FailureCode.UNREADABLE, error.strerror or str(error)) from error


def _decode_file(spec: ImageSpec, limits: DecodingLimits, file: Path) -> DecodedImage:
    return decode_guarded(read_file(file), spec, limits)
