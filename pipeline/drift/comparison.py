"""The verdict on drift: each measure of a run, compared with the baseline and with the noise at this size."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from pixelmill.pipeline.drift.counts import PredictionCounts, population_stability_index
from pixelmill.pipeline.drift.distances import (
    distance_of_histograms,
    distance_of_shares,
    noise_of_distribution,
    noise_of_shares,
)
from pixelmill.pipeline.drift.distribution import Distribution
from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES
from pixelmill.pipeline.drift.sample import ImageSample

SMALLEST_DRIFT = 0.05
"""Distances up to this one are no drift, however certain: no two sets of photographs are quite alike."""
FALSE_ALARMS = 0.005
"""The largest probability that any measure of a run without drift exceeds its threshold."""
Verdict = Literal["stable", "drifted"]


@dataclass(frozen=True)
class MeasuredDrift:
    """One measure of a run.

    Attributes:
        measure: Its name.
        value: Its distance from the baseline, 0 to 1: the share of the images that would have to be
            different; see `distances`.
        noise: The distance that chance alone may cause with as many images.
        threshold: The distance above which it counts as drift: the tolerance and the noise.
        verdict: Whether the value is above the threshold.
        images: The images of the run that were compared.
        mean: The mean over these; None for the classes.
        baseline_mean: The mean over the test images; None if it is not known.
    """

    measure: str
    value: float
    noise: float
    threshold: float
    verdict: Verdict
    images: int
    mean: float | None
    baseline_mean: float | None


def measure_drift(
    baseline: Mapping[str, Any],
    counts: PredictionCounts,
    sample: ImageSample | None = None,
    tolerance: float | None = None,
) -> dict[str, Any] | None:
    """Compare a run with the baseline of a bundle, as far as that reaches.

    The probability of a false alarm is divided evenly among the measures (Bonferroni).

    Args:
        baseline: The content of `baseline.json`.
        counts: The predictions of the run.
        sample: The measures of its images.
        tolerance: The largest distance, beyond the noise, that is no drift; 0.05 if None.

    Returns:
        The verdict and the measures; None if the run has no predictions. `class_psi` and `confidence_psi` are
        the population stability indices; as a rule of thumb, below 0.1 is stable and above 0.25 is a shift.
    """
    if not counts.images:
        return None
    tolerance = SMALLEST_DRIFT if tolerance is None else tolerance
    found = list(_distances(baseline, counts, sample))
    alpha = FALSE_ALARMS / len(found)
    measures = [one.judge(alpha, tolerance) for one in found]
    drifted = any(measure.verdict == "drifted" for measure in measures)
    return {
        "verdict": "drifted" if drifted else "stable",
        "class_psi": population_stability_index(baseline["class_counts"], counts.classes),
        "confidence_psi": population_stability_index(baseline["confidence_counts"], counts.confidences),
        "images": counts.images,
        "images_measured": 0 if sample is None else len(sample.positions),
        "baseline_images": int(np.sum(baseline["class_counts"])),
        "tolerance": tolerance,
        "measures": [asdict(measure) for measure in measures],
    }


@dataclass(frozen=True, eq=False)
class _Distance:
    """A distance before it is judged; `shares` are both histograms of the classes."""

    measure: str
    value: float
    images: int
    others: int
    mean: float | None = None
    baseline_mean: float | None = None
    shares: tuple[np.ndarray, np.ndarray] | None = None

    def judge(self, alpha: float, tolerance: float) -> MeasuredDrift:
        noise = (
            noise_of_distribution(self.images, self.others, alpha)
            if self.shares is None
            else noise_of_shares(*self.shares, alpha)
        )
        return MeasuredDrift(
            measure=self.measure,
            value=self.value,
            noise=noise,
            threshold=tolerance + noise,
            verdict="drifted" if self.value > tolerance + noise else "stable",
            images=self.images,
            mean=self.mean,
            baseline_mean=self.baseline_mean,
        )


def _distances(
    baseline: Mapping[str, Any], counts: PredictionCounts, sample: ImageSample | None
) -> Iterator[_Distance]:
    classes = np.array(baseline["class_counts"], np.int64)
    others, images = int(classes.sum()), counts.images
    if not others:
        return
    distance = distance_of_shares(classes, counts.classes)
    yield _Distance("classes", distance, images, others, shares=(classes, counts.classes))
    # A baseline of an earlier release has ten bins of equal width only.
    before = np.array(baseline.get("fine_confidence_counts", ()), np.int64)
    now = counts.fine_confidences
    if before.shape != now.shape or not before.sum():
        before, now = np.array(baseline["confidence_counts"], np.int64), counts.confidences
    yield _Distance(
        "confidence",
        distance_of_histograms(before, now),
        images,
        others,
        mean=counts.confidence_sum / images,
        baseline_mean=baseline.get("mean_confidence"),
    )
    if sample is None:
        return
    for name, column in zip(IMAGE_MEASURES, sample.values.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known) and name in baseline.get("image_measures", {}):
            expected = Distribution.from_json(baseline["image_measures"][name])
            yield _Distance(
                name,
                expected.distance(known),
                len(known),
                expected.images,
                mean=float(known.mean(dtype=np.float64)),
                baseline_mean=expected.mean,
            )
