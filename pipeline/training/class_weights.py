"""Weights of the classes in the loss, for classes of different sizes."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.config.training import ClassWeights
from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.training.augmentation import SoftLabels
from pixelmill.pipeline.training.input_pipeline import Batches, WeightedBatch

Weights = npt.NDArray[np.float32]


class WeightedBatches:
    """Batches with a weight for each image, by which Keras multiplies the image's loss.

    The weight of an image is the mean of its classes' weights: an image that mixup blended from two classes
    lies between them. Label smoothing is the same for all images and does not count.
    """

    def __init__(self, batches: Batches, weights: Weights, label_smoothing: float) -> None:
        self._batches, self._weights = batches, weights
        self._smoothing = np.float32(label_smoothing)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> WeightedBatch:
        pixels, labels = self._batches[index][:2]
        return pixels, labels, self._weigh(labels)

    def _weigh(self, labels: SoftLabels) -> Weights:
        mixed = (labels - self._smoothing / np.float32(labels.shape[1])) / (1 - self._smoothing)
        return (mixed @ self._weights).astype(np.float32)


def weighted(batches: Batches, labels: Labels, classes: int, training: TrainingSpec) -> Batches:
    """The batches with the weights that the recipe asks for; the batches themselves for `none`.

    Args:
        batches: Of the training split.
        labels: int64 [images] of that split.
        classes: Number of classes.
        training: Its `class_weights` and `label_smoothing`.
    """
    weigh = _WEIGHTS[training.class_weights]
    if weigh is None:
        return batches
    return WeightedBatches(batches, weigh(labels, classes), training.label_smoothing)


def balanced_weights(labels: Labels, classes: int) -> Weights:
    """Weights by which all classes have the same share of the loss: float32 [classes].

    As in scikit-learn, the weight is images / (classes * images of the class), so the mean over the images
    is 1 and the learning rate keeps its meaning. A class without images has the weight 0.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes, np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


_WEIGHTS: dict[ClassWeights, Callable[[Labels, int], Weights] | None] = {
    "none": None,
    "balanced": balanced_weights,
}
