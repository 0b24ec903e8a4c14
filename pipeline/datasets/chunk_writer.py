"""What the worker processes of a preparation do: read, verify, decode and measure images, and write tensors.

Results are arrays, which pass through pipes at little cost. The module imports no Arrow, as each process
would load it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets.catalogue import Reader
from pixelmill.pipeline.datasets.contents import CONTENT_SIZE, hash_content
from pixelmill.pipeline.datasets.measures import MEASURES_TYPE, measure_all
from pixelmill.pipeline.datasets.segments import SEGMENT_FORMATS
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.guard import decode_guarded, guard
from pixelmill.pipeline.images import FailureCode, ImageFailure, Pixels, fit_array

ROW_TYPE = np.dtype(
    [
        ("row", np.int32),
        ("width", np.int32),
        ("height", np.int32),
        ("offset", np.int64),
        ("size", np.int64),
        *((name, MEASURES_TYPE[name]) for name in MEASURES_TYPE.names or ()),
    ]
)
"""What the index of a segment says of a tensor, without its content's SHA-256."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a segment, which one process writes.

    Attributes:
        file: The segment.
        first: The first of the rows.
        digests: The SHA-256 of each content, 32 bytes after another.
        places: Where the reader finds each content.
    """

    file: Path
    first: int
    digests: bytes
    places: list[str]

    def __len__(self) -> int:
        return len(self.places)

    def digest(self, index: int) -> bytes:
        """The SHA-256 of one content."""
        return self.digests[index * CONTENT_SIZE : (index + 1) * CONTENT_SIZE]

    def single(self, index: int) -> "Chunk":
        """One row by itself."""
        return Chunk(self.file, self.first + index, self.digest(index), self.places[index : index + 1])


@dataclass(frozen=True)
class WrittenChunk:
    """The result of a chunk.

    Attributes:
        rows: `ROW_TYPE` [tensors], ascending by row.
        failures: Why contents have no tensor, by their position in the chunk.
        seconds: How long it took.
    """

    rows: npt.NDArray[np.void]
    failures: dict[int, ImageFailure]
    seconds: float = 0.0


def write_chunk(
    reader: Reader, spec: ImageSpec, limits: DecodingLimits, chunk: Chunk
) -> WrittenChunk | OSError:
    """Decode the images of a chunk and write their tensors; an error of the disk is returned, not raised,
    because exceptions become failures of an image.
    """
    start = time.monotonic()
    tensors = np.empty((len(chunk), spec.height, spec.width, spec.channels), np.uint8)
    rows = np.zeros(len(chunk), ROW_TYPE)
    failures: dict[int, ImageFailure] = {}
    sizes: list[list[int]] = []
    written: list[int] = []
    for index, place in enumerate(chunk.places):
        try:
            pixels, *size = _decode(reader, spec, limits, place, chunk.digest(index))
        except ImageFailure as failure:
            # Without its cause, which may not be picklable.
            failures[index] = ImageFailure(failure.code, failure.reason)
            continue
        tensors[len(written)] = pixels
        sizes.append(size)
        written.append(index)
    rows, tensors = rows[: len(written)], tensors[: len(written)]
    if written:
        rows["row"] = chunk.first + np.array(written)
        rows["width"], rows["height"] = np.array(sizes).T
        measures = measure_all(tensors)
        for name in measures.dtype.names or ():
            rows[name] = measures[name]
        try:
            places = SEGMENT_FORMATS[spec.storage].write(chunk.file, rows["row"].astype(np.int64), tensors)
        except OSError as error:
            return error
        rows["offset"], rows["size"] = places
    return WrittenChunk(rows, failures, time.monotonic() - start)


def _decode(
    reader: Reader, spec: ImageSpec, limits: DecodingLimits, place: str, sha256: bytes
) -> tuple[Pixels, int, int]:
    content = guard(reader.read, limits, place)
    if hash_content(content).digest() != sha256:
        raise ImageFailure(FailureCode.CHANGED, "changed after it was listed")
    if isinstance(content, bytes):
        return decode_guarded(content, spec, limits)
    return guard(fit_array, limits, content, spec), content.shape[1], content.shape[0]
