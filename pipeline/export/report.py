"""The page that shows how the exported files compare: with the Keras model, and with each other.

One file without outside references, so that it can be mailed, archived and opened anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import __version__
from pipeline.artifacts import now
from pipeline.export.variants import BATCH_SIZE, VariantResult

EXPORT_REPORT_FILE = "report/export.html"
_TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Disagreement:
    """An image that Keras and ONNX answer differently.

    Attributes:
        image: What it is called.
        keras_label: Keras's first choice.
        keras_probability: The probability Keras gives it, 0 to 1.
        onnx_label: The first choice of the ONNX file.
        onnx_probability: The probability the ONNX file gives it, 0 to 1.
        difference: The largest difference between two probabilities of one class.
    """

    image: str
    keras_label: str
    keras_probability: float
    onnx_label: str
    onnx_probability: float
    difference: float


@dataclass(frozen=True)
class ParityFacts:
    """How near the ONNX file is to Keras on the held-out images.

    Attributes:
        images: How many there are.
        batch_sizes: The sizes they were put in.
        flips: How many get another label though Keras's first two choices lie further apart than
            `tie_margin`.
        tied_flips: How many get another label where they lie closer.
        tie_margin: Between two probabilities, 0 to 1.
        max_abs_difference: The largest difference between two probabilities of one class.
        limit: What that had to stay below.
        furthest: The images with the largest differences, the largest first.
    """

    images: int
    batch_sizes: tuple[int, ...]
    flips: int
    tied_flips: int
    tie_margin: float
    max_abs_difference: float
    limit: float
    furthest: tuple[Disagreement, ...]


def render_export_report(title: str, parity: ParityFacts, variants: Sequence[VariantResult]) -> str:
    """The report as one HTML page.

    Args:
        title: The model's name and version.
        parity: The comparison with Keras.
        variants: `model.onnx` first, then each variant; empty if the recipe asked for none.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipeline.export", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        title=title,
        parity=parity,
        variants=variants,
        refused=[result for result in variants if result.refused],
        batch_size=BATCH_SIZE,
        made_at=now(),
        pixelmill_version=__version__,
    )
