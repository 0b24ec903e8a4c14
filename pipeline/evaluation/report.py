"""The HTML report of an evaluation: training curves, confusion matrix, most confident mistakes.

It is one self-contained file, so that it can be mailed, archived and opened anywhere.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from pixelmill.pipeline import __version__
from pixelmill.pipeline.artifacts import now
from pixelmill.pipeline.config import ImageSpec, Recipe
from pixelmill.pipeline.datasets import Images, PreparedDataset
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.evaluation.intervals import Interval
from pixelmill.pipeline.evaluation.metrics import MAX_MATRIX_CLASSES, Metrics
from pixelmill.pipeline.evaluation.summary import name_some
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import Pixels, fit_array
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.layers import LayerSummary
from pixelmill.pipeline.templates import open_templates
from pixelmill.pipeline.training import TrainedModel

_TEMPLATE = "report.html.jinja"
# Curves are drawn in this colour, which the text colour of the page's light or dark theme then replaces.
_INK = "#010203"
_COLORS = ("#3b82f6", "#f59e0b")
_MAX_PAIRS = 20
_LOWEST_RECALL_CLASSES = 20
# The longer side of a thumbnail, in pixels: about as wide as it is shown.
_PICTURE_SIDE = 112


@dataclass(frozen=True)
class Mistake:
    """A misclassified test image.

    Attributes:
        file: Its path below the dataset's folder, or its index in a dataset without files.
        picture: A PNG as a data URL.
        true_name: The name of the true class.
        predicted: The name of the predicted class.
        probability: The probability of `predicted`.
        true_probability: The probability of `true_name`.
    """

    file: str
    picture: str
    true_name: str
    predicted: str
    probability: float
    true_probability: float


def render_report(
    *,
    recipe: Recipe,
    model: TrainedModel,
    layers: Sequence[LayerSummary],
    history: pd.DataFrame,
    dataset: PreparedDataset,
    metrics: Metrics,
    probabilities: Probabilities,
) -> str:
    """Render the report as one HTML page."""
    environment = open_templates("pixelmill.pipeline.evaluation")
    environment.filters["printable"] = printable
    environment.filters["percents"] = _percents
    is_small = len(metrics.classes) <= MAX_MATRIX_CLASSES
    return environment.get_template(_TEMPLATE).render(
        recipe=recipe,
        model=model,
        layers=layers,
        dataset=dataset,
        metrics=metrics,
        warnings=_warnings(model, dataset, metrics),
        wrong=metrics.images - int(metrics.confusion.trace()),
        curves=[
            draw_curves(history, "Loss", ("loss", "val_loss")),
            draw_curves(history, "Accuracy", ("accuracy", "val_accuracy")),
        ],
        matrix=metrics.confusion.tolist() if is_small else None,
        long_names=any(len(row.name) > 3 for row in metrics.classes),
        pairs=metrics.confused_pairs(_MAX_PAIRS),
        max_pairs=_MAX_PAIRS,
        images_of={row.name: row.images for row in metrics.classes},
        mistakes=worst_mistakes(dataset, probabilities, recipe.evaluation.worst_mistakes),
        lowest=None
        if is_small
        else sorted(metrics.classes, key=lambda row: row.recall)[:_LOWEST_RECALL_CLASSES],
        made_at=now(),
        pixelmill_version=__version__,
    )


def worst_mistakes(dataset: PreparedDataset, probabilities: Probabilities, count: int) -> list[Mistake]:
    """The misclassified test images with the highest probabilities, in descending order."""
    images, names, files = dataset.split("test"), dataset.class_names, dataset.names("test")
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != images.labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]
    return [
        Mistake(
            file=files[index],
            picture=_picture(images, index),
            true_name=names[images.labels[index]],
            predicted=names[predicted[index]],
            probability=float(probabilities[index].max()),
            true_probability=float(probabilities[index, images.labels[index]]),
        )
        for index in worst
    ]


def _picture(images: Images, index: int) -> str:
    pixels: Pixels = np.asarray(images.pixels[index])
    scale = _PICTURE_SIDE / max(pixels.shape)
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        channels: Literal[1, 3] = 1 if pixels.shape[2] == 1 else 3
        pixels = fit_array(pixels, ImageSpec(height=height, width=width, channels=channels))
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()


def _warnings(model: TrainedModel, dataset: PreparedDataset, metrics: Metrics) -> list[str]:
    found = [printable(warning) for warning in dataset.warnings]
    if never := metrics.never_predicted:
        found.append(f"Never predicted for any test image: {name_some(never)}.")
    if model.normalization and model.normalization.warning:
        found.append(model.normalization.warning)
    return found


def _percents(interval: Interval) -> str:
    return f"{interval.low * 100:.2f}% to {interval.high * 100:.2f}%"


def draw_curves(history: pd.DataFrame, title: str, columns: tuple[str, str]) -> str:
    """Plot one metric over the epochs, for training and validation, as an SVG element."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "pixelmill",
        "font.family": "sans-serif",
        "text.color": _INK,
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    with rc_context(style):
        figure = Figure(figsize=(5.2, 3.1), layout="constrained")
        axes = figure.subplots()
        for column, name, color in zip(columns, ("training", "validation"), _COLORS, strict=True):
            axes.plot(history["epoch"], history[column], color=color, marker="o", ms=3, label=name)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25, color=_INK)
        axes.legend(frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    # The document type in the XML prologue refers to an external host.
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")
