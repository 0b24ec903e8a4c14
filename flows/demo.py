"""The demonstration: retrain on real images, then score a folder of them with the promoted model."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelmill.flows.passwords import hide
from pixelmill.flows.retraining import retrain
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.image_folders import write_image_folder
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.errors import DownloadError
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.promotion import Promotion
from pixelmill.pipeline.promotion.unchanged import Unchanged
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.registry import ModelVersion, find_bundle, show_model
from pixelmill.pipeline.run_lock import AnotherRunAtWork, Skipped
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.storage import Location, workspace

# Six epochs take minutes, not a quarter of an hour, and lose a few tenths of a percent of accuracy.
_SHORTER = ("training.epochs=6",)
# The overrides that apply to either dataset.
_SHARED = ("training.", "evaluation.", "export.", "promotion.")


@dataclass(frozen=True)
class Demonstration:
    """The results; `agreement` is the fraction of rows whose label is the image's subfolder."""

    model: ModelVersion
    images: Path
    table: PredictionTable
    agreement: float


def demonstrate(store: Location, overrides: tuple[str, ...] = ()) -> Demonstration:
    """Retrain on MNIST, or on digits if MNIST is unavailable; promote the model; score the test images."""
    recipe, promotion = retrain_with_fallback(store, overrides)
    reference = f"{promotion.name}@{promotion.alias}"
    images = write_test_images(recipe, store)
    request = ScoringRequest(
        bundle=find_bundle(store, reference),
        images=images,
        output=workspace(store) / "demo" / f"{promotion.name}-{promotion.version}-predictions",
    )
    table = score_folder(request)
    return Demonstration(show_model(store, reference), images, table, measure_agreement(table))


def retrain_with_fallback(
    store: Location, overrides: tuple[str, ...]
) -> tuple[Recipe, Promotion | Unchanged]:
    """Retrain the `mnist` recipe, or the `digits` recipe if MNIST cannot be downloaded."""
    recipe = load_recipe("mnist", (*_SHORTER, *overrides))
    try:
        return recipe, require_run(retrain("mnist", hide((*_SHORTER, *overrides)), str(store)))
    except DownloadError as error:
        print(f"MNIST is unavailable: {error}", file=sys.stderr)
        print("Continuing with digits, which scikit-learn includes.", file=sys.stderr)
    shared = tuple(override for override in overrides if override.startswith(_SHARED))
    return load_recipe("digits", shared), require_run(retrain("digits", hide(shared), str(store)))


def require_run(result: Promotion | Unchanged | Skipped) -> Promotion | Unchanged:
    """The result of a retraining that was not skipped.

    Raises:
        AnotherRunAtWork: It was.
    """
    if isinstance(result, Skipped):
        raise AnotherRunAtWork(result.name, result.holder)
    return result


def write_test_images(recipe: Recipe, store: Location) -> Path:
    """Write the test split as image files."""
    work = workspace(store)
    dataset: PreparedDataset = prepare_dataset(download_dataset(recipe.dataset, work), recipe, work)
    folder = work / "demo" / f"{recipe.name}-images"
    return write_image_folder(dataset, "test", folder)


def measure_agreement(table: PredictionTable) -> float:
    """The fraction of rows whose label is the name of the image's subfolder."""
    predictions: Any = read_predictions(table.folder)
    subfolder = predictions["image_path"].str.split("/").str[0]
    return float((predictions["label"] == subfolder).mean())
