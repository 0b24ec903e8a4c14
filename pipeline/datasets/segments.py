"""The files that hold the tensors of images: as they are, or compressed as JPEG."""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.format import write_array_header_1_0

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.image_encoding import encode_jpeg
from pixelmill.pipeline.images import Pixels, decode

Storage = Literal["raw", "jpeg"]
Numbers = npt.NDArray[np.int64]
# NumPy pads the header of a `.npy` file to a multiple of this.
_HEADER = 128
_APPEND_LOCK = ".append.lock"


class SegmentReader(Protocol):
    """Reads tensors from one file."""

    def read(self, rows: Numbers) -> Pixels:
        """The tensors of these rows: uint8 [rows, height, width, channels]."""


@dataclass(frozen=True)
class SegmentFormat:
    """How tensors are written to a file and read again.

    Attributes:
        suffix: The extension of the file.
        create: Prepares an empty file for a number of tensors.
        write: Writes the tensors of given, ascending rows, uint8 [rows, height, width, channels], and returns
            where each is in the file, in bytes: offsets and sizes. Several processes call it for different
            rows of one file at the same time.
        open: A reader of the file, given the offsets and sizes by row.
    """

    suffix: str
    create: Callable[[Path, int, ImageSpec], None]
    write: Callable[[Path, Numbers, Pixels], tuple[Numbers, Numbers]]
    open: Callable[[Path, Numbers, Numbers, ImageSpec], SegmentReader]


def _create_raw(path: Path, count: int, spec: ImageSpec) -> None:
    shape = (count, spec.height, spec.width, spec.channels)
    with path.open("wb") as file:
        write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(_HEADER + int(np.prod(shape)))


def _write_raw(path: Path, rows: Numbers, tensors: Pixels) -> tuple[Numbers, Numbers]:
    size = tensors[:1].nbytes
    offsets = _HEADER + rows * size
    starts = [0, *(np.flatnonzero(np.diff(rows) > 1) + 1).tolist(), len(rows)]
    # Not memory-mapped, because a full disk would then raise a signal instead of an error.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for start, stop in pairwise(starts):
            if stop > start:
                _write_all(descriptor, tensors[start:stop].tobytes(), int(offsets[start]))
    finally:
        os.close(descriptor)
    return offsets, np.full(len(rows), size)


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(descriptor, content[done:], offset + done)


class _RawReader:
    def __init__(self, path: Path, offsets: Numbers, sizes: Numbers, spec: ImageSpec) -> None:
        self._pixels: Pixels = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))

    def read(self, rows: Numbers) -> Pixels:
        return self._pixels[rows]


def _create_jpeg(path: Path, count: int, spec: ImageSpec) -> None:
    path.write_bytes(b"")


def _write_jpeg(path: Path, rows: Numbers, tensors: Pixels) -> tuple[Numbers, Numbers]:
    contents = [encode_jpeg(tensor) for tensor in tensors]
    # The sizes are not known in advance, so each process appends while it holds a lock: not that of the
    # temporary file, which shows that its owner is alive.
    with (path.parent / _APPEND_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with path.open("ab") as file:
            start = file.tell()
            file.write(b"".join(contents))
    sizes = np.array([len(content) for content in contents], np.int64)
    return start + np.cumsum(sizes) - sizes, sizes


class _JpegReader:
    def __init__(self, path: Path, offsets: Numbers, sizes: Numbers, spec: ImageSpec) -> None:
        self._path, self._offsets, self._sizes, self._spec = path, offsets, sizes, spec

    def read(self, rows: Numbers) -> Pixels:
        spec = self._spec
        pixels = np.empty((len(rows), spec.height, spec.width, spec.channels), np.uint8)
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for index, row in enumerate(rows):
                content = os.pread(descriptor, int(self._sizes[row]), int(self._offsets[row]))
                pixels[index] = decode(content, spec).pixels
        finally:
            os.close(descriptor)
        return pixels


SEGMENT_FORMATS: dict[Storage, SegmentFormat] = {
    "raw": SegmentFormat(".npy", _create_raw, _write_raw, _RawReader),
    "jpeg": SegmentFormat(".jpeg", _create_jpeg, _write_jpeg, _JpegReader),
}
