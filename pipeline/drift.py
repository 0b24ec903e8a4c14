"""Drift between the predictions of a scoring run and those on the test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONFIDENCE_BINS = 10
_SMALLEST_SHARE = 1e-4


@dataclass(frozen=True)
class PredictionCounts:
    """Counts of the top-1 classes, int64 [classes], and a histogram of their probabilities over 0..1."""

    classes: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.int64]

    @staticmethod
    def of(class_indices: npt.ArrayLike, probabilities: npt.ArrayLike, classes: int) -> "PredictionCounts":
        """Count predictions from the top-1 class indices and probabilities, both [images]."""
        histogram, _ = np.histogram(probabilities, bins=CONFIDENCE_BINS, range=(0.0, 1.0))
        counts = np.bincount(np.asarray(class_indices, np.int64), minlength=classes)
        return PredictionCounts(counts, histogram.astype(np.int64))

    def __add__(self, other: "PredictionCounts") -> "PredictionCounts":
        return PredictionCounts(self.classes + other.classes, self.confidences + other.confidences)

    def to_baseline(self) -> dict[str, object]:
        """The content of `baseline.json`."""
        return {
            "images": int(self.classes.sum()),
            "class_counts": self.classes.tolist(),
            "confidence_bins": np.linspace(0, 1, CONFIDENCE_BINS + 1).round(6).tolist(),
            "confidence_counts": self.confidences.tolist(),
        }


def measure_drift(baseline: dict[str, Sequence[int]], counts: PredictionCounts) -> dict[str, float] | None:
    """Compare the predictions of a run with the baseline of a bundle.

    Returns:
        The population stability index of the classes and of the confidences; None if the run has no
        predictions. As a rule of thumb, below 0.1 is stable and above 0.25 is a shift to investigate.
    """
    if not counts.classes.sum():
        return None
    return {
        "class_psi": population_stability_index(baseline["class_counts"], counts.classes),
        "confidence_psi": population_stability_index(baseline["confidence_counts"], counts.confidences),
    }


def population_stability_index(expected: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """The sum over all bins of (a - e) ln(a / e), where a and e are the actual and expected shares.

    Empty bins count as a share of 0.0001. Source: N. Siddiqi, Credit Risk Scorecards, Wiley 2006.
    """
    e, a = (
        np.maximum(np.asarray(counts, float) / np.sum(counts), _SMALLEST_SHARE)
        for counts in (expected, actual)
    )
    return float(np.sum((a - e) * np.log(a / e)))
