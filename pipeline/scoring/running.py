"""The second stage of scoring: every shard answered, by a pool of single-threaded sessions."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from pipeline.inference import require_provider
from pipeline.predictions import part_listing, part_name, read_columns
from pipeline.progress import progress
from pipeline.resources import processor_limit
from pipeline.scoring import ScoringOutcome, ScoringPlan
from pipeline.scoring.planning import SHARD_SIZE, answer_key, shard_path
from pipeline.scoring.pool import run_tasks
from pipeline.scoring.working import ShardTask


def score_shards(plan: ScoringPlan) -> ScoringOutcome:
    """Answer the shards that no earlier try of this run has answered, and failed rows once more.

    Raises:
        WorkError: The workers cannot work; what is finished is kept.
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
        for result in run_tasks(plan, tasks, workers):
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
