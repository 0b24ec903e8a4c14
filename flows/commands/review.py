"""`pixelmill review`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json, shown
from pixelmill.pipeline.artifacts import write_text
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.review import CORRECTIONS_FILE, MOST_IMAGES, ReviewFormat
from pixelmill.pipeline.storage import parse_location

if TYPE_CHECKING:
    from pixelmill.pipeline.review.label_studio import ExportedAnswers
    from pixelmill.pipeline.review.review import Review

_MAX_NAMES = 3


def review(
    predictions: Annotated[
        str | None,
        typer.Argument(metavar="TABLE", help="The output folder or address of `pixelmill score`."),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="An empty or new folder for the page.")
    ],
    images: Annotated[
        str | None,
        typer.Option("--images", help="The folder that was scored, if it is elsewhere now."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, max=MOST_IMAGES, help="The largest number of images.")
    ] = 100,
    previous: Annotated[
        str | None,
        typer.Option(
            "--previous",
            help="An earlier table, for images that got another class; default: the one of the table.",
        ),
    ] = None,
    as_format: Annotated[
        ReviewFormat, typer.Option("--format", help="A page, or tasks for Label Studio.")
    ] = "page",
    from_label_studio: Annotated[
        Path | None,
        typer.Option(
            "--from-label-studio",
            metavar="FILE.json",
            help=f"Write {CORRECTIONS_FILE} from what Label Studio exported, in place of a review.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The model's bundle, if it is not in the store.")
    ] = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Make a page of the images most worth a person's look, which saves corrections for the next training."""
    if (predictions is None) == (from_label_studio is None):
        raise RequestError(
            "no table" if predictions is None else f"a table and --from-label-studio {from_label_studio}",
            "a table to review, or an export of Label Studio",
            "Write `pixelmill review TABLE --output DIR`.",
        )
    if from_label_studio is not None:
        _import(from_label_studio, output, as_json)
        return
    check_store(store)
    from pixelmill.pipeline.review.review import ReviewRequest, make_review

    made = make_review(
        ReviewRequest(
            table=parse_location(str(predictions)),
            output=output,
            store=store,
            model=model,
            images=parse_location(images) if images else None,
            previous=parse_location(previous) if previous else None,
            count=count,
            format=as_format,
        )
    )
    if as_json:
        print_json(
            {
                "output": str(made.folder),
                "file": str(made.file),
                "images": made.images,
                "reasons": made.reasons,
                "left_out": made.left_out,
                "not_judged": made.not_judged,
            }
        )
    else:
        _print(made)


def _print(made: "Review") -> None:
    from pixelmill.pipeline.review.reasons import REASONS

    print(f"{made.images:,} images to review")
    for name, reason in REASONS.items():
        if made.reasons[name]:
            print(f"  {made.reasons[name]:>5,}  {reason.title}")
    for name, why in made.not_judged.items():
        print(printable(f"  not looked for: {REASONS[name].title} ({why})"))
    if made.left_out:
        print(f"Left out: {made.left_out:,} whose file is gone, changed or unreadable")
    print(printable(f"Open {shown(made.file)}"))


def _import(file: Path, output: Path, as_json: bool) -> None:
    """Write the corrections in an export of Label Studio."""
    from pixelmill.pipeline.review.label_studio import corrections_of, read_export

    target = output / CORRECTIONS_FILE
    if target.exists():
        raise RequestError(
            f"{target} exists", "a new file", "Choose another --output, or move the file away."
        )
    found = read_export(file)
    write_text(target, corrections_of(found.answers))
    if as_json:
        print_json(
            {
                "file": str(target),
                "corrections": len(found.answers),
                "unanswered": found.unanswered,
                "disagreements": list(found.disagreements),
            }
        )
    else:
        _print_import(found, target)


def _print_import(found: "ExportedAnswers", target: Path) -> None:
    print(f"{len(found.answers):,} corrections, {found.unanswered:,} tasks without an answer")
    if found.disagreements:
        names = ", ".join(found.disagreements[:_MAX_NAMES])
        more = ", ..." if len(found.disagreements) > _MAX_NAMES else ""
        print(printable(f"Left out: {len(found.disagreements):,} with different answers ({names}{more})"))
    print(printable(f"Corrections: {shown(target)}"))
