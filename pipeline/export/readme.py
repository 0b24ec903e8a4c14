"""The page inside a bundle, for the team that receives it: what goes in, what comes out, and programs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import (
    LABELS_FILE,
    METRICS_FILE,
    ONNX_FILES,
    PARITY_FILE,
    PREPROCESSING_FILE,
    README_FILE,
    Precision,
)
from pixelmill.pipeline.bundles.engines import ENGINES
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.evaluation.summary import escape_markdown
from pixelmill.pipeline.export.parity import FileDifference, Parity
from pixelmill.pipeline.export.web import WEB_FOLDER
from pixelmill.pipeline.templates import open_templates

ExampleLanguage = Literal["python", "js", "csharp", "java", "cpp"]
"""The languages of the examples, as their code blocks are marked."""

_TEMPLATE = "readme.md.jinja"
_NAMES_SHOWN = 20
_RESIZE = {
    "stretch": "Resize the whole image to {width} x {height}, whatever its shape.",
    "crop": "Cut the largest box with the shape {width} : {height} from the middle and resize it to "
    "{width} x {height}.",
    "pad": "Resize the whole image, its shape kept, to fit into {width} x {height}, and fill what remains "
    "on both sides with grey {background}.",
}
_VARIANTS: dict[Precision, str] = {
    "fp16": "weights of 16 bits",
    "int8": "weights and activations of 8 bits",
}


@dataclass(frozen=True)
class HeldOutResults:
    """How the model did on its test images; `accuracy` from 0 to 1."""

    accuracy: float
    loss: float
    images: int


@dataclass(frozen=True)
class ReadmeFacts:
    """What a bundle's page tells.

    Attributes:
        name: The model's name.
        version: Its number in the registry.
        image: The tensor an image must become.
        class_names: In the order of the probabilities.
        opset: The version of ONNX's operators.
        licence: As the recipe has it.
        results: Absent for a model that was trained elsewhere.
        parity: How the ONNX file compares with the model it was exported from.
        engines: For a model trained elsewhere, a line of Markdown on what each engine made of the
            golden images.
        variants: The files beside `model.onnx`.
        web: Whether the bundle holds a page for browsers.
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
    web: bool = False


def render_readme(facts: ReadmeFacts) -> str:
    """The bundle's `README.md`, with a whole program for each of `ExampleLanguage`."""
    # Markdown and source code; names pass through `escape_markdown`.
    environment = open_templates("pixelmill.pipeline.export", autoescape=False)
    environment.keep_trailing_newline = True  # A block of code that the page includes ends with its line.
    environment.filters["escape_markdown"] = escape_markdown
    environment.filters["printable"] = printable
    return environment.get_template(_TEMPLATE).render(
        facts=facts,
        image=facts.image,
        names=_list_names(facts.class_names),
        onnx_files=ONNX_FILES,
        variant_words=_VARIANTS,
        resize_words=_RESIZE[facts.image.resize].format(**facts.image.model_dump()),
    )


def _list_names(class_names: tuple[str, ...]) -> str:
    shown = ", ".join(escape_markdown(name) for name in class_names[:_NAMES_SHOWN])
    more = len(class_names) - _NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def write_readme(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `README.md`, once the other files are there.

    Args:
        folder: Of the bundle.
        facts: What its manifest says.

    Raises:
        RequestError: `parity.json` is not as this version writes it.
    """
    test, proof = read_json(folder / METRICS_FILE)["test"], read_json(folder / PARITY_FILE)
    known = test["accuracy"] is not None
    try:
        parity = _to_parity(proof)
        engines = tuple(_describe_engine(engine) for engine in proof["engines"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RequestError(
            f"{folder / PARITY_FILE}, which does not hold a proof as this version writes it",
            "a bundle that this version of pixelmill exported",
            "Export the model again.",
        ) from error
    readme = ReadmeFacts(
        name=facts["name"],
        version=facts["version"],
        image=ImageSpec.model_validate(read_json(folder / PREPROCESSING_FILE)["spec"]),
        class_names=tuple(read_json(folder / LABELS_FILE)),
        opset=facts["opset"],
        licence=facts["licence"],
        results=HeldOutResults(test["accuracy"], test["loss"], test["images"]) if known else None,
        parity=parity,
        engines=engines,
        variants=tuple(
            precision
            for precision, file in ONNX_FILES.items()
            if precision != "fp32" and (folder / file).is_file()
        ),
        web=(folder / WEB_FOLDER).is_dir(),
    )
    (folder / README_FILE).write_text(render_readme(readme), encoding="utf-8")


def _describe_engine(engine: Mapping[str, Any]) -> str:
    title = f"{ENGINES[engine['engine']].title} {engine['version']}"
    if engine["trouble"]:
        return f"{title} cannot run it: {escape_markdown(engine['trouble'])}"
    return f"{title}: the same labels, largest difference {engine['max_abs_difference']:.1e}"


def _to_parity(proof: Mapping[str, Any]) -> Parity:
    content = {name: value for name, value in proof.items() if name not in ("engines", "variants")}
    files = tuple(FileDifference(**file) for file in content.pop("files"))
    return Parity(**{**content, "batch_sizes": tuple(content["batch_sizes"])}, files=files)
