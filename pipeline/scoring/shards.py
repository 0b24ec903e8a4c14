"""The listing cut into shards: files that tell a worker which images to answer."""

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from pathlib import Path

from pixelmill.pipeline.artifacts import replacing
from pixelmill.pipeline.predictions.parts import part_answer_key, part_name
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.listing import ListedImage, list_images
from pixelmill.pipeline.scoring.passed_over import PassedOver

_SHARDS_OF_A_SIZE = 64
_MOST_DOUBLINGS = 6
_WHOLE_BATCHES = 32
# Each shard of the taper takes a quarter of what is left, in steps of a sixteenth of the whole.
_TAPERED = 2
_NEXT_SHARE = 4
_SMALLEST_SHARE = 16
_FEWEST_IMAGES = 8
BLOCK = 8192
"""How many images of a shard are in memory at once."""
ShardLimit = tuple[int, float]
"""At how many images, or bytes of them, a shard is full."""
FIRST_LIMIT: ShardLimit = 1024, 8 << 20


@dataclass(frozen=True)
class Shard:
    """One file of the listing: its number, how many images it lists, and what its part must answer."""

    number: int
    images: int
    answer_key: str


def growing_limits(growth: int = 1) -> Iterator[ShardLimit]:
    """Small shards at first, so that all workers are busy soon, then larger ones, so that a table of many
    millions has hundreds of parts, not thousands.

    Args:
        growth: Of the first ones already.
    """
    images, size = FIRST_LIMIT
    for number in itertools.count():
        doubled = growth << min(number // _SHARDS_OF_A_SIZE, _MOST_DOUBLINGS)
        yield images * doubled, size * doubled


def write_shards(
    plan: ScoringPlan,
    limits: Iterable[ShardLimit],
    tapers: bool = False,
    passed_over: PassedOver | None = None,
) -> Iterator[Shard]:
    """List the images of a plan and write the listing down, a shard each time one is asked for.

    Args:
        plan: The run.
        limits: Of each shard in turn.
        tapers: Cut the last two shards into ever smaller ones, so that no worker is left with a large one
            when all others are done.
        passed_over: Counts what the listing leaves out.
    """
    listed = list_images(plan.request.images, plan.request.globs, passed_over)
    for number, images in enumerate(cut_images(listed, limits, tapers)):
        lines = "".join(map(_line, images)).encode()
        with replacing(shard_path(plan, number)) as temporary:
            temporary.write_bytes(lines)
        yield Shard(number, len(images), _key_of(plan, [lines]))


def shard_path(plan: ScoringPlan, number: int) -> Path:
    """The file of one shard: a line of JSON an image."""
    return plan.request.shards / f"{number:05d}.jsonl"


def read_shard(plan: ScoringPlan, number: int) -> Iterator[list[ListedImage]]:
    """The images of one shard, a block at a time."""
    with shard_path(plan, number).open("rb") as file:
        while lines := list(itertools.islice(file, BLOCK)):
            # One text for all is read three times as fast as a text for each.
            yield [*map(ListedImage._make, json.loads(b"[%s]" % b",".join(lines)))]


def shard_images(plan: ScoringPlan, number: int) -> list[ListedImage]:
    """All images of one shard."""
    return [image for block in read_shard(plan, number) for image in block]


def answer_key(plan: ScoringPlan, number: int) -> str:
    """A hash of the run and of a shard's listing: a part that carries it holds the shard's answers."""
    with shard_path(plan, number).open("rb") as file:
        return _key_of(plan, iter(lambda: file.read(1 << 20), b""))


def _key_of(plan: ScoringPlan, contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256(f"{plan.facts.run_id}\0".encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def find_part(plan: ScoringPlan, number: int, key: str) -> Path | None:
    """The finished part that answers a shard of this run; None if there is none."""
    path = plan.request.parts / part_name(number)
    return path if path.is_file() and part_answer_key(path) == key else None


def _line(image: ListedImage) -> str:
    # What `json.dumps` gives, in a third of its time.
    problem = "null" if image.problem is None else encode_basestring_ascii(image.problem)
    path = encode_basestring_ascii(image.path)
    return f"[{path}, {image.size}, {image.modified_ns}, {image.inode}, {problem}]\n"


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
        size += image.size
        # Whole batches, because a part of one takes the network as long.
        if count >= most_images or (size >= most_bytes and count % _WHOLE_BATCHES == 0):
            return


def _tapering(shards: Iterator[list[ListedImage]]) -> Iterator[list[ListedImage]]:
    last = deque(itertools.islice(shards, _TAPERED))
    another = next(shards, None)
    if another is None:  # A table of one or two parts stays one.
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
