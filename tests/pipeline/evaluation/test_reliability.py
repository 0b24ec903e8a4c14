"""Reliability diagram, and coverage against precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.evaluation.averages import interval_of_average
from pixelmill.pipeline.evaluation.calibration import expected_calibration_error
from pixelmill.pipeline.evaluation.reliability import coverage_curve, reliability_bins
from pixelmill.pipeline.inference import Probabilities


def two_classes(confidences: list[float]) -> Probabilities:
    first = np.array(confidences, np.float32)
    return np.stack([first, 1 - first], axis=1)


PREDICTIONS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 0.9, 1.0]), st.integers(0, 1)),
    min_size=1,
    max_size=60,
)


@given(PREDICTIONS)
@settings(deadline=None)
def test_the_bins_hold_every_image_and_give_the_calibration_error(rows: list[tuple[float, int]]) -> None:
    probabilities, labels = two_classes([row[0] for row in rows]), np.array([row[1] for row in rows])
    bins = reliability_bins(probabilities, labels)
    assert sum(each.images for each in bins) == len(rows)
    gaps = [
        each.images * abs(each.confidence - each.accuracy)
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    ]
    error, _ = expected_calibration_error(probabilities, labels, np.random.default_rng(0))
    assert sum(gaps) / len(rows) == pytest.approx(error, abs=1e-6)
    for each in bins:
        if each.accuracy_interval:
            assert each.accuracy_interval.low <= (each.accuracy or 0) <= each.accuracy_interval.high


@given(PREDICTIONS)
@settings(deadline=None)
def test_a_point_of_the_curve_is_what_its_threshold_keeps(rows: list[tuple[float, int]]) -> None:
    probabilities, labels = two_classes([row[0] for row in rows]), np.array([row[1] for row in rows])
    points = coverage_curve(probabilities, labels)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    for point in points:
        kept = confidence >= np.float32(point.threshold)
        assert point.images == kept.sum()
        assert point.coverage == kept.sum() / len(rows)
        assert point.precision == pytest.approx(right[kept].mean())
    assert points[-1].coverage == 1
    coverages = [point.coverage for point in points]
    assert coverages == sorted(set(coverages))


def test_the_interval_of_an_average_has_its_stated_coverage() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = interval_of_average(rng.exponential(1, 100), rng)
        held += low <= 1 <= high
    assert 270 <= held <= 294


def test_the_intervals_of_few_and_of_many_values_agree() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(1, 10_001)
    few, many = interval_of_average(values[:10_000], rng), interval_of_average(values, rng)
    assert few == pytest.approx(many, abs=2e-3)
