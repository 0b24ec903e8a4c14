"""`pixelmill export`."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from humanize import naturalsize

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json
from pixelmill.pipeline.artifacts import SIGNATURE, read_json, read_manifest
from pixelmill.pipeline.bundles import PARITY_FILE
from pixelmill.pipeline.config import ExportFormat
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export import PixelRange
from pixelmill.pipeline.storage import parse_location


def export(
    output: Annotated[str, typer.Option("--output", help="The folder or address to write to.")],
    model: Annotated[
        str | None, typer.Argument(help="A bundle's folder, name@alias or name@version.")
    ] = None,
    runtime_version: Annotated[
        str | None, typer.Option("--runtime-version", help="The oldest onnxruntime that must load the model.")
    ] = None,
    max_abs_difference: Annotated[
        float | None,
        typer.Option(
            "--max-abs-difference",
            help="The bound for differences from Keras's probabilities; default: by rounding error.",
        ),
    ] = None,
    tie_margin: Annotated[
        float | None,
        typer.Option(
            "--tie-margin",
            help="Classes whose probabilities are this close are tied; default: twice that bound.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Held-out images for the parity check; default: the test images."),
    ] = None,
    keras_file: Annotated[
        Path | None,
        typer.Option(
            "--keras-file", help="A model trained elsewhere, relative to the folder MODEL or this one."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="A JSON list of the Keras file's class names.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name; default: the file's name.")
    ] = None,
    resize: Annotated[
        Literal["stretch", "crop", "pad"] | None,
        typer.Option("--resize", help="How images are resized to its input; default: stretch."),
    ] = None,
    pixel_range: Annotated[
        PixelRange | None, typer.Option("--pixel-range", help="The pixel range it expects; default: 0..255.")
    ] = None,
    from_logits: Annotated[
        bool, typer.Option("--from-logits", help="Add a softmax (or sigmoid), because it outputs logits.")
    ] = False,
    multi_label: Annotated[
        bool,
        typer.Option("--multi-label", help="An image may have several labels: sigmoid outputs."),
    ] = False,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size", metavar="SIZE", help="The image size, if it takes any: 224, or HEIGHTxWIDTH."
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMATS",
            help=f"Formats to add, separated by commas: {', '.join(get_args(ExportFormat))}.",
        ),
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="Add a page that classifies images in a browser.")
    ] = False,
    web_runtime: Annotated[
        Path | None,
        typer.Option("--web-runtime", help="The npm package onnxruntime-web; default: in node_modules."),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            "--sign",
            metavar="KEY",
            help="Sign the bundle with this private key (PEM). The password of an encrypted key: "
            "PIXELMILL_SIGN_PASSWORD.",
        ),
    ] = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Export a model's bundle, completely or not at all; every new model file must pass the parity check."""
    check_store(store)
    from pixelmill.pipeline.export.requests import ExportRequest, export_on_request

    destination = parse_location(output)
    request = ExportRequest(
        output=destination,
        store=store,
        model=model,
        runtime_version=runtime_version,
        max_abs_difference=max_abs_difference,
        tie_margin=tie_margin,
        images=images,
        keras_file=keras_file,
        labels=labels,
        name=name,
        resize=resize,
        pixel_range=pixel_range,
        from_logits=from_logits,
        multi_label=multi_label,
        image_size=parse_image_size(image_size) if image_size else None,
        formats=parse_formats(formats) if formats is not None else None,
        web=web,
        web_runtime=web_runtime,
        sign=sign,
        sign_password=os.environ.get("PIXELMILL_SIGN_PASSWORD"),
    )
    export_on_request(request)
    manifest, parity = read_manifest(destination), read_json(destination / PARITY_FILE)
    if as_json:
        print_json({"output": output, "parity": parity, **manifest})
        return
    # Older bundles say neither what was allowed, nor which variants there are.
    allowed = f" (allowed {parity['allowed_difference']:.1e})" if "allowed_difference" in parity else ""
    print(
        f"""{manifest["name"]}@{manifest["version"]}, opset {manifest["opset"]}
  parity   {parity["label_flips"]} of {parity["images"]:,} labels differ from Keras, \
largest difference {parity["max_abs_difference"]:.1e}{allowed}
  bundle   {output}"""
    )
    if sign:
        print(f"  signed   {output}/{SIGNATURE}")
    for variant in parity.get("variants", ()):
        print(f"  {variant['precision']:8} {describe_variant(variant)}")
    for result in parity.get("formats", ()):
        print(f"  {result['format']:8} {describe_format(result)}")
    if web:
        print(f"  page     {output}/web/index.html")


def parse_image_size(text: str) -> tuple[int, int]:
    """The height and width in a text such as `224` or `240x320`.

    Raises:
        RequestError: The text is not a size.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise RequestError(
            f"--image-size {text}", "a size such as 224, or HEIGHTxWIDTH such as 240x320", "Correct it."
        )
    return int(sides[0]), int(sides[-1])


def parse_formats(text: str) -> tuple[ExportFormat, ...]:
    """The formats in a text such as `onnx,litert`.

    Raises:
        RequestError: One is unknown or named twice.
    """
    known = get_args(ExportFormat)
    found = [name.strip() for name in text.split(",")]
    for name in found:
        if name not in known or found.count(name) > 1:
            raise RequestError(
                f"--format {text}",
                f"each of {', '.join(known)} at most once, separated by commas",
                f"Correct {name!r}.",
            )
    return tuple(name for name in known if name in found)


def describe_format(result: dict[str, Any]) -> str:
    """Describe a file in another format in one line."""
    if result["refused"]:
        return f"{result['file']} is not published: {result['refused']}"
    difference = max(result["max_abs_difference"], result["golden_difference"])
    return (
        f"{result['file']}, {naturalsize(result['bytes'])}, {result['label_flips']} of "
        f"{result['images']:,} labels differ, largest difference {difference:.1e}"
    )


def describe_variant(variant: dict[str, Any]) -> str:
    """Describe a variant of the model in one line."""
    accuracy = "" if variant["accuracy"] is None else f", accuracy {variant['accuracy']:.4f}"
    if variant["refused"]:
        return f"not published: {variant['refused']}"
    return f"{naturalsize(variant['bytes'])}, {variant['images_per_second']:,.0f} images/s{accuracy}"
