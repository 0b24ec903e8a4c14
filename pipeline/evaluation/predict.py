"""Keras's predictions for the test images, as they are and changed. To be run in a separate process."""

from dataclasses import dataclass
from pathlib import Path

from pixelmill.pipeline.artifacts import write_array
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import Labels, PreparedDataset
from pixelmill.pipeline.evaluation import PROBABILITIES_FILE
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
    """

    __test__ = False  # Not a test, whatever pytest takes its name for.

    probabilities: Path
    robustness: Robustness | None = None


def predict_test_images(
    model: TrainedModel, dataset: PreparedDataset, recipe: Recipe, folder: Path
) -> TestPredictions:
    """Predict the test images on the CPU in float32, and a sample of them once more after each change.

    Args:
        model: The trained model.
        dataset: The dataset with the test split.
        recipe: The recipe of the run.
        folder: Where the probabilities are written.
    """
    network = load_model(model.model_path)
    path = folder / PROBABILITIES_FILE
    write_array(path, predict_pixels(network, dataset.split("test").pixels))

    def predict(pixels: Pixels) -> Labels:
        classes: Labels = network.predict_on_batch(pixels).argmax(axis=1)
        return classes

    return TestPredictions(path, measure_robustness(predict, dataset, recipe))
