"""Worker processes that may die: a death costs a retry, and in the end one failed row.

An image can kill the process that decodes it, by a crash or by the memory it takes. A shard whose worker
died is tried again alone; if that kills its worker too, the shard is halved until the images are found
that do it, and these become failed rows.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from queue import SimpleQueue

from pipeline.errors import WorkError
from pipeline.locations import absolute
from pipeline.processes import spawned_pool
from pipeline.scoring import ScoringPlan
from pipeline.scoring.killers import find_killers
from pipeline.scoring.shards import Shard, shard_images
from pipeline.scoring.working import ShardResult, begun_mark, score_shard, start_worker, try_images

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
        events: Where listed shards come in, and None after the last.
    """

    plan: ScoringPlan
    workers: int
    marks: Path
    is_due: Callable[[Shard], bool]
    all_listed: Callable[[], None]
    events: "SimpleQueue[Event]" = field(default_factory=SimpleQueue)

    def results(self) -> Iterator[ShardResult]:
        """Every shard's result.

        Raises:
            WorkError: Workers die before they begin a shard, or with a shard that no image explains.
            BaseException: What ended the listing.
        """
        waiting: list[int] = []
        listing = True
        while waiting or listing:
            answered = 0
            try:
                with self._pool(self.workers) as pool:
                    futures = {self._submit(pool, number): number for number in waiting}
                    while futures or listing:
                        event = self.events.get()
                        if event is None:
                            listing = False
                            self.all_listed()
                        elif isinstance(event, BaseException):
                            raise event
                        elif isinstance(event, Shard):
                            if self.is_due(event):
                                waiting.append(event.number)
                                futures[self._submit(pool, event.number)] = event.number
                        elif event in futures:  # And not of a pool that broke before.
                            result = event.result()
                            waiting.remove(futures.pop(event))
                            answered += 1
                            yield result
                    # The processes end while the table is committed.
                    pool.shutdown(wait=False)
            except _DEATHS as error:
                suspects = [number for number in waiting if begun_mark(self.marks, number).exists()]
                if not suspects and not answered:
                    raise _cannot_work("a scoring worker died before it began a shard") from error
                yield from self._after_a_death(waiting, suspects)

    def _submit(self, pool: ProcessPoolExecutor, number: int) -> "Future[ShardResult]":
        future = pool.submit(score_shard, absolute(self.plan.request.work), number)
        future.add_done_callback(self.events.put)
        return future

    def _after_a_death(self, waiting: list[int], suspects: list[int]) -> Iterator[ShardResult]:
        _log.warning("a worker died; looking into %d shards, one by one", len(suspects))
        for number in suspects:
            result = self._run_alone(number)
            begun_mark(self.marks, number).unlink(missing_ok=True)
            waiting.remove(number)
            yield result

    def _run_alone(self, number: int) -> ShardResult:
        """Try a shard once more, then without the images that kill its worker."""
        work = absolute(self.plan.request.work)
        try:
            with self._pool(1) as pool:
                return pool.submit(score_shard, work, number).result()
        except _DEATHS:
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
        "--workers or more memory, and it goes on with what is missing.",
    )
