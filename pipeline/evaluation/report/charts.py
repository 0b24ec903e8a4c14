"""The charts of the report, as SVG elements that follow the light or dark theme of the page."""

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd

from pixelmill.pipeline.evaluation.intervals import Interval
from pixelmill.pipeline.evaluation.metrics_file import (
    CoveragePoint,
    ReliabilityBin,
    Robustness,
    RobustnessLevel,
    RobustnessSeries,
)
from pixelmill.pipeline.training import RateSearch

# Charts are drawn in this colour, which the text colour of the page then replaces.
_INK = "#010203"
_BLUE, _ORANGE = "#3b82f6", "#f59e0b"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pixelmill",
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


class Chart:
    """A figure with one set of axes, or several below each other; `svg` is set when the drawing ends."""

    def __init__(self, heights: Sequence[float]) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(5.2, 3.1), layout="constrained")
        found = self.figure.subplots(
            len(heights), sharex=True, squeeze=False, gridspec_kw={"height_ratios": list(heights)}
        )
        self.all_axes: list[Any] = list(found[:, 0])
        self.axes = self.all_axes[0]
        self.svg = ""


@contextmanager
def drawing(title: str, x_label: str, heights: Sequence[float] = (1,)) -> Iterator[Chart]:
    """Draw a chart with this title and name of the x axis; its SVG element is complete after the block."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        chart = Chart(heights)
        chart.axes.set_title(title)
        chart.all_axes[-1].set_xlabel(x_label)
        for axes in chart.all_axes:
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.15, color=_INK)
        yield chart
        buffer = io.StringIO()
        chart.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    # The document type in the XML prologue and the metadata refer to external hosts.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
    chart.svg = svg.replace(_INK, "currentColor")


def draw_training(history: pd.DataFrame, chosen_epoch: int) -> list[str]:
    """Loss, accuracy and learning rate over the epochs, with the epoch whose weights were saved.

    Args:
        history: One row per epoch, with the columns of `history.csv`; `learning_rate` may be missing.
        chosen_epoch: Counted from 1.
    """
    titles = {"loss": "Loss", "accuracy": "Accuracy", "learning_rate": "Learning rate"}
    return [
        _draw_over_epochs(history, column, title, chosen_epoch)
        for column, title in titles.items()
        if column in history
    ]


def _draw_over_epochs(history: pd.DataFrame, column: str, title: str, chosen_epoch: int) -> str:
    from matplotlib.ticker import MaxNLocator

    with drawing(title, "epoch") as chart:
        axes = chart.axes
        lines = [(column, _BLUE, "training"), (f"val_{column}", _ORANGE, "validation")]
        for name, color, label in lines:
            if name in history:
                axes.plot(history["epoch"], history[name], color=color, marker="o", ms=3, label=label)
        axes.axvline(chosen_epoch, color=_INK, lw=1, ls=":", label=f"chosen epoch {chosen_epoch}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[-len(labels) :], labels, frameon=False)
    return chart.svg


def draw_search(search: RateSearch) -> str:
    """The loss over the learning rates that were tried, and the one that was chosen."""
    with drawing("Search for the learning rate", "learning rate") as chart:
        axes = chart.axes
        axes.plot(search.rates, search.losses, color=_BLUE, marker="o", ms=3, label="training loss")
        axes.axvline(search.peak, color=_INK, lw=1, ls=":", label=f"chosen peak {search.peak:g}")
        axes.set_xscale("log")
        axes.legend(frameon=False)
    return chart.svg


def draw_reliability(bins: Sequence[ReliabilityBin]) -> str:
    """Accuracy over the top-1 probability with intervals, and below it the number of images of each bin."""
    with drawing("Reliability", "top-1 probability", heights=(3, 1)) as chart:
        axes, below = chart.all_axes
        axes.plot((0, 1), (0, 1), color=_INK, lw=1, ls=":", label="perfectly calibrated")
        for each in bins:
            if each.confidence is not None and each.accuracy is not None and each.accuracy_interval:
                low, high = each.accuracy_interval
                axes.plot((each.confidence,) * 2, (low, high), color=_BLUE, lw=1.5)
                axes.plot(each.confidence, each.accuracy, color=_BLUE, marker="o", ms=4)
        axes.set_ylabel("accuracy")
        axes.set_ylim(-0.02, 1.02)
        axes.legend(frameon=False, loc="upper left")
        below.bar(
            [each.low for each in bins],
            [each.images for each in bins],
            width=1 / len(bins),
            align="edge",
            color=_BLUE,
            alpha=0.5,
        )
        below.set_ylabel("images")
        below.set_xlim(0, 1)
        chart.figure.align_ylabels()
    return chart.svg


def draw_coverage(points: Sequence[CoveragePoint]) -> str:
    """Precision over coverage, with intervals."""
    with drawing("Precision over coverage", "share of the images that the model decides") as chart:
        coverage = [point.coverage for point in points]
        _plot_shares(
            chart.axes,
            coverage,
            [(point.precision, point.precision_interval) for point in points],
            _BLUE,
            "precision",
        )
        chart.axes.set_xlim(0, 1.02)
    return chart.svg


def draw_robustness(series: RobustnessSeries, sample: Robustness) -> str:
    """Accuracy and the share of unchanged predictions over the levels of one change."""
    title = series.change[:1].upper() + series.change[1:]
    with drawing(title, series.unit) as chart:
        levels = [row for row in series.levels if row.level is not None]
        # Levels are not evenly spaced, so each gets a tick of its own.
        places = list(range(len(levels)))
        _plot_shares(chart.axes, places, [_unchanged(row) for row in levels], _ORANGE, "unchanged label")
        _plot_shares(chart.axes, places, [_accuracy(row) for row in levels], _BLUE, "accuracy")
        chart.axes.axhline(sample.accuracy, color=_INK, lw=1, ls=":", label="accuracy without change")
        chart.axes.set_xticks(places, [f"{row.level:g}" for row in levels])
        chart.axes.set_ylim(-0.02, 1.04)
        chart.axes.legend(frameon=False, loc="lower left")
    return chart.svg


def _accuracy(row: RobustnessLevel) -> tuple[float, Interval]:
    return row.accuracy, row.accuracy_interval


def _unchanged(row: RobustnessLevel) -> tuple[float, Interval]:
    return row.unchanged, row.unchanged_interval


def _plot_shares(
    axes: Any, x: Sequence[float], shares: Sequence[tuple[float, Interval]], color: str, label: str
) -> None:
    lows, highs = [interval.low for _, interval in shares], [interval.high for _, interval in shares]
    axes.fill_between(x, lows, highs, color=color, alpha=0.2, lw=0)
    axes.plot(x, [share for share, _ in shares], color=color, marker="o", ms=3, label=label)
