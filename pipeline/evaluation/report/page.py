"""The page of the report, rendered from the results in `metrics.json`."""

from collections.abc import Sequence

import pandas as pd

from pixelmill.pipeline import __version__
from pixelmill.pipeline.artifacts import now
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.evaluation.metrics import MAX_SHOWN_CLASSES
from pixelmill.pipeline.evaluation.metrics_file import ConfusedClasses, MetricsFile, Robustness, SliceGroup
from pixelmill.pipeline.evaluation.report.charts import (
    draw_coverage,
    draw_reliability,
    draw_robustness,
    draw_search,
    draw_training,
)
from pixelmill.pipeline.evaluation.report.findings import ends, find_notable, percent
from pixelmill.pipeline.evaluation.report.links import NO_LINKS
from pixelmill.pipeline.evaluation.report.pictures import PredictedImages
from pixelmill.pipeline.evaluation.report.training_images import draw_training_images
from pixelmill.pipeline.evaluation.summary import name_some
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.layers import LayerSummary
from pixelmill.pipeline.templates import open_templates
from pixelmill.pipeline.training import RateSearch, TrainedModel

_TEMPLATE = "page.html.jinja"
_MAX_PAIRS = 20
_LOWEST_RECALL_CLASSES = 20
_MAX_SLICES = 12
_CLASS = "class"


def render_report(
    *,
    recipe: Recipe,
    model: TrainedModel,
    layers: Sequence[LayerSummary],
    history: pd.DataFrame,
    dataset: PreparedDataset,
    results: MetricsFile,
    probabilities: Probabilities,
    search: RateSearch | None = None,
) -> str:
    """Render the report as one HTML page, whose links to other pages `link_pages` fills in.

    Args:
        recipe: The recipe of the run.
        model: The trained model.
        layers: The layers of its network.
        history: One row per epoch, as in `history.csv`.
        dataset: The dataset with the test images.
        results: The content of `metrics.json`.
        probabilities: The predictions for the test images, float32 [images, classes].
        search: The search for a learning rate, if there was one.
    """
    environment = open_templates("pixelmill.pipeline.evaluation.report")
    environment.filters.update(printable=printable, percent=percent, ends=ends)
    by_recall = sorted(results.classes, key=lambda row: row.recall)
    matrix = _shown_matrix(results)
    robustness = results.robustness
    return environment.get_template(_TEMPLATE).render(
        recipe=recipe,
        model=model,
        layers=layers,
        dataset=dataset,
        results=results,
        test=results.test,
        warnings=_warnings(model, dataset, results),
        notable=find_notable(results),
        wrong=round((1 - results.test.accuracy) * results.test.images),
        training=draw_training(history, model.chosen_epoch) + ([draw_search(search)] if search else []),
        augmentation=recipe.training.augmentation.used,
        matrix=matrix,
        images_of={row.name: row.images for row in results.classes},
        long_names=any(len(name) > 3 for name in matrix.classes),
        pairs=results.confused_pairs[:_MAX_PAIRS],
        max_pairs=_MAX_PAIRS,
        reliability=draw_reliability(results.reliability),
        coverage=draw_coverage(results.coverage),
        slices=[_shown_slices(group) for group in results.slices if group.property != _CLASS],
        below=_classes_below(results),
        robustness=robustness,
        robustness_charts=_draw_changes(robustness) if robustness else [],
        by_recall=by_recall,
        lowest=by_recall[:_LOWEST_RECALL_CLASSES] if len(by_recall) > MAX_SHOWN_CLASSES else None,
        links=NO_LINKS,
        made_at=now(),
        pixelmill_version=__version__,
        **_choose_pictures(recipe, dataset, probabilities, [row.name for row in by_recall if row.images]),
    )


def _choose_pictures(
    recipe: Recipe, dataset: PreparedDataset, probabilities: Probabilities, classes: Sequence[str]
) -> dict[str, object]:
    pictures, most = PredictedImages.of_dataset(dataset, probabilities), recipe.evaluation.worst_mistakes
    return {
        "mistakes": pictures.worst_mistakes(most),
        "uncertain": pictures.least_certain(most),
        "gallery": pictures.gallery(classes) if most else {},
        "training_images": draw_training_images(dataset, recipe) if most else [],
    }


def _classes_below(results: MetricsFile) -> set[str]:
    return {
        each.value
        for group in results.slices
        for each in group.slices
        if group.property == _CLASS and each.is_below
    }


def _draw_changes(robustness: Robustness) -> list[str]:
    return [draw_robustness(series, robustness) for series in robustness.series if len(series.levels) > 1]


def _warnings(model: TrainedModel, dataset: PreparedDataset, results: MetricsFile) -> list[str]:
    found = [printable(warning) for warning in dataset.warnings]
    if never := results.test.never_predicted:
        found.append(f"Never predicted for any test image: {name_some(never)}.")
    if model.normalization and model.normalization.warning:
        found.append(model.normalization.warning)
    return found


def _shown_matrix(results: MetricsFile) -> ConfusedClasses:
    """The whole confusion matrix, or that of the most confused classes."""
    if results.most_confused is not None:
        return results.most_confused
    names = [row.name for row in results.classes]
    return ConfusedClasses(
        classes=names, confusion_matrix=results.confusion_matrix or [], other=[0] * len(names)
    )


def _shown_slices(group: SliceGroup) -> SliceGroup:
    """The slices in their order if they are few, otherwise those with the lowest accuracy."""
    if len(group.slices) <= _MAX_SLICES:
        return group
    lowest = sorted(group.slices, key=lambda each: each.accuracy)[:_MAX_SLICES]
    return group.model_copy(update={"slices": lowest})
