"""The population stability index, and the counts it compares."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.drift.comparison import measure_drift
from pixelmill.pipeline.drift.counts import (
    CONFIDENCE_BINS,
    PredictionCounts,
    population_stability_index,
)

counts = st.lists(st.integers(0, 10**6), min_size=6, max_size=6).filter(any)
answers = st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1, width=32)), max_size=50)


def counted(drawn: list[tuple[int, float]]) -> PredictionCounts:
    return PredictionCounts.of([index for index, _ in drawn], [share for _, share in drawn], 5)


def same(one: PredictionCounts, other: PredictionCounts) -> bool:
    return np.array_equal(one.classes, other.classes) and np.array_equal(one.confidences, other.confidences)


def test_a_value_computed_by_hand() -> None:
    # Shares 0.5, 0.5 and 0.25, 0.75: -0.25 ln(1/2) + 0.25 ln(3/2) = 0.25 ln 3.
    assert population_stability_index([10, 10], [1, 3]) == pytest.approx(0.25 * math.log(3), rel=1e-12)


def test_a_textbook_table() -> None:
    # Shares of 0.2, 0.3, 0.5 that become 0.3, 0.3, 0.4.
    by_hand = 0.1 * math.log(1.5) + 0 + -0.1 * math.log(0.8)
    assert population_stability_index([20, 30, 50], [300, 300, 400]) == pytest.approx(by_hand, rel=1e-12)


def test_an_empty_bin_counts_as_a_share_of_0_0001() -> None:
    by_hand = (1e-4 - 0.5) * math.log(1e-4 / 0.5) + 0.5 * math.log(2)
    assert population_stability_index([1, 1], [0, 8]) == pytest.approx(by_hand, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(expected=counts, factor=st.integers(1, 1000))
def test_equal_shares_have_no_drift(expected: list[int], factor: int) -> None:
    index = population_stability_index(expected, [factor * count for count in expected])
    assert index == pytest.approx(0, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(expected=counts, actual=counts)
def test_it_is_finite_non_negative_and_symmetric(expected: list[int], actual: list[int]) -> None:
    index = population_stability_index(expected, actual)
    assert math.isfinite(index)
    assert index >= 0
    assert population_stability_index(actual, expected) == pytest.approx(index, rel=1e-9, abs=1e-15)


def test_a_larger_shift_has_a_larger_index() -> None:
    indices = [population_stability_index([50, 50], [50 + shift, 50 - shift]) for shift in range(0, 50, 5)]
    assert indices == sorted(indices)
    assert len(set(indices)) == len(indices)


def test_predictions_are_counted_by_class_and_confidence() -> None:
    counted_answers = PredictionCounts.of([0, 2, 2], [0.05, 0.95, 1.0], 4)
    assert counted_answers.classes.tolist() == [1, 0, 2, 0]
    assert counted_answers.confidences.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]


@settings(max_examples=100, deadline=None)
@given(one=answers, other=answers)
def test_counts_add_up(one: list[tuple[int, float]], other: list[tuple[int, float]]) -> None:
    together = counted(one + other)
    assert same(counted(one) + counted(other), together)
    assert together.classes.sum() == together.confidences.sum() == len(one) + len(other)
    assert together.classes.shape == (5,)
    assert together.confidences.shape == (CONFIDENCE_BINS,)


def test_no_predictions_have_no_drift() -> None:
    nothing = PredictionCounts.of([], [], 3)
    assert nothing.classes.tolist() == [0, 0, 0]
    assert measure_drift({"class_counts": [1, 2, 3], "confidence_counts": [1] * 10}, nothing) is None


def test_a_baseline_has_no_drift_from_itself() -> None:
    baseline_counts = PredictionCounts.of([0, 1, 1, 2], [0.3, 0.99, 0.5, 0.7], 3)
    baseline = json.loads(json.dumps(baseline_counts.to_baseline()))
    assert baseline["images"] == 4
    assert baseline["class_counts"] == [1, 2, 1]
    assert baseline["confidence_bins"] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    drift = measure_drift(baseline, baseline_counts)
    assert drift is not None
    assert (drift["class_psi"], drift["confidence_psi"], drift["verdict"]) == (0.0, 0.0, "stable")
    assert [row["value"] for row in drift["measures"]] == [0.0, 0.0]


def test_classes_and_confidences_drift_independently() -> None:
    baseline = PredictionCounts.of([0, 1], [0.95, 0.95], 2).to_baseline()
    drift = measure_drift(json.loads(json.dumps(baseline)), PredictionCounts.of([0, 1], [0.55, 0.55], 2))
    assert drift is not None
    assert drift["class_psi"] == 0
    assert drift["confidence_psi"] > 0.25
