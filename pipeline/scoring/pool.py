"""Worker processes that may die: a death costs a retry, and in the end one failed row.

An image can kill the process that decodes it, by a crash or by the memory it takes. A shard whose worker
died is tried again alone; if that kills its worker too, the shard is halved until the images are found
that do it, and these become failed rows.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import replace
from logging import getLogger

from pipeline.errors import WorkError
from pipeline.processes import spawned_pool
from pipeline.scoring import ScoringPlan
from pipeline.scoring.planning import read_shard
from pipeline.scoring.working import (
    ShardResult,
    ShardTask,
    begun_mark,
    score_shard,
    start_worker,
    try_images,
)

_log = getLogger(__name__)
_DEATHS = (BrokenProcessPool, MemoryError)


def run_tasks(plan: ScoringPlan, tasks: list[ShardTask], workers: int) -> Iterator[ShardResult]:
    """Answer shards, in whatever order they get done.

    Raises:
        WorkError: Workers die before they begin a shard, or with a shard that no single image explains.
    """
    due = list(tasks)
    while due:
        for task in due:
            begun_mark(task).unlink(missing_ok=True)
        try:
            with _pool(plan, min(workers, len(due))) as pool:
                futures: dict[Future[ShardResult], ShardTask] = {
                    pool.submit(score_shard, task): task for task in due
                }
                for future in as_completed(futures):
                    result = future.result()
                    due.remove(futures[future])
                    yield result
        except _DEATHS as error:
            suspects = [task for task in due if begun_mark(task).exists()]
            if not suspects:
                raise _cannot_work("a scoring worker died before it began a shard") from error
            _log.warning("a worker died; looking into %d shards, one by one", len(suspects))
            for task in suspects:
                result = _run_alone(plan, task)
                due.remove(task)
                yield result


def _run_alone(plan: ScoringPlan, task: ShardTask) -> ShardResult:
    """Try a shard once more, then without the images that kill its worker."""
    try:
        with _pool(plan, 1) as pool:
            return pool.submit(score_shard, task).result()
    except _DEATHS:
        killers = _find_killers(plan, task, 0, len(read_shard(task.shard)))
    try:
        with _pool(plan, 1) as pool:
            return pool.submit(score_shard, replace(task, killers=frozenset(killers))).result()
    except _DEATHS as error:
        raise _cannot_work(
            f"the worker of {task.shard.name} dies, though none of its images kills one alone"
        ) from error


def _find_killers(plan: ScoringPlan, task: ShardTask, start: int, stop: int) -> list[int]:
    """The places in a shard, from `start` to before `stop`, of the images that kill a worker."""
    try:
        with _pool(plan, 1) as pool:
            pool.submit(try_images, task, start, stop).result()
        return []
    except _DEATHS:
        if stop - start == 1:
            _log.warning("%s kills its worker", read_shard(task.shard)[start].path)
            return [start]
    middle = (start + stop) // 2
    return _find_killers(plan, task, start, middle) + _find_killers(plan, task, middle, stop)


def _pool(plan: ScoringPlan, workers: int) -> AbstractContextManager[ProcessPoolExecutor]:
    request = plan.request
    arguments = (
        request.bundle,
        request.provider,
        request.images,
        plan.facts,
        request.top_k,
        request.max_pixels,
    )
    return spawned_pool(workers, start_worker, arguments)


def _cannot_work(received: str) -> WorkError:
    return WorkError(
        received,
        "workers that live",
        "Look for an out-of-memory kill in the system's log; run the same command again with fewer "
        "--workers or more memory, and it goes on with what is missing.",
    )
