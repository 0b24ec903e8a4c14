"""Scoring in worker processes on this machine. The crash of a worker costs a retry and at most a failed row.

An image can crash the process that decodes it, take too long (see `timeouts`), or use more memory than there
is. The shard of a crashed worker is run again on its own; if it crashes again, the shard is bisected to find
the images responsible, and these become failed rows.
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
from pixelmill.pipeline.processes import spawned_pool
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.scoring.shards import Shard, shard_images
from pixelmill.pipeline.scoring.worker.timeouts import read_timeouts
from pixelmill.pipeline.scoring.worker.worker import (
    ShardResult,
    marker_file,
    score_shard,
    start_worker,
    try_images,
)
from pixelmill.pipeline.storage import absolute

_log = getLogger(__name__)
_DEATHS = (BrokenProcessPool, MemoryError)
Event = Shard | Future[ShardResult] | BaseException | None
"""A listed shard, a finished shard, the exception that ended the listing, or None at its end."""


@dataclass
class WorkerPool:
    """Scores shards as they are listed, and yields results in the order of completion.

    Attributes:
        plan: The run.
        workers: The number of worker processes.
        marks: A local folder for the marker files of shards in progress.
        is_due: Whether a listed shard still has to be scored.
        all_listed: Called once the last shard is listed.
        finish: Called with the process pool once all shards are scored, for remaining work.
        events: The queue of listed shards, with None after the last, and of finished ones.
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
    _completed: int = field(default=0, init=False)
    _timeouts: int = field(default=0, init=False)

    def results(self) -> Iterator[ShardResult]:
        """The result of each shard that is due.

        Raises:
            WorkError: Workers crash before they start a shard, or on a shard none of whose images does so.
            BaseException: Whatever ended the listing early.
        """
        while self._waiting or self._is_listing:
            completed = self._completed
            try:
                with self._pool(self.workers) as pool:
                    yield from self._results_of(pool)
                    self.finish(pool)
                    # Do not wait: the processes exit while the table is committed.
                    pool.shutdown(wait=False)
            except _DEATHS as error:
                yield from self._handle_death(error, self._completed > completed)

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
            elif event in futures:  # Futures of an earlier, broken pool are ignored.
                result = event.result()
                self._waiting.remove(futures.pop(event))
                self._completed += 1
                yield result

    def _submit(self, pool: ProcessPoolExecutor, number: int) -> "Future[ShardResult]":
        future = pool.submit(score_shard, absolute(self.plan.request.work), number)
        future.add_done_callback(self.events.put)
        return future

    def _handle_death(self, error: BaseException, has_progressed: bool) -> Iterator[ShardResult]:
        marks = {number: marker_file(self.marks, number) for number in self._waiting}
        if self._has_new_timeout():
            _log.warning(
                "an image exceeded the decoding time limit and its worker was stopped; it is skipped"
            )
            for mark in marks.values():
                mark.unlink(missing_ok=True)
            return
        suspects = [number for number, mark in marks.items() if mark.exists()]
        if not suspects and not has_progressed:
            raise _workers_died("a scoring worker died before it started a shard") from error
        _log.warning("a worker died; running its %d unfinished shards again, one by one", len(suspects))
        for number in suspects:
            result = self._run_alone(number)
            marks[number].unlink(missing_ok=True)
            self._waiting.remove(number)
            yield result

    def _run_alone(self, number: int) -> ShardResult:
        """Run a shard again, and if it crashes its worker, without the images responsible."""
        work = absolute(self.plan.request.work)
        is_retrying = True
        while is_retrying:
            try:
                with self._pool(1) as pool:
                    return pool.submit(score_shard, work, number).result()
            except _DEATHS:
                is_retrying = self._has_new_timeout()
        crashing = find_crashing_images(
            shard_images(self.plan, number), lambda start, stop: self._survives(number, start, stop)
        )
        try:
            with self._pool(1) as pool:
                return pool.submit(score_shard, work, number, crashing).result()
        except _DEATHS as error:
            raise _workers_died(
                f"shard {number} crashes its worker, though none of its images does so on its own"
            ) from error

    def _has_new_timeout(self) -> bool:
        """Whether a worker has recorded another image over the time limit since the last call."""
        before, self._timeouts = self._timeouts, len(read_timeouts(self.plan.request.work))
        return self._timeouts > before

    def _survives(self, number: int, start: int, stop: int) -> bool:
        try:
            with self._pool(1) as pool:
                pool.submit(try_images, absolute(self.plan.request.work), number, start, stop).result()
        except _DEATHS:
            return False
        return True

    def _pool(self, workers: int) -> AbstractContextManager[ProcessPoolExecutor]:
        return spawned_pool(workers, start_worker, (absolute(self.plan.request.work), self.marks))


def _workers_died(received: str) -> WorkError:
    return WorkError(
        received,
        "worker processes that finish their shards",
        "Look for an out-of-memory kill in the system log; run the same command again with fewer "
        "`workers` or more memory to resume the run.",
    )


def find_crashing_images(
    images: Sequence[ListedImage], survives: Callable[[int, int], bool]
) -> frozenset[int]:
    """Bisect a shard to find the images that crash a worker.

    Args:
        images: The images of the shard.
        survives: Whether a worker survives the images from index `start` up to, not including, `stop`.

    Returns:
        The indices of the crashing images.
    """

    def search(start: int, stop: int) -> list[int]:
        if survives(start, stop):
            return []
        if stop - start == 1:
            _log.warning("%s crashes its worker", images[start].path)
            return [start]
        middle = (start + stop) // 2
        return search(start, middle) + search(middle, stop)

    return frozenset(search(0, len(images)))
