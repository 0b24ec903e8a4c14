"""Thresholds for a wanted precision: which predictions are accepted, and which a person should look at.

A prediction is accepted if its probability reaches the threshold of the predicted class. Among the validation
images with that prediction, thresholds are tried from a strict one on, as long as the lower confidence bound
of the precision (Clopper and Pearson, 1934, doi:10.1093/biomet/26.4.404) reaches the wanted one; the last of
these is the threshold. As the order is fixed beforehand and the first failure ends it, trying many thresholds
does not weaken the promise: Angelopoulos et al., 2021, arXiv:2110.01052. There are two such sequences, and
each may be wrong in 2.5% of all cases: one begins with the fewest images that could prove the precision, the
other with a quarter of all, so that a single mistake among the surest predictions does not end both.

Classes with too few validation images to prove it alone share one threshold, which is fitted on all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.evaluation.intervals import Interval, interval_of_proportion
from pixelmill.pipeline.inference import Probabilities

_ALPHA = 0.05 / 2
_SECOND_START = 0.25
_STEPS = 40
Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Threshold:
    """The threshold of one class, and what it does on the validation images.

    Attributes:
        name: The class.
        threshold: The lowest probability that is accepted; None if nothing is, because no threshold
            provably reaches the wanted precision.
        precision: The share of correct predictions among the accepted ones of this class; None if there
            are none.
        precision_interval: Its 95% interval.
        coverage: The share of the predictions of this class that is accepted.
        images: The validation images with this prediction.
        fitted_on: Whether on this class alone or on all classes that share the threshold.
    """

    name: str
    threshold: float | None
    precision: float | None
    precision_interval: Interval
    coverage: float
    images: int
    fitted_on: Literal["class", "shared"]

    def to_json(self) -> dict[str, Any]:
        """As in `metrics.json`."""
        return {
            "class": self.name,
            **{name: value for name, value in vars(self).items() if name != "name"},
        }


@dataclass(frozen=True)
class Decisions:
    """What thresholds do on the test images, which they were not fitted on.

    Attributes:
        wanted_precision: The precision in the recipe.
        images: All test images.
        accepted: Those whose prediction is accepted.
        precision: The share of correct predictions among these; None if there are none.
        precision_interval: Its 95% interval.
        coverage: The share of the images that is accepted.
    """

    wanted_precision: float
    images: int
    accepted: int
    precision: float | None
    precision_interval: Interval
    coverage: float


def fit_thresholds(
    probabilities: Probabilities, labels: Labels, class_names: Sequence[str], wanted: float
) -> tuple[Threshold, ...]:
    """The threshold of each class, in the order of the labels.

    Args:
        probabilities: Of the validation images, float32 [images, classes].
        labels: int64 [images].
        class_names: In the order of the labels.
        wanted: The wanted precision, between 0 and 1.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = predicted == labels
    classes = range(len(class_names))
    alone = [lowest_threshold(confidence[predicted == k], right[predicted == k], wanted) for k in classes]
    sharing = np.isin(predicted, [k for k in classes if alone[k] is None])
    shared = lowest_threshold(confidence[sharing], right[sharing], wanted)
    return tuple(
        _describe(name, shared if own is None else own, own is None, confidence[of], right[of])
        for name, own, of in zip(class_names, alone, (predicted == k for k in classes), strict=True)
    )


def lowest_threshold(confidence: Values, right: Flags, wanted: float) -> float | None:
    """The lowest probability from which on the precision provably reaches the wanted one.

    Args:
        confidence: Top-1 probabilities, float32 [images].
        right: Whether each prediction is right, bool [images].
        wanted: The wanted precision, between 0 and 1.

    Returns:
        The probability; None if no threshold qualifies.
    """
    images = len(confidence)
    # With fewer images, even no mistake at all would prove nothing.
    fewest = math.ceil(math.log(_ALPHA) / math.log(wanted))
    if images < fewest:
        return None
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], np.cumsum(~right[order], dtype=np.int64)
    starts = {fewest, max(fewest, math.ceil(_SECOND_START * images))}
    accepted = max(_accept_from(first, ranked, wrong, wanted) for first in starts)
    return float(ranked[accepted - 1]) if accepted else None


def _accept_from(first: int, ranked: Values, wrong: npt.NDArray[np.int64], wanted: float) -> int:
    """How many of the images may be accepted, from the surest on, if it begins with this many; 0 if none."""
    from scipy.special import bdtri

    images, most = len(ranked), 0
    for count in np.unique(np.linspace(first, images, _STEPS).round().astype(int)):
        # All images with the same probability are accepted together.
        accepted = int(np.searchsorted(-ranked, -ranked[count - 1], side="right"))
        mistakes = int(wrong[accepted - 1])
        bound = 1 - float(bdtri(mistakes, accepted, _ALPHA)) if mistakes < accepted else 0.0
        if bound < wanted:
            break
        most = accepted
    return most


def judge_decisions(
    thresholds: Sequence[Threshold], probabilities: Probabilities, labels: Labels, wanted: float
) -> Decisions:
    """What the thresholds do on test images: float32 [images, classes] and int64 [images]."""
    limits = np.array(
        [math.inf if row.threshold is None else row.threshold for row in thresholds], np.float32
    )
    predicted = probabilities.argmax(axis=1)
    accepted = probabilities.max(axis=1) >= limits[predicted]
    count = int(accepted.sum())
    right = int((predicted == labels)[accepted].sum())
    return Decisions(
        wanted_precision=wanted,
        images=len(labels),
        accepted=count,
        precision=right / count if count else None,
        precision_interval=interval_of_proportion(right, count),
        coverage=count / max(len(labels), 1),
    )


def _describe(
    name: str, threshold: float | None, is_shared: bool, confidence: Values, right: Flags
) -> Threshold:
    accepted = confidence >= np.float32(math.inf if threshold is None else threshold)
    count, correct = int(accepted.sum()), int(right[accepted].sum())
    return Threshold(
        name=name,
        threshold=threshold,
        precision=correct / count if count else None,
        precision_interval=interval_of_proportion(correct, count),
        coverage=count / max(len(confidence), 1),
        images=len(confidence),
        fitted_on="shared" if is_shared else "class",
    )
