"""The listing in shards: each is a file with the images that one worker scores."""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from pixelmill.pipeline.artifacts import replacing
from pixelmill.pipeline.predictions.arrays import read_blocks, write_blocks
from pixelmill.pipeline.predictions.parts import part_name, part_shard_key
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.scoring.skipped import SkippedFiles
from pixelmill.pipeline.scoring.sources import open_listing
from pixelmill.pipeline.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

_SHARDS_OF_A_SIZE = 64
_MOST_DOUBLINGS = 4
_WHOLE_BATCHES = 32
# Each shard of the taper takes a quarter of the remaining images, in steps of a sixteenth of all of them.
_TAPERED = 2
_NEXT_SHARE = 4
_SMALLEST_SHARE = 16
_FEWEST_IMAGES = 8
BLOCK = 4096
"""The number of images of a shard that a worker has in memory at once."""
_IMAGES = TypeAdapter(list[ListedImage])
ShardLimit = tuple[int, float]
"""The number of images, or of their bytes, at which a shard is full."""
FIRST_LIMIT: ShardLimit = 1024, 8 << 20


@dataclass(frozen=True)
class Shard:
    """One file of the listing: its number, the number of its images, and the key that its part must carry."""

    number: int
    images: int
    shard_key: str


def growing_limits(growth: int = 1) -> Iterator[ShardLimit]:
    """Limits for shards that are small at first, to keep all workers busy from the start, and then grow.

    A table of ten million rows has hundreds of parts rather than thousands. The process that lists holds
    three shards at a time, and a worker one block, so memory stops growing with the largest of them.

    Args:
        growth: Factor on all limits.
    """
    images, size = FIRST_LIMIT
    for number in itertools.count():
        doubled = growth << min(number // _SHARDS_OF_A_SIZE, _MOST_DOUBLINGS)
        yield images * doubled, size * doubled


def images_before(number: int, images: int) -> int:
    """About how many images come before a shard in the listing, if all files are as large as its own.

    Args:
        number: The number of the shard.
        images: The number of its images; it is enough to count one block.
    """
    doublings = [min(shard // _SHARDS_OF_A_SIZE, _MOST_DOUBLINGS) for shard in range(number + 1)]
    limit = FIRST_LIMIT[0] << doublings[-1]
    size = limit if images == BLOCK else images
    return size * sum(1 << doubling for doubling in doublings[:-1]) >> doublings[-1]


def write_shards(
    plan: ScoringPlan,
    limits: Iterable[ShardLimit],
    tapers: bool = False,
    skipped: SkippedFiles | None = None,
) -> Iterator[Shard]:
    """List the images of a run and write the listing lazily, one shard at a time.

    Args:
        plan: The run.
        limits: The limit of each shard.
        tapers: Whether to cut the last two shards into ever smaller ones, so that no worker is left with a
            large one when all others have finished.
        skipped: Updated with what the listing skips.
    """
    listing = open_listing(plan.source, plan.request.globs, SkippedFiles() if skipped is None else skipped)
    for number, images in enumerate(cut_images(listing.images(), limits, tapers)):
        blocks = (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))
        contents = {shard_path(plan, number): b"".join(_IMAGES.dump_json(block) + b"\n" for block in blocks)}
        columns = listing.take(len(images))
        if columns is not None:
            contents[columns_path(plan, number)] = write_blocks(columns, BLOCK)
        for path, content in contents.items():
            with replacing(path) as temporary:
                temporary.write_bytes(content)
        yield Shard(number, len(images), _key_of(plan, contents.values()))


def shard_path(plan: ScoringPlan, number: int) -> Location:
    """The file of one shard, with one line of JSON per block of images."""
    return plan.request.shards / f"{number:05d}.jsonl"


def columns_path(plan: ScoringPlan, number: int) -> Location:
    """The file with the other columns of the rows of one shard, if its source has any."""
    return plan.request.shards / f"{number:05d}.arrow"


def read_shard(plan: ScoringPlan, number: int) -> Iterator[list[ListedImage]]:
    """The images of one shard, one block at a time."""
    with shard_path(plan, number).open("rb") as file:
        yield from map(_IMAGES.validate_json, file)


def read_columns(plan: ScoringPlan, number: int) -> "Iterator[pa.Table]":
    """The other columns of the rows of one shard, one block at a time; nothing if its source has none."""
    if plan.source.has_columns:
        with columns_path(plan, number).open("rb") as file:
            yield from read_blocks(file)


def shard_images(plan: ScoringPlan, number: int) -> list[ListedImage]:
    """All images of one shard."""
    return [image for block in read_shard(plan, number) for image in block]


def shard_key(plan: ScoringPlan, number: int) -> str:
    """A hash of the run and of the shard's listing; the part with this key holds the shard's predictions."""
    paths = [shard_path(plan, number), *([columns_path(plan, number)] if plan.source.has_columns else [])]
    return _key_of(plan, itertools.chain.from_iterable(map(_chunks, paths)))


def _chunks(path: Location) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(1 << 20), b"")


def _key_of(plan: ScoringPlan, contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256(f"{plan.facts.run_id}\0".encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def find_part(plan: ScoringPlan, number: int, key: str) -> Location | None:
    """The finished part of a shard of this run; None if there is none."""
    path = plan.request.parts / part_name(number)
    return path if path.is_file() and part_shard_key(path) == key else None


def cut_images(
    images: Iterable[ListedImage], limits: Iterable[ShardLimit], tapers: bool = False
) -> Iterator[list[ListedImage]]:
    """The images of each shard; see `write_shards`."""
    rest = iter(images)
    full = (list(_until_full(rest, limit)) for limit in limits)
    shards = itertools.takewhile(bool, full)
    return _tapering(shards) if tapers else shards


def _until_full(images: Iterable[ListedImage], limit: ShardLimit) -> Iterator[ListedImage]:
    most_images, most_bytes = limit
    size = 0
    for count, image in enumerate(images, start=1):
        yield image
        size += image.expected_bytes
        # Whole batches, because a partial batch takes just as long.
        if count >= most_images or (size >= most_bytes and count % _WHOLE_BATCHES == 0):
            return


def _tapering(shards: Iterator[list[ListedImage]]) -> Iterator[list[ListedImage]]:
    last = deque(itertools.islice(shards, _TAPERED))
    another = next(shards, None)
    if another is None:  # Do not cut a listing of one or two shards.
        yield from last
        return
    for shard in itertools.chain([another], shards):
        last.append(shard)
        yield last.popleft()
    rest = list(itertools.chain.from_iterable(last))
    step = max(len(rest) // _SMALLEST_SHARE // _FEWEST_IMAGES, 1) * _FEWEST_IMAGES
    while rest:
        size = -(-len(rest) // _NEXT_SHARE // step) * step
        yield rest[:size]
        del rest[:size]
