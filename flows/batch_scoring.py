"""The scoring flow: plan, score, commit. `pixelmill score` runs the same functions without Prefect."""

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from pixelmill.flows.page import show_table
from pixelmill.flows.refusals import refusal_as_state, require_result
from pixelmill.flows.scoring_parameters import as_flow
from pixelmill.flows.supervision import supervised
from pixelmill.pipeline.bundles import Precision
from pixelmill.pipeline.drift.summary import describe_drift, tabulate_drift
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring import PredictionTable, ScoringOutcome, ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.commit import commit_table, require_failure_rate, require_no_drift
from pixelmill.pipeline.scoring.dask_engine import run_shards
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.production_sample import keep_production_sample
from pixelmill.pipeline.scoring.run import outcome_of, score_shards
from pixelmill.pipeline.scoring.skipped import format_skipped
from pixelmill.pipeline.scoring.tally import Tally
from pixelmill.pipeline.scoring.worker.worker import ShardResult, score_shard
from pixelmill.pipeline.storage import parse_location


@flow(name="score", flow_run_name="score {images} with {model}", validate_parameters=True)
@refusal_as_state
@supervised
@as_flow
def score(
    model: str,
    images: str,
    output: str,
    store: str = "artifacts",
    precision: Precision = "fp32",
    **options: Any,
) -> dict[str, Any]:
    """Score a folder of images into a prediction table, with one row for every image.

    Args:
        model: `name@alias`, `name@version`, or the folder of a bundle.
        images: The folder or address to score, with all subfolders; a list of paths; or an archive.
        output: The folder or address for the table.
        store: The folder or address of the artifacts root.
        precision: The ONNX file to use.
        **options: The fields of `ScoringOptions`.
    """
    bundle = find_bundle(parse_location(store), model, precision)
    request = ScoringRequest.from_options(bundle, images, output, options)
    table = run_stages(request)
    keep_production_sample(parse_location(store), model, table)
    require_failure_rate(table, request.max_failure_rate)
    require_no_drift(table, request.max_drift)
    return table.manifest


def run_stages(request: ScoringRequest) -> PredictionTable:
    """The stages of a scoring run, from the plan to the published table."""
    with lock_output(request.output):
        plan = require_result(plan_run(request))
        outcome = (
            require_result(score_images(plan)) if request.executor == "local" else score_on_cluster(plan)
        )
        return require_result(commit(plan, outcome))


@task(name="plan", cache_policy=NO_CACHE)
@refusal_as_state
def plan_run(request: ScoringRequest) -> ScoringPlan:
    """Check the request, and start a run or resume an interrupted one."""
    plan = plan_scoring(request)
    get_run_logger().info("%s", plan.facts.run_id)
    return plan


@task(name="score", cache_policy=NO_CACHE)
@refusal_as_state
def score_images(plan: ScoringPlan) -> ScoringOutcome:
    """List and predict the images with worker processes, in one task for all of them."""
    outcome = score_shards(plan)
    get_run_logger().info("%d images in %d shards", outcome.listed, len(outcome.shard_keys))
    return outcome


def score_on_cluster(plan: ScoringPlan) -> ScoringOutcome:
    """List and predict the images on a Dask cluster, with one task for about 90 seconds of work."""
    from prefect_dask.task_runners import DaskTaskRunner

    # A task runner belongs to a flow, so the tasks on the cluster are in a subflow.
    runner: Any = DaskTaskRunner(address=plan.request.dask_address)
    return score_shards_on_cluster.with_options(task_runner=runner)(plan)


@flow(name="score shards", flow_run_name="shards of {plan.facts.run_id}", validate_parameters=False)
def score_shards_on_cluster(plan: ScoringPlan) -> ScoringOutcome:
    """List the images, and submit a task for each shard."""
    tally = Tally()
    with progress("score", None, "images") as meter:
        submit: Any = score_one_shard.submit
        run_shards(plan, tally, meter, submit)
    return outcome_of(plan, tally, len(tally.workers), f"the Dask cluster at {plan.request.dask_address}")


@task(name="score shard", task_run_name="shard {number}", cache_policy=NO_CACHE)
def score_one_shard(work: str, number: int) -> ShardResult:
    """Score one shard of the run with the given work folder."""
    return score_shard(work, number)


@task(name="commit", cache_policy=NO_CACHE)
@refusal_as_state
def commit(plan: ScoringPlan, outcome: ScoringOutcome) -> PredictionTable:
    """Check that no row is missing, and publish the table."""
    table = commit_table(plan, outcome)
    shown = ("listed", "scored", "failed", "images_per_second", "seconds", "provider", "threads")
    show_table(
        key="scoring-counts",
        table=[{"what": name, "value": table.manifest[name]} for name in shown],
        description=f"{plan.facts.model_name}@{plan.facts.model_version} over {plan.request.images}",
    )
    if drift := table.manifest["drift"]:
        show_table(
            key="scoring-drift",
            table=tabulate_drift(drift),
            description=f"{drift['verdict']}: {describe_drift(table.manifest)}",
        )
        (get_run_logger().warning if drift["verdict"] == "drifted" else get_run_logger().info)(
            "drift: %s", describe_drift(table.manifest)
        )
    get_run_logger().info("%d rows in %s", table.manifest["listed"], table.folder)
    if skipped := format_skipped(table.manifest["passed_over_kinds"]):
        get_run_logger().info("skipped: %s", skipped)
    return table
