"""The last stage of scoring: check that no row is missing, put the table in its place, say what it holds."""

import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import MANIFEST, describe_file, provenance, write_json
from pipeline.drift import AnswerCounts, measure_drift
from pipeline.errors import GateRefused, WorkError
from pipeline.predictions import (
    CSV_FILE,
    part_name,
    read_columns,
    table_files,
    write_csv,
)
from pipeline.scoring import PredictionTable, ScoringOutcome, ScoringPlan
from pipeline.scoring.planning import LOCK_FILE, describe_request
from pipeline.scoring.running import find_part


@dataclass
class _Totals:
    rows: int = 0
    scored: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    answers: AnswerCounts | None = None
    last_path: str = ""


def commit_table(plan: ScoringPlan, outcome: ScoringOutcome) -> PredictionTable:
    """Put the finished table into the output, its manifest last.

    Raises:
        WorkError: A shard has no part, or a path stands twice or out of order.
    """
    request = plan.request
    parts = [_require_part(plan, shard) for shard in range(plan.shards)]
    totals = _count(plan, parts)
    _put_in_place(plan, parts)
    manifest: dict[str, Any] = {
        "kind": "prediction-table",
        "listed": plan.listed,
        "scored": totals.scored,
        "failed": totals.rows - totals.scored,
        "failures": dict(sorted(totals.failures.items())),
        "labels": dict(sorted(totals.labels.items())),
        "drift": totals.answers and measure_drift(request.bundle.baseline(), totals.answers),
        "computed": outcome.computed,
        "seconds": round(time.monotonic() - plan.started, 3),
        "images_per_second": round(outcome.computed / outcome.seconds, 1),
        "stage_seconds": outcome.stage_seconds,
        "provider": outcome.provider,
        "threads": outcome.workers,
        "threads_reason": f"{outcome.workers_reason}; one single-threaded session a process",
        "request": describe_request(request),
        "run": vars(plan.facts),
        **provenance(),
    }
    _finish(plan, {**manifest, "files": _describe_table(request.output)})
    return PredictionTable(request.output, manifest)


def require_failure_rate(table: PredictionTable, max_failure_rate: float) -> None:
    """Refuse a table with too many failed rows; it stays as it is.

    Raises:
        GateRefused: More rows failed than allowed.
    """
    failed, listed = table.manifest["failed"], table.manifest["listed"]
    if failed / listed > max_failure_rate:
        codes = ", ".join(f"{code} {count}" for code, count in table.manifest["failures"].items())
        raise GateRefused(
            f"{failed} of {listed} images failed ({codes})",
            f"at most {max_failure_rate:.2%}",
            f"The table in {table.folder} is complete; its `error` column says why for each.",
        )


def _require_part(plan: ScoringPlan, shard: int) -> Path:
    part = find_part(plan, shard)
    if part is None:
        raise WorkError(
            f"shard {shard} of {plan.shards} has no part",
            "a part for every shard",
            "Run the same command again; it scores what is missing.",
        )
    return part


def _count(plan: ScoringPlan, parts: list[Path]) -> _Totals:
    """Read every row back and see that listed = scored + failed, with no path twice."""
    totals = _Totals()
    classes = len(plan.request.bundle.labels())
    names = ["image_path", "status", "error", "label", "class_index", "probability"]
    for part in parts:
        rows = read_columns(part, names)
        for path in rows["image_path"]:
            if path <= totals.last_path:
                raise WorkError(
                    f"row {path!r} comes after {totals.last_path!r}",
                    "every path once, in order",
                    "The output was changed while the run wrote it: run again with --fresh.",
                )
            totals.last_path = path
        totals.rows += len(rows["status"])
        totals.scored += rows["status"].count("scored")
        totals.failures.update(text.split(":")[0] for text in rows["error"] if text)
        totals.labels.update(label for label in rows["label"] if label is not None)
        answers = AnswerCounts.of(
            [index for index in rows["class_index"] if index is not None],
            [value for value in rows["probability"] if value is not None],
            classes,
        )
        totals.answers = answers if totals.answers is None else totals.answers + answers
    if totals.rows != plan.listed:
        raise WorkError(
            f"{totals.rows} rows",
            f"{plan.listed}, one for every image listed",
            "The output was changed while the run wrote it: run again with --fresh.",
        )
    return totals


def _put_in_place(plan: ScoringPlan, parts: list[Path]) -> None:
    """From the first removal to the manifest the table is not one; a run killed there goes on here."""
    output, work = plan.request.output, plan.request.work
    if plan.request.format == "csv":
        # Written before anything is removed, because this is where a disk fills up.
        write_csv(work / CSV_FILE, parts, plan.request.top_k)
        moves = {work / CSV_FILE: output / CSV_FILE}
    else:
        moves = {part: output / part_name(shard) for shard, part in enumerate(parts)}
    (output / MANIFEST).unlink(missing_ok=True)
    for source, target in moves.items():
        source.replace(target)
    for old in table_files(output):
        if old not in moves.values():
            old.unlink()


def _describe_table(output: Path) -> dict[str, dict[str, str | int]]:
    return {path.name: describe_file(path) for path in table_files(output)}


def _finish(plan: ScoringPlan, manifest: dict[str, Any]) -> None:
    write_json(plan.request.output / MANIFEST, manifest)
    # Its run file first: without it the rest is litter, not a run to go on with.
    for path in sorted(plan.request.work.iterdir(), key=lambda path: path.is_dir()):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()
