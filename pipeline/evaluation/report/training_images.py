"""The first training images of the report, exactly as the network gets them."""

from dataclasses import dataclass

import numpy as np

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.evaluation.report.pictures import draw_thumbnail
from pixelmill.pipeline.training.input_pipeline import TrainingBatches

SHOWN = 16
_SIDE = 112
_MAX_LABELS = 2
# Smaller shares would be shown as 0%.
_LEAST = 0.005


@dataclass(frozen=True)
class TrainingPicture:
    """A training image after augmentation.

    Attributes:
        source: A PNG or JPEG file as a data URL.
        labels: The names and shares of the classes of its label, without label smoothing, the largest first;
            at most two.
    """

    source: str
    labels: tuple[tuple[str, float], ...]


def draw_training_images(dataset: PreparedDataset, recipe: Recipe) -> list[TrainingPicture]:
    """The first 16 images of the first epoch, from the same batches as in training.

    Fewer if the training split has fewer; none if it is empty.
    """
    images, names = dataset.split("train"), dataset.class_names
    count = min(SHOWN, len(images.labels))
    if not count:
        return []
    training = recipe.training
    batches = TrainingBatches(images, len(names), training)
    smoothed = training.label_smoothing / len(names)
    shown: list[TrainingPicture] = []
    for step in range(-(-count // training.batch_size)):
        for pixels, label in zip(*batches[step], strict=True):
            shares = (label - smoothed) / (1 - training.label_smoothing)
            largest = np.argsort(-shares, kind="stable")[:_MAX_LABELS].tolist()
            labels = tuple((names[at], float(shares[at])) for at in largest if shares[at] > _LEAST)
            shown.append(TrainingPicture(draw_thumbnail(pixels, _SIDE), labels))
            if len(shown) == count:
                return shown
    return shown
