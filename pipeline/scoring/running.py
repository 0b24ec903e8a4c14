"""The second stage of scoring: every shard answered, by a pool of single-threaded sessions."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from pipeline.errors import WorkError
from pipeline.inference import require_provider
from pipeline.predictions import part_listing, part_name, read_columns
from pipeline.processes import spawned_pool
from pipeline.progress import progress
from pipeline.resources import processor_limit
from pipeline.scoring import ScoringOutcome, ScoringPlan
from pipeline.scoring.planning import SHARD_SIZE, answer_key, shard_path
from pipeline.scoring.working import ShardResult, ShardTask, score_shard, start_worker


def score_shards(plan: ScoringPlan) -> ScoringOutcome:
    """Answer the shards that no earlier try of this run has answered, and failed rows once more.

    Raises:
        WorkError: A worker died, or the disk is full; what is finished is kept.
    """
    start = time.monotonic()
    request = plan.request
    limit = processor_limit()
    tasks = [task for shard in range(plan.shards) if (task := _task_for(plan, shard)) is not None]
    workers = request.workers or limit.count
    reason = "as asked for" if request.workers else limit.reason
    if len(tasks) < workers:
        workers, reason = max(len(tasks), 1), f"shards of {SHARD_SIZE} images that were due: {len(tasks)}"
    computed = failed = 0
    seconds: Counter[str] = Counter()
    with progress("score", plan.listed, "images") as advance:
        finished = plan.shards - len(tasks)
        if finished:
            advance(min(finished * SHARD_SIZE, plan.listed), "found finished")
        for result in _run(plan, tasks, workers):
            computed += result.computed
            failed += result.failed
            seconds.update(result.seconds)
            advance(result.rows, f"{failed:,} failed" if failed else "")
    return ScoringOutcome(
        provider=require_provider(request.provider),
        workers=workers,
        workers_reason=reason,
        computed=computed,
        seconds=time.monotonic() - start,
        stage_seconds={stage: round(seconds[stage], 3) for stage in sorted(seconds)},
    )


def find_part(plan: ScoringPlan, shard: int) -> Path | None:
    """The part that answers a shard of this run, committed already or not; None if there is none."""
    key = answer_key(plan, shard)
    for folder in (plan.request.parts, plan.request.output):
        path = folder / part_name(shard)
        if path.is_file() and part_listing(path) == key:
            return path
    return None


def _task_for(plan: ScoringPlan, shard: int) -> ShardTask | None:
    task = ShardTask(
        shard=shard_path(plan.request, shard),
        part=plan.request.parts / part_name(shard),
        answer_key=answer_key(plan, shard),
        earlier=None,
    )
    found = find_part(plan, shard)
    if found is None:
        return task
    try:
        has_failures = "failed" in read_columns(found, ["status"])["status"]
    except (OSError, ValueError):
        return task  # Its end is whole and its middle is not.
    return replace(task, earlier=found) if has_failures else None


def _run(plan: ScoringPlan, tasks: list[ShardTask], workers: int) -> Iterator[ShardResult]:
    request = plan.request
    arguments = (
        request.bundle,
        request.provider,
        request.images,
        plan.facts,
        request.top_k,
        request.max_pixels,
    )
    if not tasks:
        return
    pool = spawned_pool(workers, start_worker, arguments)
    try:
        futures: list[Future[ShardResult]] = [pool.submit(score_shard, task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkError(
            "a scoring worker died",
            "all of them to live",
            "Look for an out-of-memory kill in the system's log; run the same command again, and it "
            "goes on with what is missing.",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
