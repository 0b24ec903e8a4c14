"""`pixelmill score`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from pixelmill.flows.commands.options import (
    DEFAULT_STORE,
    Json,
    Model,
    Store,
    check_store,
    print_json,
)
from pixelmill.flows.interrupts import interrupt_message
from pixelmill.flows.scoring_parameters import as_command
from pixelmill.pipeline.bundles import Precision
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.drift.summary import describe_drift
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.commit import require_failure_rate, require_no_drift
from pixelmill.pipeline.scoring.production_sample import keep_production_sample
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.scoring.skipped import format_skipped
from pixelmill.pipeline.scoring.true_labels import format_not_classes

_PATHS = 3
_LONGEST_PATH = 200
_IMAGES_HELP = (
    "The folder or address to score, with all subfolders; a list of paths (.csv, .parquet, .jsonl or .txt); "
    "- for paths on standard input; or an archive (.zip, .tar, .tar.gz)."
)


@as_command
def score(
    model: Model,
    images: Annotated[
        str,
        typer.Argument(help=_IMAGES_HELP),
    ],
    output: Annotated[str, typer.Option("--output", help="The folder or address for the table.")],
    precision: Annotated[Precision, typer.Option("--precision", help="The ONNX file to use.")] = "fp32",
    *,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Score a folder of images into a prediction table, with one row for every image."""
    check_store(store)
    request = ScoringRequest.from_options(find_bundle(store, model, precision), images, output, options)
    kept = f"finished shards are kept in {request.output}. Run the same command again to resume."
    with interrupt_message(kept):
        table = score_folder(request)
        keep_production_sample(store, model, table)
    counts = table.manifest
    if as_json:
        print_json({"output": str(request.output), **counts})
    else:
        _print_summary(counts)
        print(f"Table: {printable(str(request.output))}")
    require_failure_rate(table, request.max_failure_rate)
    require_no_drift(table, request.max_drift)


def _print_summary(counts: Mapping[str, Any]) -> None:
    """Summarize a table from its manifest."""
    print(
        f"Scored {counts['scored']:,} of {counts['listed']:,} images in {counts['seconds']:.1f} s "
        f"({counts['images_per_second']:,.0f} images/s, {counts['provider']}, "
        f"{counts['threads']} process{'es' * (counts['threads'] != 1)})."
    )
    if counts["reused"]:
        print(f"  taken from {printable(counts['previous'])}: {counts['reused']:,}")
    if renamed := counts.get("renamed_columns"):
        names = (f"{printable(name)} is {printable(new)}" for name, new in renamed.items())
        print(f"  columns of the list with another name in the table: {', '.join(names)}")
    _print_accuracy(counts)
    if "copied_below" in counts:
        print(f"  copied for review: {counts['copied_below']:,}")
    if "decisions" in counts:
        print(f"  accepted: {counts['decisions']['accept']:,}, to review: {counts['decisions']['review']:,}")
    if counts["drift"]:
        print(f"  drift: {describe_drift(counts)}")
    for code, count in counts["failures"].items():
        paths = counts["failed_images"][code][:_PATHS]
        shown = ", ".join(
            [*(printable(_shortened(path)) for path in paths), *(["..."] if count > len(paths) else [])]
        )
        print(f"  failed: {code} {count:,} ({shown})")
    if skipped := format_skipped(counts["passed_over_kinds"]):
        print(f"Skipped: {skipped}")


def _shortened(path: str) -> str:
    return path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."


def _print_accuracy(counts: Mapping[str, Any]) -> None:
    if "accuracy" in counts:
        accuracy = counts["accuracy"]
        if accuracy["images"]:
            low, high = accuracy["interval"]
            print(
                f"  accuracy: {accuracy['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}) on "
                f"{accuracy['images']:,} images with a true label"
            )
        if left_out := format_not_classes(accuracy):
            print(f"  not in the accuracy: {left_out}")
    if "seen_in_training" in counts:
        print(f"  seen in training, so not in the accuracy: {counts['seen_in_training']:,}")
