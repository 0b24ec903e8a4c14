"""`pixelmill explain`."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json
from pixelmill.pipeline.artifacts import replacing
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import ExitCode, RequestError
from pixelmill.pipeline.explain.explanation import Explanation, Stage, explain_image
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.storage import parse_location

_WIDTH = 100
_INDENT = 28
_DIGITS = 12
_CPU = "CPUExecutionProvider"


def explain(
    predictions: Annotated[str, typer.Argument(help="The output folder or address of `pixelmill score`.")],
    image: Annotated[str, typer.Argument(help="The image_path in the table, or the path of the file.")],
    model: Annotated[
        str | None, typer.Option("--model", help="The model's bundle, if it is not in the store.")
    ] = None,
    keras: Annotated[
        bool, typer.Option("--keras/--no-keras", help="Also predict with Keras, if it is installed.")
    ] = True,
    save_tensor: Annotated[
        Path | None,
        typer.Option("--save-tensor", metavar="FILE.png", help="Save the input tensor as an image."),
    ] = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Replay one image stage by stage and report the first stage that differs from its row."""
    check_store(store)
    if save_tensor is not None and save_tensor.exists():
        raise RequestError(f"--save-tensor {save_tensor} exists", "a new file", "Choose another file.")
    explanation = explain_image(parse_location(predictions), image, store, model, keras)
    saved = save_tensor is not None and explanation.tensor is not None
    if save_tensor is not None and explanation.tensor is not None:
        with replacing(save_tensor) as temporary:
            temporary.write_bytes(encode_png(explanation.tensor))
    if as_json:
        print_json(_describe(explanation, predictions))
    else:
        _print(explanation, predictions)
        if save_tensor is not None:
            print(
                f"Tensor: {save_tensor}"
                if saved
                else "No tensor to save: the replay ended before that stage."
            )
    if explanation.first_difference is not None:
        raise typer.Exit(ExitCode.GATE_REFUSED)


def _describe(explanation: Explanation, predictions: str) -> dict[str, Any]:
    first = explanation.first_difference
    return {
        "predictions": predictions,
        "image_path": explanation.image_path,
        "first_difference": first.name if first else None,
        "stages": [vars(stage) for stage in explanation.stages],
    }


def _print(explanation: Explanation, predictions: str) -> None:
    print(printable(f"{explanation.image_path} in {predictions}"))
    for stage in explanation.stages:
        start = f"  {stage.name:11}  {stage.verdict:12}"
        print(textwrap.fill(printable(_found(stage)), _WIDTH, initial_indent=f"{start} ", **_HANGING))
        if stage.differing:
            recorded = _list({name: stage.row[name] for name in stage.differing})
            line = printable(f"{_reference(stage)} has {recorded}")
            print(textwrap.fill(line, _WIDTH, initial_indent=" " * _INDENT, **_HANGING))
    print(printable(_conclude(explanation)))


_HANGING: dict[str, Any] = {
    "subsequent_indent": " " * _INDENT,
    "break_long_words": False,
    "break_on_hyphens": False,
}


def _conclude(explanation: Explanation) -> str:
    first, last = explanation.first_difference, explanation.stages[-1]
    if first is None:
        failure = last.found.get("failure")
        ending = f", and fails in `{last.name}` with {failure}" if failure else ""
        return f"Every stage matches the row{ending}."
    now = _list({name: first.found.get(name) for name in first.differing})
    recorded = _list({name: first.row[name] for name in first.differing})
    return f"The first difference is in `{first.name}`: {now}, but {_reference(first)} has {recorded}."


def _reference(stage: Stage) -> str:
    if stage.name != "keras":
        return "the row"
    return "the manifest" if "keras_sha256" in stage.row else "ONNX"


def _found(stage: Stage) -> str:
    found = stage.found
    if "words" in found:
        return f"fails: {found['failure']}: {found['words']}" if "failure" in found else str(found["words"])
    return _WORDS[stage.name](found)


def _list(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(name, value)}" for name, value in facts.items())


def _value(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name.endswith("sha256"):
        return str(value)[:_DIGITS]
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, list):
        return " ".join(_value("", item) for item in value)
    return repr(value) if name == "label" else str(value)


def _model(found: Mapping[str, Any]) -> str:
    hashes = _list({name: found[name] for name in ("model_sha256", "preprocessing_sha256")})
    return f"{found['model']}, {found['precision']}, {hashes}"


def _listing(found: Mapping[str, Any]) -> str:
    return f"{found['path']}, {found['size']:,} bytes, a regular file"


def _bytes(found: Mapping[str, Any]) -> str:
    return f"{found['size']:,} bytes, {_list({'image_sha256': found['image_sha256']})}"


def _format(found: Mapping[str, Any]) -> str:
    size = f"{found['width']} x {found['height']} as stored"
    return f"{found['format']}, mode {found['mode']}, {size}, EXIF orientation {found['orientation']}"


def _orientation(found: Mapping[str, Any]) -> str:
    return f"{found['width']} x {found['height']} as displayed"


def _tensor(found: Mapping[str, Any]) -> str:
    shape = " x ".join(map(str, found["shape"]))
    values = f"{found['min']} to {found['max']}, mean {found['mean']:g}"
    sha256 = _list({"tensor_sha256": found["tensor_sha256"]})
    return f"{found['dtype']} {shape}, {values}, {sha256}; by Pillow alone: {found['pillow_alone']}"


def _prediction(found: Mapping[str, Any]) -> str:
    top_k = zip(found["top_labels"], found["top_probabilities"], strict=True)
    words = ", ".join(f"{label!r} {probability:.6f}" for label, probability in top_k)
    if "difference" not in found:
        return words
    words += f"; difference {found['difference']:.2g}, tolerance {found['tolerance']:g}"
    if found.get("scored_with", _CPU) == _CPU:
        return words
    return f"{words}; the row was scored with {found['scored_with']}, the replay with the CPU"


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "model": _model,
    "listing": _listing,
    "bytes": _bytes,
    "format": _format,
    "orientation": _orientation,
    "tensor": _tensor,
    "onnx": _prediction,
    "keras": _prediction,
}
