"""`pixelmill export`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json
from pixelmill.pipeline.artifacts import read_json, read_manifest
from pixelmill.pipeline.bundles import PARITY_FILE
from pixelmill.pipeline.export.loading import PixelRange
from pixelmill.pipeline.export.requests import ExportRequest, export_on_request
from pixelmill.pipeline.locations import parse_location


def export(
    output: Annotated[str, typer.Option("--output", help="The folder of the bundle; an address, too.")],
    model: Annotated[
        str | None, typer.Argument(help="The folder of a bundle, name@alias or name@version.")
    ] = None,
    runtime_version: Annotated[
        str | None, typer.Option("--runtime-version", help="The oldest onnxruntime that shall load it.")
    ] = None,
    max_abs_difference: Annotated[
        float | None,
        typer.Option(
            "--max-abs-difference",
            help="A probability has to differ from Keras's by less; else derived from the model's rounding.",
        ),
    ] = None,
    tie_margin: Annotated[
        float | None,
        typer.Option(
            "--tie-margin", help="Classes this near to each other are a tie; else twice what is allowed."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Held-out images that decide; else the test images.")
    ] = None,
    keras_file: Annotated[
        Path | None,
        typer.Option("--keras-file", help="A model trained elsewhere, in the folder MODEL or here."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="A JSON list: the class of each of its outputs.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call it; else its file's name.")] = None,
    resize: Annotated[
        Literal["stretch", "crop", "pad"] | None,
        typer.Option("--resize", help="How images are made to fit it; else stretch."),
    ] = None,
    pixel_range: Annotated[
        PixelRange | None, typer.Option("--pixel-range", help="What it expects; else 0..255.")
    ] = None,
    from_logits: Annotated[
        bool, typer.Option("--from-logits", help="Its outputs are no probabilities yet.")
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", help="Add a page that classifies images in a browser.")
    ] = False,
    web_runtime: Annotated[
        Path | None,
        typer.Option("--web-runtime", help="The npm package onnxruntime-web; else in node_modules."),
    ] = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Write a model's bundle anywhere, whole or not at all; proven anew where its ONNX file is new."""
    check_store(store)
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
        web=web,
        web_runtime=web_runtime,
    )
    export_on_request(request)
    manifest, parity = read_manifest(destination), read_json(destination / PARITY_FILE)
    if as_json:
        print_json({"output": output, "parity": parity, **manifest})
        return
    print(
        f"""{manifest["name"]}@{manifest["version"]}, opset {manifest["opset"]}
  parity   {parity["label_flips"]} of {parity["images"]:,} labels differ from Keras, \
largest difference {parity["max_abs_difference"]:.1e} (allowed {parity["allowed_difference"]:.1e})
  bundle   {output}"""
    )
    for variant in parity["variants"]:
        print(f"  {variant['precision']:8} {describe_variant(variant)}")
    if web:
        print(f"  page     {output}/web/index.html")


def describe_variant(variant: dict[str, Any]) -> str:
    """One line on a variant of the model."""
    accuracy = "" if variant["accuracy"] is None else f", accuracy {variant['accuracy']:.4f}"
    words = f"{variant['bytes'] / 1000:,.0f} kB, {variant['images_per_second']:,.0f} images/s{accuracy}"
    return f"not published: {variant['refused']}" if variant["refused"] else words
