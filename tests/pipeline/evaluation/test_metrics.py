"""The metrics of a classifier, compared with SciPy and scikit-learn and with bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score

from pixelmill.pipeline.evaluation.intervals import interval_of_mean, interval_of_proportion
from pixelmill.pipeline.evaluation.metrics import measure
from pixelmill.pipeline.evaluation.metrics_file import ConfusedPair

COUNTS = st.integers(1, 10**6).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(COUNTS)
def test_the_interval_of_a_proportion_is_that_of_wilson(counts: tuple[int, int]) -> None:
    count, total = counts
    expected = binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert interval_of_proportion(count, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_interval_without_images_is_zero_to_one() -> None:
    assert interval_of_proportion(0, 0) == (0, 1)


@given(st.lists(COUNTS, min_size=1, max_size=20))
def test_the_interval_of_a_mean_contains_it_and_narrows_with_more_classes(
    counts: list[tuple[int, int]],
) -> None:
    mean = sum(count / total for count, total in counts) / len(counts)
    low, high = interval_of_mean(counts)
    assert -1e-9 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1 + 1e-9
    twice = interval_of_mean(counts * 2)
    assert twice.high - twice.low <= (high - low) + 1e-9


def test_the_interval_of_a_mean_of_one_proportion_is_its_own_interval() -> None:
    assert interval_of_mean([(7, 20)]) == pytest.approx(interval_of_proportion(7, 20))


def test_the_interval_of_a_mean_has_its_stated_coverage() -> None:
    draws, recalls, images = np.random.default_rng(0), [0.95, 0.6, 0.3], [200, 30, 12]
    held = 0
    for _ in range(1000):
        counts = list(zip(draws.binomial(images, recalls).tolist(), images, strict=True))
        low, high = interval_of_mean(counts)
        held += low <= sum(recalls) / 3 <= high
    assert 930 <= held <= 975


def test_the_metrics_of_imbalanced_classes() -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2)
    probabilities = np.tile(np.array([0.8, 0.15, 0.05], np.float32), (100, 1))
    probabilities[90:94] = [0.1, 0.9, 0.0]
    metrics = measure(probabilities, labels, ("a", "b", "c"))
    predicted = probabilities.argmax(axis=1)
    assert metrics.accuracy == 0.94
    assert metrics.accuracy_interval == interval_of_proportion(94, 100)
    assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted)) == 0.5
    assert (metrics.largest_class.name, metrics.largest_share) == ("a", 0.9)
    assert metrics.never_predicted == ("c",)
    assert [row.predictions for row in metrics.classes] == [96, 4, 0]
    assert metrics.confusion.tolist() == [[90, 0, 0], [4, 4, 0], [2, 0, 0]]
    assert metrics.confused_pairs(5) == (
        ConfusedPair(true="b", predicted="a", images=4),
        ConfusedPair(true="c", predicted="a", images=2),
    )
    assert len(metrics.confused_pairs(1)) == 1
