"""Measures of a classifier, from its probabilities and the true labels."""

from dataclasses import dataclass

import numpy as np

from pipeline.datasets import Labels
from pipeline.inference import Probabilities


@dataclass(frozen=True)
class ClassMetrics:
    """How one class fares: precision, recall and F1 from 0 to 1, and its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True)
class Metrics:
    """`confusion[i][j]`: how many images of class i were named j."""

    loss: float
    accuracy: float
    images: int
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]


def measure(probabilities: Probabilities, labels: Labels, class_names: tuple[str, ...]) -> Metrics:
    """Loss, accuracy, per-class measures and confusion matrix, by scikit-learn.

    Args:
        probabilities: float32 [images, classes].
        labels: int64 [images].
        class_names: In the order of the classes.
    """
    from sklearn.metrics import (
        accuracy_score,
        confusion_matrix,
        log_loss,
        precision_recall_fscore_support,
    )

    indices = np.arange(len(class_names))
    answers = probabilities.argmax(axis=1)
    per_class = precision_recall_fscore_support(labels, answers, labels=indices, zero_division=0)
    # In float64 the rows no longer add up to one exactly, and scikit-learn minds.
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    return Metrics(
        loss=float(log_loss(labels, exact, labels=indices)),
        accuracy=float(accuracy_score(labels, answers)),
        images=len(labels),
        classes=tuple(
            ClassMetrics(name, float(precision), float(recall), float(f1), int(images))
            for name, precision, recall, f1, images in zip(class_names, *per_class, strict=True)
        ),
        confusion=tuple(tuple(map(int, row)) for row in confusion_matrix(labels, answers, labels=indices)),
    )
