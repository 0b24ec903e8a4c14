"""Keras's predictions for the test images, as they are and changed. To be run in a separate process."""

from dataclasses import dataclass
from pathlib import Path

from pixelmill.pipeline.artifacts import write_array
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import Labels, PreparedDataset
from pixelmill.pipeline.evaluation import PROBABILITIES_FILE
from pixelmill.pipeline.evaluation.inside.stage import write_inside
from pixelmill.pipeline.evaluation.metrics_file import Robustness
from pixelmill.pipeline.evaluation.robustness import measure_robustness
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.training import TrainedModel
from pixelmill.pipeline.training.prediction import load_model, predict_pixels


@dataclass(frozen=True)
class TestPredictions:
    """The predictions of Keras for the test images.

    Attributes:
        probabilities: float32 [images, classes], as `.npy`.
        robustness: How much the predictions depend on changes of the images; None if it was not measured.
        inside: The page that shows what the network sees; None if there is none.
        warning: Why there is no such page although the recipe asks for it; otherwise None.
    """

    __test__ = False  # Not a test, whatever pytest takes its name for.

    probabilities: Path
    robustness: Robustness | None = None
    inside: Path | None = None
    warning: str | None = None


def predict_test_images(
    model: TrainedModel, dataset: PreparedDataset, recipe: Recipe, folder: Path
) -> TestPredictions:
    """Predict the test images on the CPU in float32, and a sample of them once more after each change.

    Args:
        model: The trained model.
        dataset: The dataset with the test split.
        recipe: The recipe of the run.
        folder: Where the probabilities, and the page that shows what the network sees, are written.
    """
    network = load_model(model.model_path)
    path = folder / PROBABILITIES_FILE
    probabilities = predict_pixels(network, dataset.split("test").pixels)
    write_array(path, probabilities)

    def predict(pixels: Pixels) -> Labels:
        classes: Labels = network.predict_on_batch(pixels).argmax(axis=1)
        return classes

    robustness = measure_robustness(predict, dataset, recipe)
    if not recipe.evaluation.inside:
        return TestPredictions(path, robustness)
    page = folder / "inside.html"
    warning = write_inside(network, dataset, probabilities, recipe, page)
    return TestPredictions(path, robustness, None if warning else page, warning)
