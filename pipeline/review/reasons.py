"""Why an image is worth a look: one score from 0 to 1 for each reason, and the words for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.bundles import Thresholds
from pixelmill.pipeline.drift.distribution import Distribution
from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES
from pixelmill.pipeline.drift.sample import ImageSample, position_of
from pixelmill.pipeline.predictions.arrays import numbers_of
from pixelmill.pipeline.review import ReasonName, Row
from pixelmill.pipeline.review.previous import PreviousLabels

if TYPE_CHECKING:
    import pyarrow as pa

Scores = npt.NDArray[np.float64]
_NOTHING: Thresholds = ()
_TAIL = 0.05
_HEX_DIGITS = 13


@dataclass(frozen=True, eq=False)
class MeasuredImages:
    """The measures of a sample of the scored images, and what is usual among the test images.

    Attributes:
        sample: In ascending order of the positions.
        low: The value that 5% of the test images are below, by measure; NaN if it is not known.
        high: The value that 5% are above.
    """

    sample: ImageSample
    low: Scores
    high: Scores

    @classmethod
    def of(cls, sample: ImageSample, baseline: Mapping[str, Any]) -> "MeasuredImages":
        """From the sample of a table and the content of `baseline.json`."""
        known = baseline.get("image_measures", {})
        ranges = [
            _usual_range(Distribution.from_json(known[name])) if name in known else (np.nan, np.nan)
            for name in IMAGE_MEASURES
        ]
        low, high = np.array(ranges, np.float64).T
        return cls(sample.by_position(), low, high)

    def distances(self, values: npt.NDArray[np.float32]) -> Scores:
        """How far values [images, measures] lie outside the usual range, in widths of it; 0 inside."""
        width = np.maximum(self.high - self.low, 1e-3 * np.maximum(1, np.abs(self.high)))
        outside = np.maximum(self.low - values, values - self.high) / width
        return np.maximum(np.nan_to_num(outside.astype(np.float64), nan=0.0), 0.0)

    def values_of(self, sha256: str) -> npt.NDArray[np.float32] | None:
        """The measures of a content, float32 [measures]; None if it is not in the sample."""
        position = position_of(sha256)
        at = int(np.searchsorted(self.sample.positions, position))
        if at == len(self.sample.positions) or self.sample.positions[at] != position:
            return None
        found: npt.NDArray[np.float32] = self.sample.values[at]
        return found


@dataclass(frozen=True, eq=False)
class Evidence:
    """What rows are judged by, besides their own columns; a reason without its evidence finds nothing.

    Attributes:
        thresholds: The decision threshold of each class; empty if the model has none.
        previous: What an earlier table said.
        measured: The measures of a sample of the images.
    """

    thresholds: Thresholds = _NOTHING
    previous: PreviousLabels | None = None
    measured: MeasuredImages | None = None


@dataclass(frozen=True)
class Reason:
    """A reason to look at an image.

    Attributes:
        title: A word or two for the page.
        score: From rows (see `candidates`) to scores, float64 [rows]; NaN where it does not apply.
        describe: What was found, in words, of a row that it applies to.
    """

    title: str
    score: Callable[["pa.Table", Evidence], Scores]
    describe: Callable[[Row, Evidence], str]


def _score_uncertain(rows: "pa.Table", _: Evidence) -> Scores:
    first = _floats(rows, "probability")
    return 1 - (first - np.nan_to_num(_floats(rows, "second_probability"), nan=0.0))


def _describe_uncertain(row: Row, _: Evidence) -> str:
    if row.second_label is None or row.second_probability is None:
        return f"the most probable class has {row.probability:.3f}"
    return f"{row.label} has {row.probability:.3f}, and {row.second_label} has {row.second_probability:.3f}"


def _score_threshold(rows: "pa.Table", evidence: Evidence) -> Scores:
    if not evidence.thresholds:
        return np.full(len(rows), np.nan)
    limits = np.array([np.nan if limit is None else limit for limit in evidence.thresholds])
    distances = np.abs(_floats(rows, "probability") - limits[numbers_of(rows["class_index"], np.int32)])
    scores: Scores = 1 - distances
    return scores


def _describe_threshold(row: Row, evidence: Evidence) -> str:
    limit = evidence.thresholds[row.class_index] or 0.0
    side = "accepted" if row.probability >= np.float32(limit) else "not accepted"
    return f"{side} with {row.probability:.3f}: the threshold of {row.label} is {limit:.3f}"


def _score_changed(rows: "pa.Table", evidence: Evidence) -> Scores:
    if evidence.previous is None:
        return np.full(len(rows), np.nan)
    differs = evidence.previous.differ(rows["image_sha256"].to_pylist(), rows["label"].to_pylist())
    return np.where(differs, _floats(rows, "probability"), np.nan)


def _describe_changed(row: Row, evidence: Evidence) -> str:
    before = evidence.previous.label_of(row.sha256) if evidence.previous else None
    return f"{before} in the previous table, {row.label} with {row.probability:.3f} now"


def _score_contradicted(rows: "pa.Table", _: Evidence) -> Scores:
    import pyarrow.compute as pc

    differs = pc.fill_null(pc.not_equal(rows["true_label"], rows["label"]), False)
    return np.where(np.array(differs.to_pylist(), np.bool_), _floats(rows, "probability"), np.nan)


def _describe_contradicted(row: Row, _: Evidence) -> str:
    return f"labelled {row.true_label}, but {row.label} has {row.probability:.3f}"


def _score_drifted(rows: "pa.Table", evidence: Evidence) -> Scores:
    import pyarrow.compute as pc

    scores = np.full(len(rows), np.nan)
    measured = evidence.measured
    if measured is None or not len(measured.sample.positions):
        return scores
    # Only contents below the share of the sample have measures, a few thousand of any table.
    last = f"{int(measured.sample.positions[-1] * 16**_HEX_DIGITS):013x}g"
    below = pc.indices_nonzero(pc.less(rows["image_sha256"], last)).to_pylist()
    hashes = rows["image_sha256"].take(below).to_pylist()
    for at, sha256 in zip(below, hashes, strict=True):
        values = measured.values_of(sha256)
        if values is not None and (distance := float(measured.distances(values).max())) > 0:
            scores[at] = distance / (1 + distance)
    return scores


def _describe_drifted(row: Row, evidence: Evidence) -> str:
    measured = evidence.measured
    values = measured.values_of(row.sha256) if measured else None
    if measured is None or values is None:
        return ""
    at = int(measured.distances(values).argmax())
    name = list(IMAGE_MEASURES)[at].replace("_", " ")
    return (
        f"{name} {values[at]:.3g}; 90% of the test images have "
        f"{measured.low[at]:.3g} to {measured.high[at]:.3g}"
    )


def _usual_range(expected: Distribution) -> tuple[float, float]:
    """The values that 5% of the test images are below and above."""
    shares = expected.up_to / expected.images
    low = expected.edges[min(int(np.searchsorted(shares, _TAIL)), len(shares) - 1)]
    high = expected.edges[min(int(np.searchsorted(shares, 1 - _TAIL)), len(shares) - 1)]
    return float(low), float(high)


def _floats(rows: "pa.Table", name: str) -> Scores:
    """A column as float64 [rows]; NaN for null."""
    column = rows[name]
    if column.null_count:
        return np.array([np.nan if value is None else value for value in column.to_pylist()], np.float64)
    return numbers_of(column, np.float32).astype(np.float64)


REASONS: dict[ReasonName, Reason] = {
    "changed": Reason("another class than before", _score_changed, _describe_changed),
    "contradicted": Reason("another class than its label", _score_contradicted, _describe_contradicted),
    "threshold": Reason("near the threshold", _score_threshold, _describe_threshold),
    "uncertain": Reason("uncertain", _score_uncertain, _describe_uncertain),
    "drifted": Reason("unlike the test images", _score_drifted, _describe_drifted),
}
"""In the order in which they choose."""
