"""Thresholds for a wanted precision: the promise holds on images that they were not fitted on."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.evaluation.thresholds import fit_thresholds, judge_decisions, lowest_threshold

CLASSES = tuple("abcdefghij")
Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


def drawn(images: int, draws: np.random.Generator, margin: float = 2.5) -> tuple[Floats, Classes]:
    """Predictions of a classifier that is right for about 70 of 100 images, and is too sure of them."""
    labels = draws.integers(0, len(CLASSES), images)
    logits = draws.normal(0, 1, (images, len(CLASSES)))
    # Some classes are more difficult than others.
    logits[np.arange(images), labels] += margin * (0.6 + labels / 10)
    exponentials = np.exp(1.5 * logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("wanted", [0.9, 0.95])
def test_the_promised_precision_holds_within_its_interval_on_20_resamples(wanted: float) -> None:
    draws, held, coverages = np.random.default_rng(0), 0, []
    for _ in range(20):
        thresholds = fit_thresholds(*drawn(5_000, draws), CLASSES, wanted)
        decisions = judge_decisions(thresholds, *drawn(10_000, draws), wanted)
        held += decisions.precision_interval.high >= wanted
        coverages.append(decisions.coverage)
    print(f"precision {wanted}: held on {held} of 20, {np.mean(coverages):.1%} of the images accepted")
    assert held == 20
    assert min(coverages) > 0.05


def test_the_promise_holds_for_a_real_classifier_of_real_images_on_20_resamples() -> None:
    from sklearn.datasets import load_digits
    from sklearn.naive_bayes import GaussianNB

    images, labels = load_digits(return_X_y=True)
    draws, held, coverages = np.random.default_rng(2), 0, []
    # Smoothing makes naive Bayes less certain; it is right for about 83 of 100 digits.
    network = GaussianNB(var_smoothing=0.05).fit(images[:300], labels[:300])
    probabilities = network.predict_proba(images[300:]).astype(np.float32)
    for _ in range(20):
        order = draws.permutation(len(probabilities))
        validation, test = order[:700] + 300, order[700:] + 300
        thresholds = fit_thresholds(probabilities[validation - 300], labels[validation], CLASSES, 0.9)
        decisions = judge_decisions(thresholds, probabilities[test - 300], labels[test], 0.9)
        held += decisions.precision_interval.high >= 0.9
        coverages.append(decisions.coverage)
    print(f"held on {held} of 20, {np.mean(coverages):.1%} of the digits accepted")
    assert held == 20
    assert np.mean(coverages) > 0.2


def test_a_class_misses_the_promise_in_at_most_5_percent_of_200_draws() -> None:
    draws, wanted, missed, fitted = np.random.default_rng(1), 0.9, 0, 0
    confidence = np.sort(draws.uniform(0.1, 1, 200_000)).astype(np.float32)
    right = draws.random(200_000) < confidence
    # The true precision above each confidence.
    precision = np.cumsum(right[::-1])[::-1] / np.arange(len(right), 0, -1)
    for _ in range(200):
        chosen = draws.integers(0, len(right), 2_000)
        threshold = lowest_threshold(confidence[chosen], right[chosen], wanted)
        if threshold is not None:
            fitted += 1
            missed += precision[np.searchsorted(confidence, threshold)] < wanted
    print(f"fitted {fitted}, missed {missed} of 200")
    assert fitted > 100
    assert missed <= 10


def test_a_perfect_class_accepts_everything() -> None:
    confidence = np.linspace(0.4, 1, 400).astype(np.float32)
    assert lowest_threshold(confidence, np.ones(400, bool), 0.99) == pytest.approx(0.4)


def test_too_few_images_prove_nothing() -> None:
    # 0.99 to the power of 367 is above 0.025, to the power of 368 below it.
    assert lowest_threshold(np.full(367, 0.9, np.float32), np.ones(367, bool), 0.99) is None
    assert lowest_threshold(np.full(368, 0.9, np.float32), np.ones(368, bool), 0.99) is not None


def test_a_mistake_among_the_surest_answers_does_not_end_it() -> None:
    right = np.ones(4_000, bool)
    right[-5] = False
    assert lowest_threshold(np.linspace(0.2, 1, 4_000).astype(np.float32), right, 0.99) == pytest.approx(0.2)


def test_only_the_surest_tenth_may_qualify() -> None:
    right = np.arange(2_000) % 2 == 0
    right[-200:] = True
    threshold = lowest_threshold(np.linspace(0.2, 1, 2_000).astype(np.float32), right, 0.95)
    assert threshold is not None
    assert 0.9 < threshold < 0.95


def test_images_with_one_probability_are_accepted_together_or_not_at_all() -> None:
    confidence = np.array([0.9] * 100 + [0.5] * 100, np.float32)
    right = np.array([True] * 100 + [True] * 60 + [False] * 40)
    assert lowest_threshold(confidence, right, 0.9) == pytest.approx(0.9)


def test_small_classes_share_a_threshold_and_a_hopeless_one_accepts_nothing() -> None:
    labels = np.repeat(np.arange(10), 20)
    probabilities = np.full((200, 10), 0.01, np.float32)
    probabilities[np.arange(200), labels] = 0.91
    thresholds = fit_thresholds(probabilities, labels, CLASSES, 0.95)
    assert {row.fitted_on for row in thresholds} == {"shared"}
    assert {row.threshold for row in thresholds} == {float(np.float32(0.91))}
    never = fit_thresholds(probabilities, (labels + 1) % 10, CLASSES, 0.95)
    assert {row.threshold for row in never} == {None}
    decisions = judge_decisions(never, probabilities, labels, 0.95)
    assert (decisions.accepted, decisions.precision, decisions.coverage) == (0, None, 0.0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**32), st.floats(0.5, 0.99))
def test_what_is_accepted_reaches_the_wanted_precision_on_the_validation_images(
    images: int, seed: int, wanted: float
) -> None:
    draws = np.random.default_rng(seed)
    confidence = draws.choice([0.5, 0.6, 0.7, 0.8, 0.9], images).astype(np.float32)
    right = draws.random(images) < confidence
    threshold = lowest_threshold(confidence, right, wanted)
    if threshold is not None:
        accepted = confidence >= np.float32(threshold)
        assert right[accepted].mean() >= wanted
        assert interval_of_proportion(int(right[accepted].sum()), int(accepted.sum())).high > wanted
