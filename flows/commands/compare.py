"""`pixelmill models compare`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json, shown
from pixelmill.flows.text_table import render_table
from pixelmill.pipeline.artifacts import write_json, write_text
from pixelmill.pipeline.display import printable

if TYPE_CHECKING:
    from pixelmill.pipeline.promotion.model_comparison import (
        ComparedValue,
        DifferentImage,
        LeftOut,
        ModelComparison,
        VersionFacts,
    )

PAGE = "comparison.html"
FACTS = "comparison.json"
_MAX_IMAGES = 10


def models_compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A bundle's folder, name@alias or name@version.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The model to compare it with.")],
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            help="A folder, or a table with the columns path and label; by default, B's test images.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help=f"A folder for {PAGE} and {FACTS}.")] = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Compare two models on the same images, less those that either was trained on."""
    check_store(store)
    from pixelmill.pipeline.promotion.comparison_page import render_comparison
    from pixelmill.pipeline.promotion.model_comparison import compare_models
    from pixelmill.pipeline.registry import find_bundle

    a, b = find_bundle(store, first), find_bundle(store, second)
    found = compare_models(store, a, b, images, with_pictures=output is not None)
    if output is not None:
        write_text(output / PAGE, render_comparison(found))
        write_json(output / FACTS, found.to_json())
    if as_json:
        print_json(found.to_json())
        return
    print("\n".join(printable(line) for line in _lines(found)))
    if output is not None:
        print(printable(f"Page: {shown(output / PAGE)}"))


def _lines(found: "ModelComparison") -> Iterator[str]:
    low, high = found.agreement_interval
    yield f"A: {found.a.reference}, B: {found.b.reference}, on {found.images:,} images: {found.on}"
    yield f"Left out: {_left_out(found.left_out)}"
    yield (
        f"Same label for {found.agreement:.2%} of the images (95% interval {low:.2%} to {high:.2%}); "
        f"{len(found.different):,} differ"
    )
    if found.metrics:
        right = found.right()
        yield (
            f"Of these, only A has {right['a']:,} right, only B {right['b']:,}, and neither "
            f"{right['neither']:,}"
        )
        yield ""
        yield from _table(found.metrics, "metric")
        yield ""
        yield from _table(found.classes, "recall of class")
    else:
        yield "The true classes are not known, so only the agreement is."
    yield ""
    yield from render_table(list(_facts(found.a, found.b)), ("", "A", "B")).splitlines()
    if found.different:
        yield ""
        rows = [_row(image) for image in found.different[:_MAX_IMAGES]]
        yield from render_table(rows, ("image", "true class", "A", "B", "right")).splitlines()
        if len(found.different) > _MAX_IMAGES:
            yield f"and {len(found.different) - _MAX_IMAGES:,} more (see --json or --output)"


def _row(image: "DifferentImage") -> list[str]:
    right = {"a": "A", "b": "B", "neither": "neither", None: ""}[image.right]
    a, b = f"{image.a} {image.a_probability:.2f}", f"{image.b} {image.b_probability:.2f}"
    return [printable(cell) for cell in (image.path, image.label or "", a, b, right)]


def _left_out(out: "LeftOut") -> str:
    unknown = f"; {' and '.join(out.unknown)}: training images unknown" if out.unknown else ""
    return (
        f"{out.trained_on_by_a:,} that A was trained on, {out.trained_on_by_b:,} that B was trained on, "
        f"{out.of_other_classes:,} of classes that only one has, {out.unreadable:,} unreadable{unknown}"
    )


def _table(values: "tuple[ComparedValue, ...]", title: str) -> list[str]:
    from pixelmill.pipeline.promotion.comparison_page import describe_difference, format_range

    rows = [
        (
            printable(value.name.replace("_", " ") if title == "metric" else value.name),
            f"{value.a:.4f} ({format_range(value.a_interval)})",
            f"{value.b:.4f} ({format_range(value.b_interval)})",
            f"{value.difference:+.4f}",
            f"({format_range(value.difference_interval, signed=True)})" if value.difference_interval else "",
            describe_difference(value),
        )
        for value in values
    ]
    return render_table(rows, (title, "A", "B", "B - A", "", "")).splitlines()


def _facts(a: "VersionFacts", b: "VersionFacts") -> Iterator[tuple[str, ...]]:
    from pixelmill.pipeline.promotion.comparison_page import pair_layers

    yield "parameters", *(_count(version.parameters) for version in (a, b))
    for file in sorted({*a.files, *b.files}):
        yield f"{file}, bytes", *(_count(version.files.get(file)) for version in (a, b))
    rates = [version.images_per_second for version in (a, b)]
    yield "images/s, one thread", *(f"{rate[0]:,.0f} ({rate[1]:,.0f} to {rate[2]:,.0f})" for rate in rates)
    yield "input", a.image, b.image
    for left, right, is_same in pair_layers(a.layers, b.layers):
        yield "layer" if is_same else "layer, differs", left, right


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
