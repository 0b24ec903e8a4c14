"""Predicting the test images and drawing `inside.html` with one load of TensorFlow, in a separate process."""

from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import replacing
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.evaluation.inside.page import draw_inside
from pixelmill.pipeline.training import TrainedModel
from pixelmill.pipeline.training.prediction import load_model, predict_split


def predict_and_draw(
    model: TrainedModel, dataset: PreparedDataset, recipe: Recipe, predictions: Path, page: Path
) -> str | None:
    """Predict the test split, then draw what the network sees unless `evaluation.inside` is off.

    Args:
        model: The trained model.
        dataset: The dataset with the test split.
        recipe: The recipe of the run.
        predictions: Where the probabilities are written; see `predict_split`.
        page: Where the page is written.

    Returns:
        A line that says why there is no page, although the recipe asks for it; otherwise None.
    """
    predict_split(model, dataset, "test", predictions)
    if not recipe.evaluation.inside:
        return None
    try:
        drawn = draw_inside(
            load_model(model.model_path), dataset, np.load(predictions, allow_pickle=False), recipe
        )
        with replacing(page) as temporary:
            temporary.write_text(drawn, encoding="utf-8")
    except Exception as error:  # noqa: BLE001  # The page explains the model, and must not fail a run.
        return f"what the network sees was not drawn ({type(error).__name__}: {error})"
    return None
