"""Decoding what a tensor store lacks, on all processors."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from pixelmill.pipeline.artifacts import describe_file, flush_to_disk
from pixelmill.pipeline.datasets.bundled import ArrayReader
from pixelmill.pipeline.datasets.catalogue import Reader
from pixelmill.pipeline.datasets.chunk_writer import ROW_TYPE, Chunk, WrittenChunk, write_chunk
from pixelmill.pipeline.datasets.contents import Contents
from pixelmill.pipeline.datasets.segments import Numbers
from pixelmill.pipeline.datasets.tensor_index import write_index
from pixelmill.pipeline.datasets.tensors import TensorStore
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.pool import map_guarded
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.storage import remove_leftovers
from pixelmill.pipeline.storage.temporaries import temporary_file

# The first chunks are small; later ones are as large as takes a process this many seconds.
_FIRST_CHUNK, _LARGEST_CHUNK = 32, 512
_CHUNK_SECONDS = 0.1
_SEGMENT_BYTES, _SEGMENT_ROWS = 256 * 2**20, 65_536
# The limit on a chunk, in multiples of that on an image. A chunk above it is decoded again, image by image.
_CHUNK_LIMIT = 3
# Failures that another attempt may not meet, so that they are not remembered.
_TRANSIENT = {
    FailureCode.UNREADABLE,
    FailureCode.CHANGED,
    FailureCode.TOO_COSTLY,
    FailureCode.WORKER_DIED,
}


@dataclass
class _Segment:
    """A segment that is being written. `files` holds its temporary file until the segment is finished."""

    number: int
    temporary: Path
    count: int
    files: ExitStack
    contents: bytearray = field(default_factory=bytearray)
    rows: list[npt.NDArray[np.void]] = field(default_factory=list)
    failures: dict[bytes, str] = field(default_factory=dict)
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
        self._given: deque[tuple[_Segment, Chunk]] = deque()
        self._transient: dict[bytes, str] = {}
        self._chunk_size = _FIRST_CHUNK

    def run(
        self,
        contents: Contents,
        places: Callable[[Numbers], list[str]],
        advance: Callable[[int, str], None],
    ) -> dict[bytes, str]:
        with ExitStack() as files:
            for result in self._results(self._chunks(contents, places, files)):
                segment, chunk = self._given.popleft()
                self._record(segment, chunk, self._again(chunk) if result is None else result)
                advance(len(chunk), "")
                if segment.done == segment.count:
                    self._finish(segment)
        return self._transient

    def _chunks(
        self, contents: Contents, places: Callable[[Numbers], list[str]], files: ExitStack
    ) -> Iterator[Chunk]:
        spec = self._store.spec
        rows = min(_SEGMENT_ROWS, max(1, _SEGMENT_BYTES // (spec.height * spec.width * spec.channels)))
        number = max(self._store.segment_numbers(), default=0)
        for start in range(0, len(contents), rows):
            number += 1
            chosen = np.arange(start, min(start + rows, len(contents)))
            found = places(chosen)
            own = files.enter_context(ExitStack())
            temporary = own.enter_context(temporary_file(self._store.data_path(number)))
            segment = _Segment(number, temporary, len(chosen), own)
            self._store.format.create(temporary, len(chosen), spec)
            first = 0
            while first < len(chosen):
                part = slice(first, first + self._chunk_size)
                chunk = Chunk(temporary, first, contents[chosen[part]].tobytes(), found[part])
                self._given.append((segment, chunk))
                yield chunk
                first += len(chunk)

    def _results(self, chunks: Iterator[Chunk]) -> Iterator[WrittenChunk | None]:
        """The result of each chunk; None if a process died of it."""
        write = partial(write_chunk, self._reader, self._store.spec, DecodingLimits())
        if self._is_trusted:
            for chunk in chunks:
                yield _require_written(write(chunk))
            return
        limits = DecodingLimits(max_seconds=_CHUNK_LIMIT * DecodingLimits().max_seconds)
        for result in map_guarded(write, chunks, self._processes, limits, at_once=1):
            yield None if isinstance(result, ImageFailure) else _require_written(result)

    def _again(self, chunk: Chunk) -> WrittenChunk:
        """Find the image that a process died of, one image at a time."""
        write = partial(write_chunk, self._reader, self._store.spec, DecodingLimits())
        rows, failures = [np.empty(0, ROW_TYPE)], {}
        for index, result in enumerate(map_guarded(write, map(chunk.single, range(len(chunk))), 1)):
            if isinstance(result, ImageFailure):
                failures[index] = result
                continue
            written = _require_written(result)
            rows.append(written.rows)
            failures |= {index + place: failure for place, failure in written.failures.items()}
        return WrittenChunk(np.concatenate(rows), failures)

    def _record(self, segment: _Segment, chunk: Chunk, written: WrittenChunk) -> None:
        segment.contents += b"".join(map(chunk.digest, (written.rows["row"] - chunk.first).tolist()))
        segment.rows.append(written.rows)
        for index, failure in written.failures.items():
            kept = self._transient if failure.code in _TRANSIENT else segment.failures
            kept[chunk.digest(index)] = str(failure)
        segment.done += len(chunk)
        if written.seconds:
            wanted = int(len(chunk) * _CHUNK_SECONDS / written.seconds)
            self._chunk_size = min(max(wanted, _FIRST_CHUNK), 2 * len(chunk), _LARGEST_CHUNK)

    def _finish(self, segment: _Segment) -> None:
        rows = np.concatenate(segment.rows)
        if len(rows) or segment.failures:
            facts = describe_file(segment.temporary)
            flush_to_disk(segment.temporary)
            segment.temporary.replace(self._store.data_path(segment.number))
            path = self._store.index_path(segment.number)
            write_index(path, bytes(segment.contents), rows, segment.failures, facts)
        segment.files.close()


def _require_written(result: WrittenChunk | OSError) -> WrittenChunk:
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
