"""Retrain image classifiers, prove their ONNX files, and score folders of images.

The functions correspond to the commands of the same names. Importing the package is fast, because Prefect,
TensorFlow and onnxruntime are imported only when a function needs them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelmill.pipeline.errors import GateRefused, PixelmillError, RequestError, WorkError

if TYPE_CHECKING:
    import pandas as pd

    from pixelmill.pipeline.bundles import Precision
    from pixelmill.pipeline.prediction import LoadedModel
    from pixelmill.pipeline.promotion import Promotion
    from pixelmill.pipeline.promotion.unchanged import Unchanged
    from pixelmill.pipeline.run_lock import Skipped
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


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Looking it up takes longer than importing the rest of the package.
    from importlib.metadata import version

    return version("pixelmill")


def load_model(reference: str, store: str | Path = "artifacts") -> "LoadedModel":
    """Load a model that predicts single images.

    Args:
        reference: `name@alias`, `name@version`, or the folder of a bundle.
        store: The artifacts root, a folder or an fsspec address.

    Raises:
        RequestError: There is no such model, or onnxruntime cannot load it.
        WorkError: A file does not match the manifest.
    """
    from pixelmill.pipeline.prediction import LoadedModel
    from pixelmill.pipeline.registry import find_bundle
    from pixelmill.pipeline.storage import parse_location

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
        images: The folder to score, with all subfolders; a list of paths; or an archive. A folder and a list
            may be an fsspec address.
        output: The folder for the table. An interrupted run with the same output is resumed.
        store: The artifacts root.
        precision: The ONNX file to use.
        options: Fields of `pixelmill.pipeline.scoring.options.ScoringOptions`, such as `top_k=3` or
            `format="csv"`.

    Returns:
        The table's `folder` and `manifest`, which contains the counts.

    Raises:
        RequestError: There is no such model or no image, or an option is invalid.
        WorkError: The model's files are damaged, or were modified during the run.
        GateRefused: More rows failed than `max_failure_rate` (0.01) allows, or the images drifted further
            than `max_drift`; the table is written anyway.
        OSError: The disk is full, or the output cannot be written to.
    """
    from pixelmill.pipeline.bundles import ONNX_FILES
    from pixelmill.pipeline.registry import find_bundle
    from pixelmill.pipeline.scoring import ScoringRequest
    from pixelmill.pipeline.scoring.commit import require_failure_rate, require_no_drift
    from pixelmill.pipeline.scoring.production_sample import keep_production_sample
    from pixelmill.pipeline.scoring.run import score_folder as run
    from pixelmill.pipeline.storage import parse_location

    if precision not in ONNX_FILES:
        raise RequestError(f"precision {precision}", f"one of {', '.join(ONNX_FILES)}", "Correct it.")
    bundle = find_bundle(parse_location(store), model, precision)
    request = ScoringRequest.from_options(bundle, images, output, options)
    table = run(request)
    keep_production_sample(parse_location(store), model, table)
    require_failure_rate(table, request.max_failure_rate)
    require_no_drift(table, request.max_drift)
    return table


def read_predictions(table: str | Path) -> "pd.DataFrame":
    """Read a prediction table, Parquet or CSV, into a DataFrame with a row for every image.

    Args:
        table: The output of a scoring run, a folder or an fsspec address.

    Raises:
        RequestError: The folder does not contain a finished table.
        WorkError: A file does not match the manifest.
    """
    from pixelmill.pipeline.predictions import read_predictions as read

    return read(table)


def retrain(
    recipe: str | Path, overrides: Sequence[str] = (), store: str | Path = "artifacts"
) -> "Promotion | Unchanged | Skipped":
    """Download, prepare, train, evaluate, export, register and promote, as a Prefect flow.

    The flow runs on the Prefect server at `PREFECT_API_URL`, or on one that ends with this process.

    Args:
        recipe: The name of a built-in recipe, such as `mnist`, or a YAML file.
        overrides: Fields to override, such as `["training.epochs=3"]`.
        store: The artifacts root.

    Returns:
        The model's name, its new version, the alias that points to it, and how it was judged; or the version
        that already has this data, recipe and these packages, if nothing had to be trained; or the run of
        the same model that is at work, if there is one.

    Raises:
        RequestError: The recipe is invalid, its data is missing, or the extras `flows` and `train` are not
            installed.
        WorkError: A download, the training or the Prefect server failed.
        GateRefused: The model failed the parity check or was not promoted.
        OSError: The disk is full.
    """
    from pixelmill.flows.extras import require_extras
    from pixelmill.pipeline.readiness import check_readiness
    from pixelmill.pipeline.recipes import load_recipe
    from pixelmill.pipeline.storage import parse_location

    check_readiness(load_recipe(str(recipe), tuple(overrides)), parse_location(store))
    require_extras()
    from pixelmill.flows.prefect_session import prefect_session

    with prefect_session():
        from pixelmill.flows.passwords import hide
        from pixelmill.flows.retraining import retrain as run

        return run(str(recipe), hide(overrides), str(store))
