"""The report that compares the exported files with the Keras model and with each other.

It is a single HTML file without external references, so it can be mailed, archived and opened anywhere.
"""

from collections.abc import Sequence

from humanize import naturalsize

from pixelmill.pipeline import __version__
from pixelmill.pipeline.artifacts import now
from pixelmill.pipeline.bundles.engines import ENGINES
from pixelmill.pipeline.export.formats.agreement import FormatResult
from pixelmill.pipeline.export.parity import Parity
from pixelmill.pipeline.export.variants import BATCH_SIZE, VariantResult
from pixelmill.pipeline.templates import open_templates

EXPORT_REPORT_FILE = "report/export.html"
_TEMPLATE = "report.html.jinja"


def render_export_report(
    title: str, parity: Parity, variants: Sequence[VariantResult], formats: Sequence[FormatResult] = ()
) -> str:
    """The report as one HTML page.

    Args:
        title: The model's name and version.
        parity: The comparison with Keras.
        variants: `model.onnx` first, then each variant; empty if the recipe has none.
        formats: The files in other formats.
    """
    environment = open_templates("pixelmill.pipeline.export")
    return environment.get_template(_TEMPLATE).render(
        title=title,
        parity=parity,
        variants=variants,
        refused=[result for result in variants if result.refused],
        formats=formats,
        engines=ENGINES,
        batch_size=BATCH_SIZE,
        naturalsize=naturalsize,
        made_at=now(),
        pixelmill_version=__version__,
    )
