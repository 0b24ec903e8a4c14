"""From listed images to pixels: read, hash, reuse predictions of an earlier table, decode."""

import hashlib
import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from pixelmill.pipeline.decoding.guard import decode_guarded
from pixelmill.pipeline.decoding.memory import MEMORY_LIMIT
from pixelmill.pipeline.decoding.time_limit import WATCH, TimeLimit
from pixelmill.pipeline.drift.sample import ImageSample
from pixelmill.pipeline.images import ImageFailure, Pixels
from pixelmill.pipeline.predictions.columns import Predictions
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.scoring.reuse import PreviousTable
from pixelmill.pipeline.scoring.worker.source_reader import reader_of_source
from pixelmill.pipeline.scoring.worker.timeouts import read_timeouts, record_timeout

_FILES_AT_ONCE = 256
_BYTES_AT_ONCE = 4 << 20


@dataclass
class Prepared:
    """A group of images that was read, and then decoded.

    Attributes:
        start: The index of the first image in its listing.
        predictions: A row per image, complete for images that are not in `pixels` or `duplicates`.
        contents: The images still to be decoded: index in the group, and the bytes of the file.
        pixels: The images to predict: index in the listing, and the tensor.
        duplicates: Pairs of indices in the listing: an image, and an earlier one with the same bytes.
        taken: The number of rows taken from an earlier table.
        seconds: Time by stage.
        waits: How often reading yielded the processor to wait for a disk or network.
    """

    start: int
    predictions: Predictions
    contents: list[tuple[int, bytes]] = field(default_factory=list)
    pixels: list[tuple[int, Pixels]] = field(default_factory=list)
    duplicates: list[tuple[int, int]] = field(default_factory=list)
    taken: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    waits: int = 0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


class Preparation:
    """Prepares the images of one run for the model."""

    def __init__(self, plan: ScoringPlan) -> None:
        request = plan.request
        self.spec = plan.image
        self._read = reader_of_source(plan.source)
        self._previous = PreviousTable(request) if request.previous else None
        self._kept, self._limits, self._work = request.kept, request.limits, request.work
        self._embedding_size = request.bundle.embedding_size
        seconds = request.max_image_seconds
        self._time = TimeLimit(seconds, partial(record_timeout, request.work, seconds))
        WATCH.add(self._time)
        self._timeouts = read_timeouts(request.work)

    @property
    def previous_sample(self) -> ImageSample | None:
        """The measures of images of the earlier table; None without one."""
        return self._previous.image_sample if self._previous else None

    def close(self) -> None:
        """Stop the time limit on its images."""
        WATCH.remove(self._time)

    def reload_timeouts(self) -> None:
        """Read which images took too long in other processes."""
        self._timeouts = read_timeouts(self._work)

    def prepare(self, images: Sequence[ListedImage], start: int, seen: dict[str, int]) -> Prepared:
        """Read and decode a group of images; see `read`."""
        prepared = self.read(images, start, seen)
        self.decode(prepared)
        return prepared

    def read(self, images: Sequence[ListedImage], start: int, seen: dict[str, int]) -> Prepared:
        """Read a group of images, and reuse known predictions; the other images remain to be decoded.

        Args:
            images: The images, as listed.
            start: The index of the first image in its listing.
            seen: The index in the listing of the first image with each SHA-256; updated.
        """
        predictions = Predictions([image.path for image in images], self._kept, self._embedding_size)
        prepared = Prepared(start, predictions)
        waits_before = _waits()
        with prepared.timed("read"):
            known = self._previous.take_unchanged(images, predictions) if self._previous else set()
            due = [at for at in range(len(images)) if at not in known] if known else range(len(images))
            contents = self._read_new(images, due, prepared, seen)
            if self._previous:
                # Including duplicates, so that they are counted as reused rows.
                read = [*(at for at, _ in contents), *(place - start for place, _ in prepared.duplicates)]
                same = self._previous.take_same_bytes(read, predictions)
                contents = [item for item in contents if item[0] not in same]
                prepared.duplicates = [pair for pair in prepared.duplicates if pair[0] - start not in same]
                prepared.taken = len(known) + len(same)
        prepared.waits = _waits() - waits_before
        prepared.contents = contents
        return prepared

    def decode(self, prepared: Prepared) -> None:
        """Decode a group; must run in the thread that predicts, as all threads share the memory limit."""
        with prepared.timed("decode"):
            self._decode_all(prepared)
        prepared.contents = []

    def _decode_all(self, prepared: Prepared) -> None:
        predictions, contents = prepared.predictions, prepared.contents
        # The tensors of earlier images do not count against the limit of an image.
        tensors = len(contents) * self.spec.height * self.spec.width * self.spec.channels
        with MEMORY_LIMIT.allowing(self._limits.max_memory + tensors):
            for at, content in contents:
                sha256 = predictions.sha256[at] or ""
                if sha256 in self._timeouts:
                    predictions.errors[at] = self._timeouts[sha256]
                    continue
                self._time.begin(sha256)
                try:
                    image = decode_guarded(content, self.spec, self._limits)
                except ImageFailure as failure:
                    predictions.errors[at] = str(failure)
                    continue
                finally:
                    self._time.end()
                predictions.widths[at], predictions.heights[at] = image.width, image.height
                prepared.pixels.append((prepared.start + at, image.pixels))

    def _read_new(
        self,
        images: Sequence[ListedImage],
        due: Sequence[int],
        prepared: Prepared,
        seen: dict[str, int],
    ) -> list[tuple[int, bytes]]:
        """The images that are not duplicates of earlier ones: index in the group, and bytes."""
        new = []
        for at, content in zip(due, self._read([images[at] for at in due]), strict=True):
            if isinstance(content, ImageFailure):
                prepared.predictions.errors[at] = str(content)
                continue
            digest = hashlib.sha256(content).hexdigest()
            prepared.predictions.sha256[at] = digest
            place = prepared.start + at
            first = seen.setdefault(digest, place)
            if first == place:
                new.append((at, content))
            else:
                prepared.duplicates.append((place, first))
        return new


def _waits() -> int:
    # Only this thread, if the system counts per thread.
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw


def batches(
    images: Sequence[ListedImage], most_files: int = _FILES_AT_ONCE
) -> Iterator[tuple[int, Sequence[ListedImage]]]:
    """Split images into groups whose files fit into memory together; yields the first index and the group."""
    start = size = 0
    for place, image in enumerate(images):
        if place > start and (place - start == most_files or size + image.expected_bytes > _BYTES_AT_ONCE):
            yield start, images[start:place]
            start, size = place, 0
        size += image.expected_bytes
    if start < len(images):
        yield start, images[start:]
