"""The second stage of scoring: list the images and score every shard of the listing."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from pixelmill.pipeline.artifacts import provenance
from pixelmill.pipeline.progress import Meter, progress
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.scoring import PredictionTable, ScoringOutcome, ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.commit import commit_table
from pixelmill.pipeline.scoring.dask_engine import score_on_cluster
from pixelmill.pipeline.scoring.local_engine import WorkerPool
from pixelmill.pipeline.scoring.options import Executor
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.report import load_template
from pixelmill.pipeline.scoring.shards import Shard, growing_limits, write_shards
from pixelmill.pipeline.scoring.skipped import SkippedFiles
from pixelmill.pipeline.scoring.tally import Tally
from pixelmill.pipeline.scoring.thumbnails import make_thumbnails
from pixelmill.pipeline.storage import local_folder

# A shard takes a fraction of the time where most rows are reused from an earlier table.
_GROWTH_OF_QUICK_SHARDS = 8


def score_shards(plan: ScoringPlan) -> ScoringOutcome:
    """List the images and score the shards that an interrupted run has not finished. Failed rows are retried.

    Raises:
        RequestError: The model cannot be loaded.
        WorkError: The workers crash; finished shards are kept.
    """
    tally = Tally()
    with progress("score", None, "images") as meter:
        workers, reason = _EXECUTORS[plan.request.executor](plan, tally, meter)
    return outcome_of(plan, tally, workers, reason)


def outcome_of(plan: ScoringPlan, tally: Tally, workers: int, reason: str) -> ScoringOutcome:
    """The outcome of a finished run."""
    seconds = (tally.done_at or time.monotonic()) - plan.clock
    return ScoringOutcome(
        listed=tally.listed,
        shard_keys=tuple(tally.shard_keys),
        provider=", ".join(sorted(tally.providers)) or "none: no images to score",
        workers=workers,
        workers_reason=reason,
        computed=tally.computed,
        reused=tally.reused,
        copied=tally.copied,
        skipped=tally.skipped,
        seconds=seconds,
        # The system clock may be changed during a run.
        startup_seconds=min(max(tally.ready_at - plan.started, 0.0), seconds),
        stage_seconds={stage: round(tally.seconds[stage], 3) for stage in sorted(tally.seconds)},
        thumbnails=tally.thumbnails,
    )


def _score_locally(plan: ScoringPlan, tally: Tally, meter: Meter) -> tuple[int, str]:
    limit = processor_limit()
    # One process owns the GPU, and the others decode for it.
    on_gpu = plan.request.provider == "cuda"
    workers = tally.most_workers = 1 if on_gpu else plan.request.workers or limit.count

    def is_due(shard: Shard) -> bool:
        due = tally.list_shard(plan, shard)
        if not due:
            meter(shard.images, tally.note)
        return due

    def finish(pool: ProcessPoolExecutor) -> None:
        tally.done_at = time.monotonic()
        tally.thumbnails = make_thumbnails(plan, tally.uncertain, pool, workers)

    threading.Thread(target=_preload_for_commit, daemon=True).start()
    with local_folder(plan.request.work / "begun") as marks:
        pool = WorkerPool(plan, workers, marks, is_due, lambda: meter.expect(tally.listed), finish)
        with _listing(plan, pool, tally.skipped):
            for result in pool.results():
                tally.add(result)
                meter(result.rows, tally.note)
    # Replacements of crashed workers do not count.
    at_work = min(len(tally.workers), workers)
    if on_gpu:
        return at_work, f"one process owns the GPU, and {plan.request.workers or limit.count} decode for it"
    if tally.due < workers:
        return at_work, f"one for each shard that was due: {tally.due}"
    return at_work, "as requested" if plan.request.workers else limit.reason


def _preload_for_commit() -> None:
    """Load what the commit needs while the workers load the model, so that it takes no time at the end."""
    load_template()
    provenance()


@contextmanager
def _listing(plan: ScoringPlan, pool: WorkerPool, skipped: SkippedFiles) -> Iterator[None]:
    """List the images in a thread, so that the pool starts before the listing is complete."""
    stopped = threading.Event()

    def work() -> None:
        try:
            limits = growing_limits(_GROWTH_OF_QUICK_SHARDS if plan.request.previous else 1)
            for shard in write_shards(plan, limits, tapers=True, skipped=skipped):
                if stopped.is_set():
                    return
                pool.events.put(shard)
            pool.events.put(None)
        except BaseException as error:  # noqa: BLE001  # The pool raises it again.
            pool.events.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        # Do not keep a user who pressed Ctrl-C waiting while it lists a very large folder.
        thread.join(timeout=1)


_EXECUTORS: dict[Executor, Callable[[ScoringPlan, Tally, Meter], tuple[int, str]]] = {
    "local": _score_locally,
    "dask": score_on_cluster,
}


def score_folder(request: ScoringRequest) -> PredictionTable:
    """Score a folder or list of images into a prediction table; see `pixelmill.pipeline.scoring`.

    Raises:
        RequestError: The request is invalid.
        WorkError: Scoring failed; finished shards are kept, and running again resumes.
    """
    with lock_output(request.output):
        plan = plan_scoring(request)
        outcome = score_shards(plan)
        return commit_table(plan, outcome)
