"""The page that shows people how a model fares: curves, confusion matrix, worst mistakes.

One file without outside references, so that it can be mailed, archived and opened anywhere.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline import __version__
from pipeline.artifacts import now
from pipeline.config import Recipe
from pipeline.datasets import Images, PreparedDataset
from pipeline.evaluation.metrics import Metrics
from pipeline.image_encoding import encode_png
from pipeline.inference import Probabilities
from pipeline.layers import LayerSummary
from pipeline.templates import open_templates
from pipeline.training import TrainedModel

_TEMPLATE = "report.html.jinja"
# Drawn in this colour, then replaced by the page's own text colour, which follows light and dark.
_INK = "#010203"
_COLORS = ("#3b82f6", "#f59e0b")


@dataclass(frozen=True)
class Mistake:
    """A test image that the model names wrong; `picture` is a data address of a PNG."""

    index: int
    picture: str
    true_name: str
    answered: str
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
    """The report as one HTML page."""
    environment = open_templates("pipeline.evaluation")
    mistakes = worst_mistakes(
        dataset.split("test"),
        probabilities,
        dataset.class_names,
        recipe.evaluation.worst_mistakes,
    )
    wrong = metrics.images - sum(row[index] for index, row in enumerate(metrics.confusion))
    return environment.get_template(_TEMPLATE).render(
        recipe=recipe,
        model=model,
        layers=layers,
        dataset=dataset,
        metrics=metrics,
        mistakes=mistakes,
        wrong=wrong,
        curves=[
            draw_curves(history, "Loss", ("loss", "val_loss")),
            draw_curves(history, "Accuracy", ("accuracy", "val_accuracy")),
        ],
        largest_confusion=_largest_confusion(metrics),
        made_at=now(),
        pixelmill_version=__version__,
    )


def worst_mistakes(
    images: Images, probabilities: Probabilities, class_names: Sequence[str], count: int
) -> list[Mistake]:
    """The wrong answers given with the highest probability, the worst first."""
    answers = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(answers != images.labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]
    return [
        Mistake(
            index=int(index),
            picture="data:image/png;base64,"
            + base64.b64encode(encode_png(np.asarray(images.pixels[index]))).decode(),
            true_name=class_names[images.labels[index]],
            answered=class_names[answers[index]],
            probability=float(probabilities[index].max()),
            true_probability=float(probabilities[index, images.labels[index]]),
        )
        for index in worst
    ]


def draw_curves(history: pd.DataFrame, title: str, columns: tuple[str, str]) -> str:
    """One measure over the epochs, training and validation, as an SVG element."""
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
    # Without the XML prologue, whose document type names an outside host.
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def _largest_confusion(metrics: Metrics) -> int:
    return max(
        (
            count
            for true, row in enumerate(metrics.confusion)
            for answered, count in enumerate(row)
            if true != answered
        ),
        default=0,
    )
