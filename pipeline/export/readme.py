"""The page inside a bundle, for the team that receives it: what goes in, what comes out, and programs."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config import ImageSpec
from pipeline.display import printable
from pipeline.evaluation.summary import escape_markdown
from pipeline.export import ONNX_FILES, Precision
from pipeline.export.parity import Parity
from pipeline.templates import open_templates

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
    environment = open_templates("pipeline.export", autoescape=False)
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
