"""Measures of a classifier, from its probabilities and the true labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.evaluation.intervals import Interval, interval_of_mean, interval_of_share
from pixelmill.pipeline.inference import Probabilities

MOST_IN_MATRIX = 50
"""With more classes a confusion matrix is more than a person reads: the pairs confused most stand for it."""


@dataclass(frozen=True)
class ClassMetrics:
    """How one class fares: precision, recall and F1 from 0 to 1, its images, and how many are named it."""

    name: str
    precision: float
    recall: float
    f1: float
    images: int
    predictions: int


@dataclass(frozen=True)
class ConfusedPair:
    """How many images of the class `true` the model names `predicted`, another one."""

    true: str
    predicted: str
    images: int


@dataclass(frozen=True)
class Metrics:
    """What a model reaches on the test images.

    Attributes:
        loss: Cross-entropy, in nats.
        accuracy: Share of the images that it names right, 0 to 1.
        accuracy_interval: The 95% interval of that share.
        balanced_accuracy: The mean of the classes' recalls, 0 to 1. Whoever always names one class, or
            guesses, reaches 1 / classes.
        balanced_accuracy_interval: Its 95% interval.
        images: How many there are.
        classes: A row a class, in their order.
        confusion: int64 [classes, classes]; at [i, j] how many images of class i are named j.
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
        """That class's share of the test images: the accuracy of always naming it, 0 to 1."""
        return self.largest_class.images / self.images

    @property
    def never_predicted(self) -> tuple[str, ...]:
        """The classes that no test image is named."""
        return tuple(row.name for row in self.classes if not row.predictions)

    def confused_pairs(self, most: int) -> tuple[ConfusedPair, ...]:
        """The mistakes made most often, the most frequent first."""
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
    """Loss, accuracy, per-class measures and confusion matrix, by scikit-learn.

    Args:
        probabilities: float32 [images, classes].
        labels: int64 [images].
        class_names: In the order of the classes.
    """
    from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

    indices = np.arange(len(class_names))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, images = precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0
    )
    confusion = confusion_matrix(labels, predicted, labels=indices).astype(np.int64)
    right = [int(count) for count in confusion.diagonal()]
    # In float64 the rows no longer add up to one exactly, and scikit-learn minds.
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    return Metrics(
        loss=float(log_loss(labels, exact, labels=indices)),
        accuracy=sum(right) / len(labels),
        accuracy_interval=interval_of_share(sum(right), len(labels)),
        balanced_accuracy=float(recall.mean()),
        balanced_accuracy_interval=interval_of_mean(list(zip(right, map(int, images), strict=True))),
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
