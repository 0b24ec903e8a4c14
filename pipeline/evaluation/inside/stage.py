"""Drawing `inside.html` of a network, in the process in which it predicts the test images."""

from pathlib import Path
from typing import Any

from pixelmill.pipeline.artifacts import replacing
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.evaluation.inside.page import draw_inside
from pixelmill.pipeline.inference import Probabilities


def write_inside(
    network: Any, dataset: PreparedDataset, probabilities: Probabilities, recipe: Recipe, page: Path
) -> str | None:
    """Draw what the network sees.

    Args:
        network: The Keras network.
        dataset: The dataset with the test split.
        probabilities: The predictions for the test split, float32 [images, classes].
        recipe: The recipe of the run.
        page: Where the page is written.

    Returns:
        A line that says why there is no page; None if it was written.
    """
    try:
        drawn = draw_inside(network, dataset, probabilities, recipe)
        with replacing(page) as temporary:
            temporary.write_text(drawn, encoding="utf-8")
    except Exception as error:  # noqa: BLE001  # The page explains the model, and must not fail a run.
        return f"what the network sees was not drawn ({type(error).__name__}: {error})"
    return None
