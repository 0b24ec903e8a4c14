"""Worker processes that may die: a death costs a retry, and in the end one failed row.

An image can kill the process that decodes it, by a crash, by the time it takes (see `costly`), or by memory
that is not bounded elsewhere. A shard whose worker
died is tried again alone; if that kills its worker too, the shard is halved until the images are found
that do it, and these become failed rows.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from queue import SimpleQueue

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.locations import absolute
from pixelmill.pipeline.processes import spawned_pool
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.scoring.shards import Shard, shard_images
from pixelmill.pipeline.scoring.worker.costly import read_costly
from pixelmill.pipeline.scoring.worker.worker import (
    ShardResult,
    begun_mark,
    score_shard,
    start_worker,
    try_images,
)

_log = getLogger(__name__)
_DEATHS = (BrokenProcessPool, MemoryError)
Event = Shard | Future[ShardResult] | BaseException | None
"""A shard that was listed, one that was answered, what ended the listing early, or None at its end."""


@dataclass
class WorkerPool:
    """Answers shards as they are listed, in whatever order they get done.

    Attributes:
        plan: The run.
        workers: How many processes may work at once.
        marks: A folder of this machine for the marks of shards that were begun.
        is_due: Whether a listed shard is still to be answered.
        all_listed: Called when the last shard was listed.
        finish: Called with the processes when all shards are answered, for what else they can do.
        events: Where listed shards come in, and None after the last.
    """

    plan: ScoringPlan
    workers: int
    marks: Path
    is_due: Callable[[Shard], bool]
    all_listed: Callable[[], None]
    finish: Callable[[ProcessPoolExecutor], None]
    events: "SimpleQueue[Event]" = field(default_factory=SimpleQueue)
    _waiting: list[int] = field(default_factory=list, init=False)
    _is_listing: bool = field(default=True, init=False)
    _answered: int = field(default=0, init=False)
    _costly: int = field(default=0, init=False)

    def results(self) -> Iterator[ShardResult]:
        """Every shard's result.

        Raises:
            WorkError: Workers die before they begin a shard, or with a shard that no image explains.
            BaseException: What ended the listing.
        """
        while self._waiting or self._is_listing:
            answered = self._answered
            try:
                with self._pool(self.workers) as pool:
                    yield from self._results_of(pool)
                    self.finish(pool)
                    # The processes end while the table is committed.
                    pool.shutdown(wait=False)
            except _DEATHS as error:
                yield from self._after_a_death(error, self._answered > answered)

    def _results_of(self, pool: ProcessPoolExecutor) -> Iterator[ShardResult]:
        futures = {self._submit(pool, number): number for number in self._waiting}
        while futures or self._is_listing:
            event = self.events.get()
            if event is None:
                self._is_listing = False
                self.all_listed()
            elif isinstance(event, BaseException):
                raise event
            elif isinstance(event, Shard):
                if self.is_due(event):
                    self._waiting.append(event.number)
                    futures[self._submit(pool, event.number)] = event.number
            elif event in futures:  # And not of a pool that broke before.
                result = event.result()
                self._waiting.remove(futures.pop(event))
                self._answered += 1
                yield result

    def _submit(self, pool: ProcessPoolExecutor, number: int) -> "Future[ShardResult]":
        future = pool.submit(score_shard, absolute(self.plan.request.work), number)
        future.add_done_callback(self.events.put)
        return future

    def _after_a_death(self, error: BaseException, did_answer: bool) -> Iterator[ShardResult]:
        marks = {number: begun_mark(self.marks, number) for number in self._waiting}
        if self._learns_of_costly():
            _log.warning("an image took too long to decode and ended its worker; another goes on without it")
            for mark in marks.values():
                mark.unlink(missing_ok=True)
            return
        suspects = [number for number, mark in marks.items() if mark.exists()]
        if not suspects and not did_answer:
            raise _cannot_work("a scoring worker died before it began a shard") from error
        _log.warning("a worker died; looking into %d shards, one by one", len(suspects))
        for number in suspects:
            result = self._run_alone(number)
            marks[number].unlink(missing_ok=True)
            self._waiting.remove(number)
            yield result

    def _run_alone(self, number: int) -> ShardResult:
        """Try a shard once more, then without the images that kill its worker."""
        work = absolute(self.plan.request.work)
        is_worth_a_try = True
        while is_worth_a_try:
            try:
                with self._pool(1) as pool:
                    return pool.submit(score_shard, work, number).result()
            except _DEATHS:
                is_worth_a_try = self._learns_of_costly()
        killers = find_killers(
            shard_images(self.plan, number), lambda start, stop: self._survives(number, start, stop)
        )
        try:
            with self._pool(1) as pool:
                return pool.submit(score_shard, work, number, killers).result()
        except _DEATHS as error:
            raise _cannot_work(
                f"the worker of shard {number} dies, though none of its images kills one alone"
            ) from error

    def _learns_of_costly(self) -> bool:
        """Whether a worker noted an image that took too long since this was asked last."""
        before, self._costly = self._costly, len(read_costly(self.plan.request.work))
        return self._costly > before

    def _survives(self, number: int, start: int, stop: int) -> bool:
        try:
            with self._pool(1) as pool:
                pool.submit(try_images, absolute(self.plan.request.work), number, start, stop).result()
        except _DEATHS:
            return False
        return True

    def _pool(self, workers: int) -> AbstractContextManager[ProcessPoolExecutor]:
        return spawned_pool(workers, start_worker, (absolute(self.plan.request.work), self.marks))


def _cannot_work(received: str) -> WorkError:
    return WorkError(
        received,
        "workers that live",
        "Look for an out-of-memory kill in the system's log; run the same command again with fewer "
        "`workers` or more memory, and it goes on with what is missing.",
    )


_log = getLogger(__name__)


def find_killers(images: Sequence[ListedImage], survives: Callable[[int, int], bool]) -> frozenset[int]:
    """Halve a shard until the images are found that kill a worker; their places in it come back.

    Args:
        images: The shard.
        survives: Whether a worker lives that answers the images from one place to before another.
    """

    def search(start: int, stop: int) -> list[int]:
        if survives(start, stop):
            return []
        if stop - start == 1:
            _log.warning("%s kills its worker", images[start].path)
            return [start]
        middle = (start + stop) // 2
        return search(start, middle) + search(middle, stop)

    return frozenset(search(0, len(images)))
