"""Metrics of a classifier, from its probabilities and the true labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.evaluation.intervals import Interval, interval_of_mean, interval_of_proportion
from pixelmill.pipeline.inference import Probabilities

MAX_MATRIX_CLASSES = 50
"""With more classes, the report lists the most confused pairs instead of the confusion matrix."""


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class: precision, recall and F1 from 0 to 1, its images, and its predictions."""

    name: str
    precision: float
    recall: float
    f1: float
    images: int
    predictions: int


@dataclass(frozen=True)
class ConfusedPair:
    """The number of images of class `true` for which the model predicts `predicted`."""

    true: str
    predicted: str
    images: int


@dataclass(frozen=True)
class Metrics:
    """Metrics of a model on the test images.

    Attributes:
        loss: Cross-entropy, in nats.
        accuracy: Top-1 accuracy, 0 to 1.
        accuracy_interval: The 95% confidence interval of the accuracy.
        balanced_accuracy: The mean recall over all classes with test images, 0 to 1. Always predicting one
            class, or guessing, reaches 1 / classes.
        balanced_accuracy_interval: The 95% confidence interval of the balanced accuracy.
        images: Number of test images.
        classes: One row per class, in the order of the labels.
        confusion: int64 [classes, classes]; [i, j] counts the images of class i predicted as j.
    """

    loss: float
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    images: int
    classes: tuple[ClassMetrics, ...]
    confusion: npt.NDArray[np.int64]

    @property
    def largest_class(self) -> ClassMetrics:
        """The class with the most test images."""
        return max(self.classes, key=lambda row: row.images)

    @property
    def largest_share(self) -> float:
        """The share of the test images in that class: the accuracy of always predicting it, 0 to 1."""
        return self.largest_class.images / self.images

    @property
    def never_predicted(self) -> tuple[str, ...]:
        """The classes with test images that are not predicted for any of them."""
        return tuple(row.name for row in self.classes if row.images and not row.predictions)

    def confused_pairs(self, most: int) -> tuple[ConfusedPair, ...]:
        """The most frequent mistakes, in descending order."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        true, predicted = np.nonzero(wrong)
        counts = wrong[true, predicted]
        order = np.argsort(-counts, kind="stable")[:most]
        names = [row.name for row in self.classes]
        return tuple(
            ConfusedPair(names[true[index]], names[predicted[index]], int(counts[index])) for index in order
        )


def measure(probabilities: Probabilities, labels: Labels, class_names: tuple[str, ...]) -> Metrics:
    """Loss, accuracy, per-class metrics and confusion matrix, computed by scikit-learn.

    Args:
        probabilities: float32 [images, classes].
        labels: int64 [images].
        class_names: In the order of the labels.
    """
    from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

    indices = np.arange(len(class_names))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, images = precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0
    )
    confusion = confusion_matrix(labels, predicted, labels=indices).astype(np.int64)
    right = [int(count) for count in confusion.diagonal()]
    # scikit-learn warns if rows do not sum to one in float64.
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    return Metrics(
        loss=float(log_loss(labels, exact, labels=indices)),
        accuracy=sum(right) / len(labels),
        accuracy_interval=interval_of_proportion(sum(right), len(labels)),
        balanced_accuracy=float(recall[images > 0].mean()),
        balanced_accuracy_interval=interval_of_mean(
            [(count, total) for count, total in zip(right, images.tolist(), strict=True) if total]
        ),
        images=len(labels),
        classes=tuple(
            ClassMetrics(*row)
            for row in zip(
                class_names,
                precision.tolist(),
                recall.tolist(),
                f1.tolist(),
                map(int, images),
                map(int, confusion.sum(axis=0)),
                strict=True,
            )
        ),
        confusion=confusion,
    )
