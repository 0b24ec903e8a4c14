"""The accuracy of a run without labels, expected from its confidences."""

import math
from collections.abc import Mapping
from typing import Any

from pixelmill.pipeline.drift.counts import PredictionCounts

_Z_95 = 1.959964


def expect_accuracy(
    baseline: Mapping[str, Any], counts: PredictionCounts, drift: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The expected accuracy on the images of a run, with its 95% interval.

    It is the mean confidence of the run, corrected by how much the mean confidence on the test images
    differed from the accuracy there: the difference of confidences of Guillory et al., 2021,
    arXiv:2107.03315. The interval follows from the variance of that difference over the test images. Both
    suppose images like the test images, so they are not to be relied on where there is drift.

    Args:
        baseline: The content of `baseline.json`.
        counts: The predictions of the run.
        drift: The result of `measure_drift`.

    Returns:
        `accuracy`, its `interval`, and `reliable`, False where there is drift; None if the run has no
        predictions or the baseline no labels.
    """
    gap = baseline.get("confidence_gap")
    if not counts.images or drift is None or not gap:
        return None
    accuracy = counts.confidence_sum / counts.images + gap["mean"]
    half = _Z_95 * math.sqrt(gap["variance"] * (1 / gap["images"] + 1 / counts.images))
    return {
        "accuracy": min(max(accuracy, 0.0), 1.0),
        "interval": [min(max(end, 0.0), 1.0) for end in (accuracy - half, accuracy + half)],
        "reliable": drift["verdict"] == "stable",
        "baseline_accuracy": gap["accuracy"],
    }
