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
    parse_size,
    print_json,
)
from pixelmill.flows.interrupts import telling_of_interrupts
from pixelmill.pipeline.bundles import Precision
from pixelmill.pipeline.decoding import DEFAULT_MAX_SECONDS
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.images import DEFAULT_MAX_PIXELS
from pixelmill.pipeline.inference import Provider
from pixelmill.pipeline.locations import parse_location
from pixelmill.pipeline.predictions import TableFormat
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring import Engine, ScoringRequest
from pixelmill.pipeline.scoring.commit import require_failure_rate
from pixelmill.pipeline.scoring.passed_over import format_passed_over
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.scoring.true_labels import format_not_classes

_PATHS = 3


def score(
    model: Model,
    images: Annotated[str, typer.Argument(help="The folder to score, all levels of it; an address, too.")],
    output: Annotated[str, typer.Option("--output", help="The folder of the table; an address, too.")],
    format: Annotated[TableFormat, typer.Option("--format")] = "parquet",  # noqa: A002
    top_k: Annotated[int, typer.Option("--top-k", help="Choices kept for each image.")] = 1,
    precision: Annotated[Precision, typer.Option("--precision", help="Which ONNX file.")] = "fp32",
    workers: Annotated[int | None, typer.Option("--workers", help="Default: the processors.")] = None,
    provider: Annotated[Provider, typer.Option("--provider")] = "cpu",
    engine: Annotated[Engine, typer.Option("--engine", help="Processes here, or a Dask cluster.")] = "local",
    dask_address: Annotated[
        str | None, typer.Option("--dask-address", help="Of the cluster's scheduler: tcp://HOST:PORT.")
    ] = None,
    previous: Annotated[
        str | None, typer.Option("--previous", help="An earlier table: what it has is not scored again.")
    ] = None,
    trust_mtime: Annotated[
        bool,
        typer.Option("--trust-mtime", help="With --previous: do not read files of the same size and time."),
    ] = False,
    globs: Annotated[
        list[str] | None,
        typer.Option("--glob", metavar="PATTERN", help="List files of these names, not by extension."),
    ] = None,
    labels_from_folders: Annotated[
        bool, typer.Option("--labels-from-folders", help="An image's first folder is its true label.")
    ] = False,
    max_failure_rate: Annotated[
        float, typer.Option("--max-failure-rate", help="More failed rows: exit code 3.")
    ] = 0.01,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", help="Larger images are failed rows.")
    ] = DEFAULT_MAX_PIXELS,
    max_image_memory: Annotated[
        str,
        typer.Option(
            "--max-image-memory",
            metavar="SIZE",
            help="Images that take more memory to decode are failed rows: 512MB, 2GB.",
        ),
    ] = "1GB",
    max_image_seconds: Annotated[
        float, typer.Option("--max-image-seconds", help="So are images that take longer to decode.")
    ] = DEFAULT_MAX_SECONDS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace what the output holds.")] = False,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Score a folder of images: one row for every image, always."""
    check_store(store)
    request = ScoringRequest(
        bundle=find_bundle(store, model, precision),
        images=parse_location(images),
        output=parse_location(output),
        format=format,
        top_k=top_k,
        workers=workers,
        provider=provider,
        engine=engine,
        dask_address=dask_address,
        previous=parse_location(previous) if previous else None,
        trust_mtime=trust_mtime,
        globs=tuple(globs or ()),
        labels_from_folders=labels_from_folders,
        max_failure_rate=max_failure_rate,
        max_pixels=max_pixels,
        max_image_memory=parse_size("--max-image-memory", max_image_memory),
        max_image_seconds=max_image_seconds,
        fresh=fresh,
    )
    kept = f"finished shards are kept in {output}. Run the same command again to go on."
    with telling_of_interrupts(kept):
        table = score_folder(request)
    counts = table.manifest
    if as_json:
        print_json({"output": output, **counts})
    else:
        _print_summary(counts)
        print(f"Table: {printable(output)}")
    require_failure_rate(table, max_failure_rate)


def _print_summary(counts: Mapping[str, Any]) -> None:
    """Print what a person wants to know of a table, from its manifest."""
    print(
        f"Scored {counts['scored']:,} of {counts['listed']:,} images in {counts['seconds']:.1f} s "
        f"({counts['images_per_second']:,.0f} images/s, {counts['provider']}, "
        f"{counts['threads']} processes)."
    )
    if counts["reused"]:
        print(f"  taken from {printable(counts['previous'])}: {counts['reused']:,}")
    if "accuracy" in counts:
        accuracy = counts["accuracy"]
        if accuracy["images"]:
            print(f"  accuracy: {accuracy['accuracy']:.4f} on {accuracy['images']:,} images in folders")
        if left_out := format_not_classes(accuracy):
            print(f"  not in the accuracy: {left_out}")
    for code, count in counts["failures"].items():
        paths = counts["failed_images"][code][:_PATHS]
        shown = ", ".join([*map(printable, paths), *(["..."] if count > len(paths) else [])])
        print(f"  failed: {code} {count:,} ({shown})")
    if passed_over := format_passed_over(counts["passed_over_kinds"]):
        print(f"Skipped: {passed_over}")
