"""The audit of a retraining: once before the training, and once more with the model's predictions."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pixelmill.pipeline.audit import Audit
from pixelmill.pipeline.audit.audit import look_at, spec_of
from pixelmill.pipeline.audit.collection import collect, predictions_of
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset, RawDataset, SplitName

_COMPONENTS = "near_duplicates.npy"


def audit_retraining(
    raw: RawDataset,
    dataset: PreparedDataset,
    recipe: Recipe,
    store: Path,
    folder: Path,
    predictions: Mapping[SplitName, Path] | None = None,
) -> Audit:
    """Audit the dataset of a run, and write `audit.json` and the page.

    Args:
        raw: The dataset.
        dataset: The same, prepared.
        recipe: The recipe of the run.
        store: The local folder for the working files of a store.
        folder: Where the results are written, in place of those of the call before the training.
        predictions: After the training: `.npy`, float32 [images, classes], with the predictions of the
            model for the validation and test images, and those of a cross-validation for the training images.
    """
    given = collect(raw, recipe, store, dataset, folder / _COMPONENTS)
    files = dict(predictions or {})
    if trained := files.pop("train", None):
        given = replace(given, training_predictions=predictions_of(dataset, {"train": trained}))
    if files:
        given = replace(given, predictions=predictions_of(dataset, files))
    return look_at(given, spec_of(recipe.dataset), folder)
