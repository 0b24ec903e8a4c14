"""The nightly scoring flow: each date gets a table of its own, below one root."""

from datetime import UTC, date, datetime
from functools import partial
from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.context import FlowRunContext
from prefect.states import Completed

from pixelmill.flows.batch_scoring import run_stages
from pixelmill.flows.events import ModelEvent, tell
from pixelmill.flows.refusals import refusal_as_state
from pixelmill.flows.scoring_parameters import as_flow
from pixelmill.flows.supervision import supervised
from pixelmill.pipeline.bundles import Precision
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest
from pixelmill.pipeline.scoring.commit import require_failure_rate, require_no_drift
from pixelmill.pipeline.scoring.listing import holds_images
from pixelmill.pipeline.scoring.nights import (
    newest_table,
    night_folder,
    parse_night,
    reference_for_night,
    unfinished_nights,
)
from pixelmill.pipeline.scoring.production_sample import keep_production_sample
from pixelmill.pipeline.storage import parse_location


@flow(name="score-nightly", flow_run_name="score {images} with {model}", validate_parameters=True)
@refusal_as_state
@supervised
@partial(as_flow, leave_out=("previous", "fresh", "max_drift", "run_date"))
def score_nightly(
    model: str,
    images: str,
    root: str,
    night: str = "",
    store: str = "artifacts",
    precision: Precision = "fp32",
    max_drift: float = 0.1,
    max_hours: float = 0.0,
    **options: Any,
) -> dict[str, Any]:
    """Score a folder of images into the table of a night, `ROOT/run_date=2026-11-25/`.

    Rows of the newest finished table are reused where model and image are the same. A night that was
    interrupted goes on with its version of the model. A folder without images is no failure.

    Args:
        model: `name@alias`, `name@version`, or the folder of a bundle.
        images: The folder or address to score, with all subfolders.
        root: The folder or address below which each night gets its folder.
        night: The date of the table, such as 2026-11-25; empty for the date that the run was due, in UTC.
        store: The folder or address of the artifacts root.
        precision: The ONNX file to use.
        max_drift: The largest drift from the model's test images, beyond chance; above, it is refused.
        max_hours: The longest time that the run may take, in hours; 0 for no limit.
        **options: The fields of `ScoringOptions`.
    """
    day = parse_night(night) if night else date_of_run()
    log = get_run_logger()
    place = parse_location(images)
    if place.is_dir() and not holds_images(place, tuple(options.get("globs", ()))):
        log.info("nothing to do: %s has no images", images)
        return cast("dict[str, Any]", Completed(message=f"nothing to do: {images} has no images", data={}))
    for other in unfinished_nights(root, day):
        log.warning("the night %s was not finished; to finish it, run this flow with its date", other)
    output, previous = night_folder(root, day), newest_table(root, day)
    reference = reference_for_night(output, model)
    log.info("%s with %s, previous: %s", output, reference, previous or "none")
    bundle = find_bundle(parse_location(store), reference, precision)
    options.update(previous=previous, max_drift=max_drift)
    request = ScoringRequest.from_options(bundle, images, output, options)
    table = run_stages(request)
    keep_production_sample(parse_location(store), model, table)
    judge(table, bundle.name, request.max_failure_rate, max_drift)
    return table.manifest


def date_of_run() -> date:
    """The date that the current run was due, in UTC: a run that starts late still belongs to its night."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    due = run.expected_start_time if run else None
    return (due or datetime.now(UTC)).astimezone(UTC).date()


def judge(table: PredictionTable, model: str, max_failure_rate: float, max_drift: float) -> None:
    """Check the limits of a finished table, and tell Prefect's automations if it is beyond one.

    Raises:
        GateRefused: Too many rows failed, or the predictions have drifted.
    """
    facts = {"table": str(table.folder), "images": table.manifest["listed"]}
    try:
        require_failure_rate(table, max_failure_rate)
    except GateRefused:
        tell(ModelEvent.FAILURES, model, failed=table.manifest["failed"], **facts)
        raise
    try:
        require_no_drift(table, max_drift)
    except GateRefused:
        tell(ModelEvent.DRIFT, model, drift=_drifted(table), limit=max_drift, **facts)
        raise


def _drifted(table: PredictionTable) -> dict[str, float]:
    """The distance of each measure that has drifted."""
    rows = table.manifest["drift"]["measures"]
    return {row["measure"]: row["value"] for row in rows if row["verdict"] == "drifted"}
