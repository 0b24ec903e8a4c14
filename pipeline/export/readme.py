"""A bundle's `README.md`, for the team that receives it: inputs, outputs and example programs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import (
    EMBEDDINGS_FILE,
    LABELS_FILE,
    METRICS_FILE,
    ONNX_FILES,
    PREPROCESSING_FILE,
    README_FILE,
    Precision,
)
from pixelmill.pipeline.bundles.engines import ENGINES
from pixelmill.pipeline.bundles.model_files import (
    OPENVINO_FILE,
    OPENVINO_WEIGHTS_FILE,
    ORT_FILE,
    ORT_OPERATORS_FILE,
    TRITON_FOLDER,
)
from pixelmill.pipeline.config import ExportFormat, ImageSpec
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.evaluation.summary import escape_markdown
from pixelmill.pipeline.export.engine_agreement import EngineAgreement
from pixelmill.pipeline.export.formats.agreement import FormatResult
from pixelmill.pipeline.export.parity import Parity
from pixelmill.pipeline.export.proof import read_proof
from pixelmill.pipeline.export.web import WEB_FOLDER
from pixelmill.pipeline.templates import open_templates

ExampleLanguage = Literal["python", "js", "csharp", "java", "cpp"]
"""The languages of the examples, as used in Markdown code fences."""

_TEMPLATE = "readme.md.jinja"
_NAMES_SHOWN = 20
_RESIZE = {
    "stretch": "Resize the whole image to {width} x {height}, ignoring its aspect ratio.",
    "crop": "Crop the largest centered box with the aspect ratio {width} : {height} and resize it to "
    "{width} x {height}.",
    "pad": "Resize the whole image to fit into {width} x {height}, keeping its aspect ratio, and fill the "
    "rest evenly on both sides with grey {background}.",
}
_VARIANTS: dict[Precision, str] = {
    "fp16": "16-bit weights",
    "int8": "8-bit weights and activations",
}

# The cell for the files of a format, if it is not the one file, and what they are.
_FORMATS: dict[ExportFormat, tuple[str, str]] = {
    "litert": ("", "for LiteRT, formerly TensorFlow Lite"),
    "openvino": (f"`{OPENVINO_FILE}`, `{OPENVINO_WEIGHTS_FILE}`", "OpenVINO's intermediate representation"),
    "ort": (f"`{ORT_FILE}`, `{ORT_OPERATORS_FILE}`", "for a small build of ONNX Runtime, and what it needs"),
    "triton": (f"`{TRITON_FOLDER}/`", "a model repository for Triton Inference Server"),
}


@dataclass(frozen=True)
class HeldOutResults:
    """The model's results on its test images; `accuracy` is between 0 and 1."""

    accuracy: float
    loss: float
    images: int


@dataclass(frozen=True)
class ReadmeFacts:
    """The content of a bundle's `README.md`.

    Attributes:
        name: The model's name.
        version: The version number in the registry.
        image: The model's input.
        class_names: The class names, in the order of the probabilities.
        opset: The ONNX opset.
        licence: The licence in the recipe.
        results: The results on labelled test images; None if there are none.
        parity: The comparison of the ONNX file with the Keras model.
        engines: For a model trained elsewhere, a line of Markdown about each engine's predictions.
        variants: The precisions of the variants in the bundle.
        formats: The results of the files in other formats.
        web: Whether the bundle contains a page for browsers.
        embedding_size: The number of values of an embedding; 0 without a file that gives them.
        multi_label: Whether an image may have several labels.
    """

    name: str
    version: int
    image: ImageSpec
    class_names: tuple[str, ...]
    opset: int
    licence: str
    results: HeldOutResults | None
    parity: Parity
    engines: tuple[str, ...] = ()
    variants: tuple[Precision, ...] = ()
    formats: tuple[FormatResult, ...] = ()
    web: bool = False
    embedding_size: int = 0
    multi_label: bool = False


def render_readme(facts: ReadmeFacts) -> str:
    """Render a bundle's `README.md`, with a complete program in each `ExampleLanguage`."""
    # The output is Markdown and source code; names are escaped by `escape_markdown`.
    environment = open_templates("pixelmill.pipeline.export", autoescape=False)
    environment.keep_trailing_newline = True  # Included code blocks end with a newline.
    environment.filters["escape_markdown"] = escape_markdown
    environment.filters["printable"] = printable
    return environment.get_template(_TEMPLATE).render(
        facts=facts,
        image=facts.image,
        names=_list_names(facts.class_names),
        onnx_files=ONNX_FILES,
        embeddings_file=EMBEDDINGS_FILE,
        variant_words=_VARIANTS,
        format_words=_FORMATS,
        resize_words=_RESIZE[facts.image.resize].format(**facts.image.model_dump()),
    )


def _list_names(class_names: tuple[str, ...]) -> str:
    shown = ", ".join(escape_markdown(name) for name in class_names[:_NAMES_SHOWN])
    more = len(class_names) - _NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def write_readme(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `README.md` after the bundle's other files.

    Args:
        folder: The bundle's folder.
        facts: The content of its manifest.

    Raises:
        RequestError: `parity.json` does not have this version's format.
    """
    test, proof = read_json(folder / METRICS_FILE)["test"], read_proof(folder)
    known = test["accuracy"] is not None
    readme = ReadmeFacts(
        name=facts["name"],
        version=facts["version"],
        image=ImageSpec.model_validate(read_json(folder / PREPROCESSING_FILE)["spec"]),
        class_names=tuple(read_json(folder / LABELS_FILE)),
        opset=facts["opset"],
        licence=facts["licence"],
        results=HeldOutResults(test["accuracy"], test["loss"], test["images"]) if known else None,
        parity=proof.parity,
        engines=tuple(_describe_engine(engine) for engine in proof.engines),
        variants=tuple(
            precision
            for precision, file in ONNX_FILES.items()
            if precision != "fp32" and (folder / file).is_file()
        ),
        formats=tuple(result for result in proof.formats if not result.refused),
        web=(folder / WEB_FOLDER).is_dir(),
        embedding_size=facts.get("embedding_size") or 0,
        multi_label=facts.get("multi_label", False),
    )
    (folder / README_FILE).write_text(render_readme(readme), encoding="utf-8")


def _describe_engine(engine: EngineAgreement) -> str:
    title = f"{ENGINES[engine.engine].title} {engine.version}"
    if engine.trouble:
        return f"{title} cannot run it: {escape_markdown(engine.trouble)}"
    return f"{title}: the same labels, largest difference {engine.max_abs_difference:.1e}"
