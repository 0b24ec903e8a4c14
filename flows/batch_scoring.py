"""The scoring flow: plan, score, commit. `pixelmill score` runs the same functions without Prefect."""

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from pixelmill.flows.page import show_table
from pixelmill.flows.refusals import ending_refused
from pixelmill.pipeline.bundles import Precision
from pixelmill.pipeline.decoding import DEFAULT_MAX_MEMORY, DEFAULT_MAX_SECONDS
from pixelmill.pipeline.images import DEFAULT_MAX_PIXELS
from pixelmill.pipeline.inference import Provider
from pixelmill.pipeline.locations import parse_location
from pixelmill.pipeline.predictions import TableFormat
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring import Engine, PredictionTable, ScoringOutcome, ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.commit import commit_table, require_failure_rate
from pixelmill.pipeline.scoring.dask_engine import run_shards
from pixelmill.pipeline.scoring.passed_over import format_passed_over
from pixelmill.pipeline.scoring.plan import holding_output, plan_scoring
from pixelmill.pipeline.scoring.run import outcome_of, score_shards
from pixelmill.pipeline.scoring.tally import Tally
from pixelmill.pipeline.scoring.worker.worker import ShardResult, score_shard


@flow(name="score", flow_run_name="score {images} with {model}", validate_parameters=True)
@ending_refused
def score(
    model: str,
    images: str,
    output: str,
    store: str = "artifacts",
    format: TableFormat = "parquet",  # noqa: A002
    top_k: int = 1,
    precision: Precision = "fp32",
    workers: int | None = None,
    provider: Provider = "cpu",
    max_failure_rate: float = 0.01,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_image_memory: int = DEFAULT_MAX_MEMORY,
    max_image_seconds: float = DEFAULT_MAX_SECONDS,
    globs: tuple[str, ...] = (),
    labels_from_folders: bool = False,
    previous: str | None = None,
    trust_mtime: bool = False,
    fresh: bool = False,
    engine: Engine = "local",
    dask_address: str | None = None,
) -> dict[str, Any]:
    """Score a folder of images: a row for each, whatever happens to any of them."""
    request = ScoringRequest(
        bundle=find_bundle(parse_location(store), model, precision),
        images=parse_location(images),
        output=parse_location(output),
        format=format,
        top_k=top_k,
        workers=workers,
        provider=provider,
        max_failure_rate=max_failure_rate,
        max_pixels=max_pixels,
        max_image_memory=max_image_memory,
        max_image_seconds=max_image_seconds,
        globs=globs,
        labels_from_folders=labels_from_folders,
        previous=parse_location(previous) if previous else None,
        trust_mtime=trust_mtime,
        fresh=fresh,
        engine=engine,
        dask_address=dask_address,
    )
    with holding_output(request.output):
        plan = plan_run(request)
        outcome = score_images(plan) if engine == "local" else score_on_cluster(plan)
        table = commit(plan, outcome)
    require_failure_rate(table, max_failure_rate)
    return table.manifest


@task(name="plan", cache_policy=NO_CACHE)
def plan_run(request: ScoringRequest) -> ScoringPlan:
    """Check the request; begin its run, or find the interrupted one that it goes on with."""
    plan = plan_scoring(request)
    get_run_logger().info("%s", plan.facts.run_id)
    return plan


@task(name="score", cache_policy=NO_CACHE)
def score_images(plan: ScoringPlan) -> ScoringOutcome:
    """List the images and answer them; one task drives its own processes: a task an image costs more."""
    outcome = score_shards(plan)
    get_run_logger().info("%d images in %d shards", outcome.listed, len(outcome.shard_keys))
    return outcome


def score_on_cluster(plan: ScoringPlan) -> ScoringOutcome:
    """List the images and answer them on a Dask cluster, a task a shard of about 90 seconds of work."""
    from prefect_dask.task_runners import DaskTaskRunner

    # A task runner belongs to a flow: this one is part of the flow around it, and runs its tasks there.
    runner: Any = DaskTaskRunner(address=plan.request.dask_address)
    return score_shards_on_cluster.with_options(task_runner=runner)(plan)


@flow(name="score shards", flow_run_name="shards of {plan.facts.run_id}", validate_parameters=False)
def score_shards_on_cluster(plan: ScoringPlan) -> ScoringOutcome:
    """List the images, and start a task for each shard of them."""
    tally = Tally()
    with progress("score", None, "images") as meter:
        submit: Any = score_one_shard.submit
        run_shards(plan, tally, meter, submit)
    return outcome_of(plan, tally, len(tally.workers), f"the Dask cluster at {plan.request.dask_address}")


@task(name="score shard", task_run_name="shard {number}", cache_policy=NO_CACHE)
def score_one_shard(work: str, number: int) -> ShardResult:
    """Score one shard of the run in a work folder, on whatever machine this is."""
    return score_shard(work, number)


@task(name="commit", cache_policy=NO_CACHE)
def commit(plan: ScoringPlan, outcome: ScoringOutcome) -> PredictionTable:
    """Check that no row is missing, and put the table in its place."""
    table = commit_table(plan, outcome)
    shown = ("listed", "scored", "failed", "images_per_second", "seconds", "provider", "threads")
    show_table(
        key="scoring-counts",
        table=[{"what": name, "value": table.manifest[name]} for name in shown],
        description=f"{plan.facts.model_name}@{plan.facts.model_version} over {plan.request.images}",
    )
    get_run_logger().info("%d rows in %s", table.manifest["listed"], table.folder)
    if passed_over := format_passed_over(table.manifest["passed_over_kinds"]):
        get_run_logger().info("passed over: %s", passed_over)
    return table
