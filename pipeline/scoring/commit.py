"""The last stage of scoring: check that the table is complete, write its manifest and report, publish it."""

from collections.abc import Sequence
from typing import Any

from pixelmill.pipeline.artifacts import (
    MANIFEST,
    describe_file,
    provenance,
    remove_file,
    remove_folder,
    write_json,
    write_text,
)
from pixelmill.pipeline.artifacts.formats import format_of
from pixelmill.pipeline.drift.class_totals import estimate_class_totals
from pixelmill.pipeline.drift.comparison import measure_drift
from pixelmill.pipeline.drift.expected_accuracy import expect_accuracy
from pixelmill.pipeline.errors import GateRefused, WorkError
from pixelmill.pipeline.predictions import CSV_FILE, PARTS_FOLDER, REPORT_FILE
from pixelmill.pipeline.predictions.csv_format import write_csv
from pixelmill.pipeline.predictions.parts import join_parts, part_name
from pixelmill.pipeline.predictions.publication import publish_table
from pixelmill.pipeline.predictions.table import KIND
from pixelmill.pipeline.scoring import PredictionTable, ScoringOutcome, ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.copies import copy_uncertain
from pixelmill.pipeline.scoring.counts import TableCounts, UncertainRow, count_rows
from pixelmill.pipeline.scoring.plan import LOCK_FILE, describe_request
from pixelmill.pipeline.scoring.report import ReportContent, UncertainImage, render_scoring_report
from pixelmill.pipeline.scoring.shards import find_part
from pixelmill.pipeline.scoring.thumbnails import find_thumbnails
from pixelmill.pipeline.storage import Location, absolute, children


def commit_table(plan: ScoringPlan, outcome: ScoringOutcome) -> PredictionTable:
    """Write the finished table to the output, the manifest last.

    Raises:
        WorkError: A shard has no part, or a path is duplicated or out of order.
    """
    parts = [_require_part(plan, number, key) for number, key in enumerate(outcome.shard_keys)]
    counts = count_rows(parts, plan.labels, plan.layout, plan.source.is_sorted)
    if counts.rows != outcome.listed:
        raise WorkError(
            f"{counts.rows} rows",
            f"{outcome.listed}, one for each listed image",
            "The output was modified during the run; run again with `fresh`.",
        )
    manifest = _describe_run(plan, outcome, counts)
    request = plan.request
    if request.copy_to is not None:
        manifest["copied_below"] = copy_uncertain(plan, parts)
    write_text(request.work / REPORT_FILE, _render_report(plan, outcome, manifest, counts))
    if request.format == "csv":
        write_csv(request.work / CSV_FILE, parts, plan.layout)
    else:
        if request.single_file:
            joined = request.parts / part_name(0)
            join_parts(parts, joined, plan.layout, plan.facts.run_id, counts.images.to_text())
            parts = [joined]
        _remove_all_but(parts, request.parts)
    manifest["files"] = _describe_files(request, parts)
    # The new table is complete. Until here, an earlier table in the output is untouched.
    write_json(request.work / MANIFEST, manifest)
    publish_table(request.output)
    _clear_work(plan)
    return PredictionTable(request.output, manifest)


def require_failure_rate(table: PredictionTable, max_failure_rate: float) -> None:
    """Check that no more rows failed than allowed. The table itself is left as it is.

    Raises:
        GateRefused: Too many rows failed.
    """
    failed, listed = table.manifest["failed"], table.manifest["listed"]
    if failed / listed > max_failure_rate:
        codes = ", ".join(f"{code} {count}" for code, count in table.manifest["failures"].items())
        raise GateRefused(
            f"{failed} of {listed} images failed ({codes})",
            f"at most {max_failure_rate:.2%}",
            f"The table in {table.folder} is complete; its `error` column gives the reason for each image.",
        )


def require_no_drift(table: PredictionTable, max_drift: float | None) -> None:
    """Check that no measure drifted further than allowed. The table itself is left as it is.

    Raises:
        GateRefused: One did, and a limit was given.
    """
    drift = table.manifest["drift"]
    if max_drift is None or drift is None or drift["verdict"] == "stable":
        return
    found = [
        f"{row['measure']} by {row['value']:.3f} (threshold {row['threshold']:.3f} at this size)"
        for row in drift["measures"]
        if row["verdict"] == "drifted"
    ]
    raise GateRefused(
        f"images that differ from the model's test images: {', '.join(found)}",
        f"a drift of at most {max_drift:g} beyond chance",
        f"The table in {table.folder} is complete. See its {REPORT_FILE}; if these images are right, retrain "
        "with some of them, or raise `max_drift`.",
    )


def _require_part(plan: ScoringPlan, number: int, key: str) -> Location:
    part = find_part(plan, number, key)
    if part is None:
        raise WorkError(
            f"shard {number} has no part",
            "a part for every shard",
            "Run the same command again to score the missing shards.",
        )
    return part


def _describe_run(plan: ScoringPlan, outcome: ScoringOutcome, counts: TableCounts) -> dict[str, Any]:
    request = plan.request
    predicted = outcome.computed + outcome.reused + outcome.copied
    # The startup time can exceed the total if the system clock was changed during the run.
    baseline = request.bundle.baseline()
    drift = measure_drift(baseline, counts.predictions, counts.images, request.max_drift)
    at_work = max(outcome.seconds - outcome.startup_seconds or outcome.seconds, 1e-9)
    return {
        "kind": KIND,
        **format_of(KIND),
        "listed": outcome.listed,
        "scored": counts.scored,
        "failed": counts.rows - counts.scored,
        "failures": dict(sorted(counts.failures.items())),
        "failed_images": {
            code: [image.path for image in images] for code, images in sorted(counts.failed_images.items())
        },
        "passed_over": outcome.skipped.total,
        "passed_over_kinds": outcome.skipped.describe(),
        "labels": dict(sorted(counts.labels.items())),
        "class_totals": estimate_class_totals(baseline, counts.predictions, plan.labels, drift),
        "drift": drift,
        "expected_accuracy": expect_accuracy(baseline, counts.predictions, drift),
        **({"decisions": counts.decisions} if plan.layout.decisions else {}),
        **({"accuracy": counts.true_labels.accuracy()} if plan.layout.true_labels else {}),
        **({"seen_in_training": counts.seen} if plan.layout.seen else {}),
        **_describe_list(plan),
        "computed": outcome.computed,
        "reused": outcome.reused,
        "copied": outcome.copied,
        "previous": request.previous and absolute(request.previous),
        "seconds": round(outcome.seconds, 3),
        "startup_seconds": round(outcome.startup_seconds, 3),
        "images_per_second": round(predicted / at_work, 1),
        "stage_seconds": outcome.stage_seconds,
        "provider": outcome.provider,
        "threads": outcome.workers,
        "threads_reason": f"{outcome.workers_reason}; one single-threaded session per process",
        "request": describe_request(request, plan.source),
        "run": vars(plan.facts),
        **provenance(),
    }


def _describe_list(plan: ScoringPlan) -> dict[str, Any]:
    """The columns that a list brought, and which of them have another name in the table."""
    if plan.source.listed is None:
        return {}
    columns = plan.source.listed.columns
    renamed = {name: new for name, new in columns.items() if name != new}
    return {"passed_through": list(columns.values()), "renamed_columns": renamed}


def _render_report(
    plan: ScoringPlan, outcome: ScoringOutcome, manifest: dict[str, Any], counts: TableCounts
) -> str:
    return render_scoring_report(
        ReportContent(
            manifest=manifest,
            confidence_counts=counts.predictions.confidences.tolist(),
            failures=counts.failed_images,
            least_confident=_show(plan, outcome, counts.least_confident),
        )
    )


def _show(plan: ScoringPlan, outcome: ScoringOutcome, rows: Sequence[UncertainRow]) -> list[UncertainImage]:
    thumbnails = find_thumbnails(plan, [row.path for row in rows], outcome.thumbnails)
    return [
        UncertainImage(row.path, row.label, row.probability, thumbnail)
        for row, thumbnail in zip(rows, thumbnails, strict=True)
    ]


def _describe_files(request: ScoringRequest, parts: Sequence[Location]) -> dict[str, Any]:
    """Size and SHA-256 of the files in the work folder, by the name each will have in the output."""
    rows = (
        {CSV_FILE: request.work / CSV_FILE}
        if request.format == "csv"
        else {f"{PARTS_FOLDER}/{part.name}": part for part in parts}
    )
    files = {**rows, REPORT_FILE: request.work / REPORT_FILE}
    return {name: describe_file(path) for name, path in files.items()}


def _remove_all_but(parts: Sequence[Location], folder: Location) -> None:
    """Remove the parts of an earlier, longer listing and the temporary files of killed workers."""
    kept = {part.name for part in parts}
    for path in children(folder):
        if path.name not in kept:
            remove_file(path)


def _clear_work(plan: ScoringPlan) -> None:
    # The run file goes first: without it, what remains after a crash is not mistaken for a run to resume.
    for path in sorted(children(plan.request.work), key=lambda path: path.is_dir()):
        if path.is_dir():
            remove_folder(path)
        elif path.name != LOCK_FILE:
            remove_file(path)
