"""Thumbnails of the least confident images, made in processes that a decoder may crash.

The workers make them before they exit, once all rows are known. Thumbnails that are still missing, because
the rows are from an earlier attempt or another machine, are made by separate processes during the commit.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.costs import require_affordable
from pixelmill.pipeline.decoding.guard import guard
from pixelmill.pipeline.decoding.memory import MEMORY_LIMIT
from pixelmill.pipeline.decoding.pool import map_guarded
from pixelmill.pipeline.decoding.time_limit import WATCH, TimeLimit
from pixelmill.pipeline.image_encoding import encode_thumbnail
from pixelmill.pipeline.images import ImageFailure
from pixelmill.pipeline.predictions.arrays import numbers_of
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.plan import read_plan
from pixelmill.pipeline.scoring.worker.source_reader import read_images
from pixelmill.pipeline.storage import absolute, parse_location

if TYPE_CHECKING:
    import pyarrow as pa

MOST_UNCERTAIN = 24
_SIDE = 96
Thumbnails = Mapping[str, bytes | None]
"""PNG or JPEG files by image path; None where no thumbnail can be made."""


class Uncertain(NamedTuple):
    """A scored image and its top-1 probability."""

    probability: float
    path: str


def least_confident(rows: "pa.Table") -> list[Uncertain]:
    """The scored rows with the lowest probabilities, lowest first."""
    import pyarrow.compute as pc

    scored = np.ones(len(rows), bool)
    scored[pc.indices_nonzero(pc.is_valid(rows["error"])).to_pylist()] = False
    probabilities = np.where(scored, numbers_of(rows["probability"], np.float32), np.inf)
    lowest = np.argsort(probabilities, kind="stable")[: min(MOST_UNCERTAIN, int(scored.sum()))]
    paths = rows["image_path"]
    return [Uncertain(float(probabilities[at]), paths[int(at)].as_py()) for at in lowest]


def merge_uncertain(*lists: Iterable[Uncertain]) -> tuple[Uncertain, ...]:
    """Merge lists of `least_confident` into one."""
    return tuple(heapq.nsmallest(MOST_UNCERTAIN, (item for items in lists for item in items)))


def make_thumbnails(
    plan: ScoringPlan, uncertain: Sequence[Uncertain], workers: Executor, count: int
) -> Thumbnails:
    """Make the thumbnails in the workers of a run; some are missing if a worker dies."""
    paths, work = [image.path for image in uncertain], absolute(plan.request.work)
    made: dict[str, bytes | None] = {}
    shares = [paths[start::count] for start in range(min(count, len(paths)))]
    try:
        for found in [workers.submit(_make, work, share) for share in shares]:
            made |= found.result()
    except (BrokenProcessPool, MemoryError):
        pass
    return made


def find_thumbnails(plan: ScoringPlan, paths: Sequence[str], made: Thumbnails) -> Iterator[bytes | None]:
    """The thumbnail of each path; missing ones are made now."""
    limits = plan.request.limits
    missing = list(dict.fromkeys(path for path in paths if path not in made))
    contents = dict(read_images(plan.source, missing))
    small = map_guarded(partial(_make_one, limits), contents.values(), processor_limit().count, limits)
    found: dict[str, bytes | ImageFailure | None] = {**made, **dict(zip(contents, small, strict=True))}
    for path in paths:
        thumbnail = found.get(path)
        yield None if isinstance(thumbnail, ImageFailure) else thumbnail


def _make(work: str, paths: Sequence[str]) -> dict[str, bytes | None]:
    """Make the thumbnails of some images; runs in a worker."""
    plan = read_plan(parse_location(work))
    limits = plan.request.limits
    time = TimeLimit(limits.max_seconds, lambda path: None)
    WATCH.add(time)
    made: dict[str, bytes | None] = dict.fromkeys(paths)
    for path, content in read_images(plan.source, paths):
        time.begin(path)
        try:
            with MEMORY_LIMIT.allowing(limits.max_memory):
                made[path] = guard(_make_one, limits, limits, content)
        except ImageFailure:
            made[path] = None
        time.end()
    WATCH.remove(time)
    return made


def _make_one(limits: DecodingLimits, data: bytes) -> bytes:
    require_affordable(data, limits)
    return encode_thumbnail(data, _SIDE)
