"""Retrain image classifiers, prove their ONNX files, and score folders of images.

These functions do what the commands of the same names do. Importing the package is cheap: Prefect, TensorFlow
and onnxruntime are imported when a function needs them.
"""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelmill.pipeline.errors import GateRefused, PixelmillError, RequestError, WorkError

if TYPE_CHECKING:
    import pandas as pd

    from pixelmill.pipeline.bundles import Precision
    from pixelmill.pipeline.prediction import LoadedModel
    from pixelmill.pipeline.promotion import Promotion
    from pixelmill.pipeline.scoring import PredictionTable

__all__ = [
    "GateRefused",
    "PixelmillError",
    "RequestError",
    "WorkError",
    "load_model",
    "read_predictions",
    "retrain",
    "score_folder",
]
__version__ = version("pixelmill")


def load_model(reference: str, store: str | Path = "artifacts") -> "LoadedModel":
    """Load a model to predict single images with.

    Args:
        reference: `name@alias`, `name@version`, or the folder of a bundle.
        store: The artifacts root; a folder, or an fsspec address.

    Raises:
        RequestError: There is no such model.
        WorkError: Its files are damaged.
    """
    from pixelmill.pipeline.locations import parse_location
    from pixelmill.pipeline.prediction import LoadedModel
    from pixelmill.pipeline.registry import find_bundle

    return LoadedModel.from_bundle(find_bundle(parse_location(store), reference))


def score_folder(
    model: str,
    images: str | Path,
    output: str | Path,
    store: str | Path = "artifacts",
    precision: "Precision" = "fp32",
    **options: Any,
) -> "PredictionTable":
    """Score a folder of images into a prediction table: one row for every image.

    Args:
        model: `name@alias`, `name@version`, or the folder of a bundle.
        images: The folder, with all levels of subfolders; or an fsspec address.
        output: The folder of the table. A run that was interrupted there resumes.
        store: The artifacts root.
        precision: Which ONNX file.
        options: Fields of `pixelmill.pipeline.scoring.options.ScoringOptions`, such as `top_k=3` or
            `format="csv"`.

    Raises:
        RequestError: There is no such model, no image, or an option is wrong.
        WorkError: The model's files are damaged, or the disk is full.
    """
    from pixelmill.pipeline.locations import parse_location
    from pixelmill.pipeline.registry import find_bundle
    from pixelmill.pipeline.scoring import ScoringRequest
    from pixelmill.pipeline.scoring.run import score_folder as run

    bundle = find_bundle(parse_location(store), model, precision)
    return run(ScoringRequest.from_options(bundle, images, output, options))


def read_predictions(table: str | Path) -> "pd.DataFrame":
    """Read a prediction table, Parquet or CSV, into a DataFrame with a row for every image.

    Raises:
        RequestError: The folder holds no finished table.
        WorkError: Its files are not those that its manifest lists.
    """
    from pixelmill.pipeline.predictions import read_predictions as read

    return read(table)


def retrain(
    recipe: str | Path, overrides: tuple[str, ...] = (), store: str | Path = "artifacts"
) -> "Promotion":
    """Download, prepare, train, evaluate, export, register and promote, as a Prefect flow.

    Args:
        recipe: A shipped name, such as `mnist`, or a YAML file.
        overrides: Fields to change, such as `("training.epochs=3",)`.
        store: The artifacts root.

    Raises:
        RequestError: The recipe is wrong, or its data is not there.
        GateRefused: The proof or the promotion refused the model.
    """
    from pixelmill.flows.retraining import retrain as run
    from pixelmill.pipeline.recipes import load_recipe

    return run(load_recipe(str(recipe), overrides), str(store))
