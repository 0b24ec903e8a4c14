"""The scoring flow: list, score, commit. `pixelmill score` runs the same functions without Prefect."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pipeline.images import DEFAULT_MAX_PIXELS
from pipeline.inference import Provider
from pipeline.predictions import TableFormat
from pipeline.registry import find_bundle
from pipeline.scoring import PredictionTable, ScoringOutcome, ScoringPlan, ScoringRequest
from pipeline.scoring.committing import commit_table, require_failure_rate
from pipeline.scoring.planning import holding_output, plan_scoring
from pipeline.scoring.running import score_shards


@flow(name="score", flow_run_name="score {images} with {model}", validate_parameters=True)
def score(
    model: str,
    images: Path,
    output: Path,
    store: Path = Path("artifacts"),
    format: TableFormat = "parquet",  # noqa: A002
    top_k: int = 1,
    workers: int | None = None,
    provider: Provider = "cpu",
    max_failure_rate: float = 0.01,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    fresh: bool = False,
) -> dict[str, Any]:
    """Score a folder of images: a row for each, whatever happens to any of them."""
    request = ScoringRequest(
        bundle=find_bundle(store, model),
        images=images,
        output=output,
        format=format,
        top_k=top_k,
        workers=workers,
        provider=provider,
        max_failure_rate=max_failure_rate,
        max_pixels=max_pixels,
        fresh=fresh,
    )
    with holding_output(output):
        plan = list_images(request)
        outcome = score_images(plan)
        table = commit(plan, outcome)
    require_failure_rate(table, max_failure_rate)
    return table.manifest


@task(name="list", cache_policy=NO_CACHE)
def list_images(request: ScoringRequest) -> ScoringPlan:
    """Write the list of images down, in shards."""
    plan = plan_scoring(request)
    get_run_logger().info("%d images in %d shards", plan.listed, plan.shards)
    return plan


@task(name="score", cache_policy=NO_CACHE)
def score_images(plan: ScoringPlan) -> ScoringOutcome:
    """Answer every shard; one task drives its own processes, because a task a shard costs more."""
    return score_shards(plan)


@task(name="commit", cache_policy=NO_CACHE)
def commit(plan: ScoringPlan, outcome: ScoringOutcome) -> PredictionTable:
    """Check that no row is missing, and put the table in its place."""
    table = commit_table(plan, outcome)
    shown = ("listed", "scored", "failed", "images_per_second", "seconds", "provider", "threads")
    create_table_artifact(
        key="scoring-counts",
        table=[{"what": name, "value": table.manifest[name]} for name in shown],
        description=f"{plan.facts.model_name}@{plan.facts.model_version} over {plan.request.images}",
    )
    get_run_logger().info("%d rows in %s", table.manifest["listed"], table.folder)
    return table
