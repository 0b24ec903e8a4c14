"""Metrics of a classifier, from its probabilities and the true labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.evaluation.averages import interval_of_average
from pixelmill.pipeline.evaluation.calibration import expected_calibration_error
from pixelmill.pipeline.evaluation.intervals import Interval, interval_of_mean, interval_of_proportion
from pixelmill.pipeline.evaluation.metrics_file import ClassMetrics, ConfusedClasses, ConfusedPair
from pixelmill.pipeline.evaluation.paired import cross_entropies
from pixelmill.pipeline.inference import Probabilities

MAX_MATRIX_CLASSES = 50
"""With more classes, `metrics.json` lists the most confused pairs instead of the confusion matrix."""
MAX_SHOWN_CLASSES = 30
"""With more classes, the report shows the confusion matrix of the most confused ones."""
_MOST_CONFUSED = 20
_SEED = 0


@dataclass(frozen=True)
class Metrics:
    """Metrics of a model on the test images.

    Attributes:
        loss: Cross-entropy, in nats.
        loss_interval: The 95% confidence interval of the loss.
        accuracy: Top-1 accuracy, 0 to 1.
        accuracy_interval: The 95% confidence interval of the accuracy.
        balanced_accuracy: The mean recall over all classes with test images, 0 to 1. Always predicting one
            class, or guessing, reaches 1 / classes.
        balanced_accuracy_interval: The 95% confidence interval of the balanced accuracy.
        calibration_error: The expected calibration error, 0 to 1.
        calibration_error_interval: The 95% confidence interval of the calibration error.
        images: Number of test images.
        classes: One row per class, in the order of the labels.
        confusion: int64 [classes, classes]; [i, j] counts the images of class i predicted as j.
    """

    loss: float
    loss_interval: Interval
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    calibration_error: float
    calibration_error_interval: Interval
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
            ConfusedPair(
                true=names[true[index]], predicted=names[predicted[index]], images=int(counts[index])
            )
            for index in order
        )

    def most_confused(self) -> ConfusedClasses | None:
        """The 20 classes of the most frequent mistakes; None if the report shows all classes."""
        if len(self.classes) <= MAX_SHOWN_CLASSES:
            return None
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")
        chosen: dict[int, None] = {}
        for place in order[: np.count_nonzero(wrong)].tolist():
            chosen.update(dict.fromkeys(divmod(place, len(wrong))))
            if len(chosen) >= _MOST_CONFUSED:
                break
        shown = sorted(list(chosen)[:_MOST_CONFUSED])
        part = self.confusion[np.ix_(shown, shown)]
        return ConfusedClasses(
            classes=[self.classes[label].name for label in shown],
            confusion_matrix=part.tolist(),
            other=(self.confusion[shown].sum(axis=1) - part.sum(axis=1)).tolist(),
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
    right = confusion.diagonal()
    # scikit-learn warns if rows do not sum to one in float64.
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    rng = np.random.default_rng(_SEED)
    calibration_error, calibration_interval = expected_calibration_error(probabilities, labels, rng)
    columns = (precision, recall, f1, images, confusion.sum(axis=0), right)
    return Metrics(
        loss=float(log_loss(labels, exact, labels=indices)),
        loss_interval=interval_of_average(cross_entropies(probabilities, labels), rng),
        accuracy=int(right.sum()) / len(labels),
        accuracy_interval=interval_of_proportion(int(right.sum()), len(labels)),
        balanced_accuracy=float(recall[images > 0].mean()),
        balanced_accuracy_interval=interval_of_mean(
            [(count, total) for count, total in zip(right.tolist(), images.tolist(), strict=True) if total]
        ),
        calibration_error=calibration_error,
        calibration_error_interval=Interval(*calibration_interval),
        images=len(labels),
        classes=tuple(
            _class_metrics(name, *row)
            for name, *row in zip(class_names, *(column.tolist() for column in columns), strict=True)
        ),
        confusion=confusion,
    )


def _class_metrics(
    name: str, precision: float, recall: float, f1: float, images: int, predictions: int, right: int
) -> ClassMetrics:
    return ClassMetrics(
        name=name,
        precision=precision,
        precision_interval=interval_of_proportion(right, predictions),
        recall=recall,
        recall_interval=interval_of_proportion(right, images),
        f1=f1,
        f1_interval=_interval_of_f1(right, images + predictions - right),
        images=images,
        predictions=predictions,
    )


def _interval_of_f1(right: int, either: int) -> Interval:
    """The interval of F1, from that of the Jaccard index J.

    J is the share of right predictions among the images that are of the class, or predicted as it, or both.
    It is a proportion, and F1 = 2 J / (1 + J) increases with it.
    """
    low, high = interval_of_proportion(right, either)
    return Interval(2 * low / (1 + low), 2 * high / (1 + high))
