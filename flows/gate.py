"""The last tasks of a retraining: judging a version before it is published, and promoting it."""

from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from pixelmill.flows.page import show_table
from pixelmill.flows.refusals import refusal_as_state
from pixelmill.pipeline.artifacts import scratch_folder, write_json
from pixelmill.pipeline.bundles import GATE_REPORT_FILE, ModelBundle
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset, RawDataset
from pixelmill.pipeline.promotion import (
    GATE_FILE,
    Judgement,
    Promotion,
    TestImages,
    judge_bundle,
    promote_judged,
)
from pixelmill.pipeline.promotion.pending import judge_pending
from pixelmill.pipeline.promotion.permanent_checks import collect_checks
from pixelmill.pipeline.promotion.record import record_judgement
from pixelmill.pipeline.storage import Location


@task(name="judge", cache_policy=NO_CACHE)
@refusal_as_state
def judge(
    bundle: ModelBundle,
    raw: RawDataset,
    dataset: PreparedDataset,
    recipe: Recipe,
    run: Path,
    store: Location,
) -> Judgement:
    """Compare the new version with the champion on the test images, and put the verdict into its files."""
    corrections = getattr(recipe.dataset, "corrections", None)
    if corrections is not None and (added := collect_checks(store, recipe.name, raw, corrections, run.name)):
        get_run_logger().info("%d corrected images became permanent checks", added)
    with scratch_folder("test-images", run) as folder:
        test = TestImages.of_dataset(dataset, folder)
        judge_pending(store, bundle, recipe.promotion, test)
        judgement = judge_bundle(store, bundle, recipe.promotion, test)
    record_judgement(bundle, judgement)
    show_judgement(judgement, run)
    get_run_logger().info("%s in %s", judgement.outcome(), bundle.folder / GATE_REPORT_FILE)
    return judgement


@task(name="promote", cache_policy=NO_CACHE)
@refusal_as_state
def promote(
    bundle: ModelBundle,
    judgement: Judgement,
    dataset: PreparedDataset,
    recipe: Recipe,
    run: Path,
    store: Location,
) -> Promotion:
    """Promote the new version if it passed the gate; if the alias has moved since, judge it again."""

    def judge_again() -> Judgement:
        get_run_logger().info("%s has moved, so %s is judged again", judgement.alias, judgement.reference)
        with scratch_folder("test-images", run) as folder:
            again = judge_bundle(store, bundle, recipe.promotion, TestImages.of_dataset(dataset, folder))
        show_judgement(again, run)
        return again

    promoted = promote_judged(store, bundle, judgement, judge_again)
    get_run_logger().info("%s@%s is now version %d", promoted.name, promoted.alias, promoted.version)
    return promoted


def show_judgement(judgement: Judgement, run: Path) -> None:
    """Write the verdict on every bar to the folder of the run, and show it on the page of the flow run."""
    write_json(run / GATE_FILE, judgement.to_json())
    champion = f", compared with {judgement.champion}" if judgement.champion else ""
    show_table(
        key=f"{judgement.reference.partition('@')[0].replace('_', '-')}-gate",
        table=judgement.table(),
        description=f"{judgement.reference} on {judgement.images:,} test images{champion}",
    )
