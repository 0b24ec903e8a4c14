"""Decoding what a tensor store lacks, on all processors.

Worker processes read, verify, decode and measure the images and write the tensors to the segments themselves;
only the measures pass through pipes.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from pixelmill.pipeline.artifacts import describe_file, flush_to_disk
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets.bundled import ArrayReader
from pixelmill.pipeline.datasets.catalogue import Reader
from pixelmill.pipeline.datasets.contents import Contents, as_bytes, hash_content
from pixelmill.pipeline.datasets.measures import Measures, measure
from pixelmill.pipeline.datasets.segments import SEGMENT_FORMATS, Numbers
from pixelmill.pipeline.datasets.tensor_index import INDEX_SCHEMA, write_index
from pixelmill.pipeline.datasets.tensors import TensorStore
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.guard import decode_guarded, guard
from pixelmill.pipeline.decoding.pool import map_guarded
from pixelmill.pipeline.images import FailureCode, ImageFailure, Pixels, fit_array
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.storage import remove_leftovers
from pixelmill.pipeline.storage.temporaries import temporary_file

_CHUNK = 32
_SEGMENT_BYTES, _SEGMENT_ROWS = 256 * 2**20, 65_536
# The limit on a chunk, in multiples of that on an image. A chunk above it is decoded again, image by image.
_CHUNK_LIMIT = 3
_NO_TENSOR = (None,) * (len(INDEX_SCHEMA) - 3)
# Failures that another attempt may not meet, so that they are not remembered.
_TRANSIENT = {
    FailureCode.UNREADABLE,
    FailureCode.CHANGED,
    FailureCode.TOO_COSTLY,
    FailureCode.WORKER_DIED,
}


class Pending(NamedTuple):
    """A content to decode: its SHA-256 (32 bytes), and its place for the reader."""

    sha256: bytes
    place: str


class _Written(NamedTuple):
    """An image whose tensor is in the segment: its own size, the tensor's place in bytes, its measures."""

    width: int
    height: int
    offset: int
    size: int
    measures: Measures


_Outcome = _Written | ImageFailure


@dataclass(frozen=True)
class _Chunk:
    """Consecutive rows of a segment, which one process writes."""

    file: Path
    first: int
    images: Sequence[Pending]

    def single(self) -> "Iterator[_Chunk]":
        """Each row by itself."""
        for index, image in enumerate(self.images):
            yield replace(self, first=self.first + index, images=[image])


@dataclass
class _Segment:
    """A segment that is being written. `files` holds its temporary file until the segment is finished."""

    number: int
    temporary: Path
    count: int
    files: ExitStack
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    done: int = 0


def add_tensors(
    store: TensorStore,
    contents: Contents,
    places: Callable[[Numbers], list[str]],
    reader: Reader,
    advance: Callable[[int, str], None],
    processes: int | None = None,
) -> dict[bytes, str]:
    """Decode the contents that the store lacks, and add them in segments.

    An interrupted call keeps the segments it has finished.

    Args:
        store: Where the tensors are added.
        contents: Distinct contents, in the order in which they are written.
        places: Returns where the reader finds the contents of these positions.
        reader: Reads the images.
        advance: Called with the number of images that were decoded.
        processes: How many decode; as many as there are processors by default.

    Returns:
        Why contents could not be read this time, by their SHA-256. Contents that cannot be decoded at all
        are in the store's index instead.
    """
    store.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(store.folder / ".lock"):
        _remove_unfinished(store)
        located = store.locate(contents)
        missing = np.flatnonzero(located.segments == 0)
        advance(len(contents) - len(missing), "")
        if not len(missing):
            return {}
        writer = _Writer(store, reader, processes or processor_limit().count)
        failures = writer.run(contents[missing], lambda chosen: places(missing[chosen]), advance)
    ArrayReader.release()
    return failures


class _Writer:
    def __init__(self, store: TensorStore, reader: Reader, processes: int) -> None:
        self._store, self._processes = store, processes
        # Arrays are trusted and in memory already, so they are not sent to other processes.
        self._is_trusted = isinstance(reader, ArrayReader)
        self._reader = reader
        self._given: deque[tuple[_Segment, _Chunk]] = deque()
        self._transient: dict[bytes, str] = {}

    def run(
        self,
        contents: Contents,
        places: Callable[[Numbers], list[str]],
        advance: Callable[[int, str], None],
    ) -> dict[bytes, str]:
        with ExitStack() as files:
            for result in self._outcomes(self._chunks(contents, places, files)):
                segment, chunk = self._given.popleft()
                self._record(segment, chunk, self._again(chunk) if result is None else result)
                advance(len(chunk.images), "")
                if segment.done == segment.count:
                    self._finish(segment)
        return self._transient

    def _chunks(
        self, contents: Contents, places: Callable[[Numbers], list[str]], files: ExitStack
    ) -> Iterator[_Chunk]:
        spec = self._store.spec
        rows = min(_SEGMENT_ROWS, max(1, _SEGMENT_BYTES // (spec.height * spec.width * spec.channels)))
        number = max(self._store.segment_numbers(), default=0)
        for start in range(0, len(contents), rows):
            number += 1
            chosen = np.arange(start, min(start + rows, len(contents)))
            images = [*map(Pending, as_bytes(contents[chosen]), places(chosen))]
            own = files.enter_context(ExitStack())
            temporary = own.enter_context(temporary_file(self._store.data_path(number)))
            segment = _Segment(number, temporary, len(images), own)
            self._store.format.create(temporary, len(images), spec)
            for first in range(0, len(images), _CHUNK):
                chunk = _Chunk(temporary, first, images[first : first + _CHUNK])
                self._given.append((segment, chunk))
                yield chunk

    def _outcomes(self, chunks: Iterator[_Chunk]) -> Iterator[list[_Outcome] | None]:
        """The outcomes of each chunk; None if a process died of it."""
        write = partial(_write_chunk, self._reader, self._store.spec, DecodingLimits())
        if self._is_trusted:
            for chunk in chunks:
                yield _require_written(write(chunk))
            return
        limits = DecodingLimits(max_seconds=_CHUNK_LIMIT * DecodingLimits().max_seconds)
        for result in map_guarded(write, chunks, self._processes, limits, at_once=1):
            yield None if isinstance(result, ImageFailure) else _require_written(result)

    def _again(self, chunk: _Chunk) -> list[_Outcome]:
        """Find the image that a process died of, one image at a time."""
        write = partial(_write_chunk, self._reader, self._store.spec, DecodingLimits())
        found = map_guarded(write, chunk.single(), 1)
        return [
            result if isinstance(result, ImageFailure) else _require_written(result)[0] for result in found
        ]

    def _record(self, segment: _Segment, chunk: _Chunk, outcomes: Sequence[_Outcome]) -> None:
        for index, (image, outcome) in enumerate(zip(chunk.images, outcomes, strict=True)):
            if isinstance(outcome, _Written):
                segment.rows.append(
                    (image.sha256, chunk.first + index, *outcome[:-1], *outcome.measures, None)
                )
            elif outcome.code in _TRANSIENT:
                self._transient[image.sha256] = str(outcome)
            else:
                segment.rows.append((image.sha256, -1, *_NO_TENSOR, str(outcome)))
        segment.done += len(chunk.images)

    def _finish(self, segment: _Segment) -> None:
        if segment.rows:
            facts = describe_file(segment.temporary)
            flush_to_disk(segment.temporary)
            segment.temporary.replace(self._store.data_path(segment.number))
            write_index(self._store.index_path(segment.number), segment.rows, facts)
        segment.files.close()


def _write_chunk(
    reader: Reader, spec: ImageSpec, limits: DecodingLimits, chunk: _Chunk
) -> list[_Outcome] | OSError:
    """Decode the images of a chunk and write their tensors; an error of the disk is returned, not raised,
    because exceptions become failures of an image.
    """
    outcomes: list[_Outcome] = []
    tensors: list[Pixels] = []
    for image in chunk.images:
        try:
            pixels, width, height = _decode(reader, spec, limits, image)
            measures = guard(measure, limits, pixels)
        except ImageFailure as failure:
            outcomes.append(ImageFailure(failure.code, failure.reason))
            continue
        tensors.append(pixels)
        outcomes.append(_Written(width, height, 0, 0, measures))
    rows = [chunk.first + at for at, outcome in enumerate(outcomes) if isinstance(outcome, _Written)]
    try:
        places = iter(SEGMENT_FORMATS[spec.storage].write(chunk.file, rows, tensors))
    except OSError as error:
        return error
    return [
        _placed(outcome, *next(places)) if isinstance(outcome, _Written) else outcome for outcome in outcomes
    ]


def _placed(outcome: _Written, offset: int, size: int) -> _Written:
    return outcome._replace(offset=offset, size=size)


def _decode(
    reader: Reader, spec: ImageSpec, limits: DecodingLimits, image: Pending
) -> tuple[Pixels, int, int]:
    content = guard(reader.read, limits, image.place)
    if hash_content(content).digest() != image.sha256:
        raise ImageFailure(FailureCode.CHANGED, "changed after it was listed")
    if isinstance(content, bytes):
        return decode_guarded(content, spec, limits)
    return guard(fit_array, limits, content, spec), content.shape[1], content.shape[0]


def _require_written(result: list[_Outcome] | OSError) -> list[_Outcome]:
    if isinstance(result, OSError):
        raise result
    return result


def _remove_unfinished(store: TensorStore) -> None:
    """Remove what an interrupted run left: temporary files, and tensors without an index."""
    remove_leftovers(store.folder)
    finished = set(store.segment_numbers())
    for path in store.folder.glob(f"[0-9]*{store.format.suffix}"):
        if int(path.stem) not in finished:
            path.unlink()
