"""Paired tests of two models: how often they refuse an equal one, and whether they find a planted loss."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pixelmill.pipeline.evaluation.paired import (
    Level,
    PairedPredictions,
    drop_in_macro_recall,
    drop_in_mean,
    drop_in_share,
    holm,
)

LEVEL = Level(0.05)


def flags(lost: int, gained: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    new = np.repeat([False, True, True, False], [lost, gained, both, neither])
    reference = np.repeat([True, False, True, False], [lost, gained, both, neither])
    return new, reference


@given(*[st.integers(0, 40)] * 4)
@settings(max_examples=60, deadline=None)
def test_the_p_value_is_that_of_the_exact_test_and_the_interval_holds_the_drop(
    lost: int, gained: int, both: int, neither: int
) -> None:
    both += 1
    found = drop_in_share(*flags(lost, gained, both, neither), max_drop=0.0, level=LEVEL)
    if lost + gained:
        expected = binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue
        assert found.p_value == pytest.approx(expected)
    else:
        assert found.p_value == 1
    assert found.low - 1e-9 <= found.drop <= found.high + 1e-9
    assert found.drop == pytest.approx(found.reference - found.new)


def test_the_interval_covers_the_true_drop_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    shares = [0.06, 0.03, 0.81, 0.10]
    covered = 0
    for counts in rng.multinomial(200, shares, size=400):
        found = drop_in_share(*flags(*counts), max_drop=0.0, level=LEVEL)
        covered += found.low <= 0.03 <= found.high
    # The interval has a confidence level of 90%; 400 draws scatter by 1.5 points.
    assert 0.855 <= covered / 400 <= 0.945


@given(st.integers(0, 30), st.integers(50, 500))
@settings(max_examples=30, deadline=None)
def test_the_detectable_drop_is_the_smallest_that_is_found(gained: int, unchanged: int) -> None:
    images = gained + unchanged
    found = drop_in_share(*flags(0, gained, unchanged, 0), max_drop=0.0, level=LEVEL)
    assert found.detectable is not None
    lost = round(found.detectable * images) + gained
    at, below = (
        drop_in_share(*flags(count, gained, images - gained - count, 0), max_drop=0.0, level=LEVEL).p_value
        for count in (lost, lost - 1)
    )
    assert at < 0.05 <= below


def test_four_images_cannot_show_any_drop() -> None:
    assert drop_in_share(*flags(4, 0, 0, 0), max_drop=0.0, level=LEVEL).detectable is None


def test_a_tolerated_drop_is_not_significant_and_a_larger_one_is() -> None:
    tolerated = drop_in_share(*flags(60, 50, 890, 0), max_drop=0.02, level=LEVEL)
    larger = drop_in_share(*flags(120, 50, 830, 0), max_drop=0.02, level=LEVEL)
    assert tolerated.p_value > 0.5
    assert larger.p_value < 0.01
    assert larger.low > 0.02


def test_losses_are_compared_image_by_image() -> None:
    rng = np.random.default_rng(1)
    reference = rng.exponential(0.2, 2000)
    worse = drop_in_mean(reference + 0.01, reference, 0.0, LEVEL, rng)
    assert worse.p_value < 0.01
    assert worse.drop == pytest.approx(0.01)
    same = drop_in_mean(reference, reference, 0.0, LEVEL, rng)
    assert same.p_value > 0.5
    noisy = drop_in_mean(rng.permutation(reference), reference, 0.0, LEVEL, rng)
    assert noisy.low < 0 < noisy.high


def test_macro_recall_weights_a_small_class_as_much_as_a_large_one() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [1000, 50])
    reference = np.eye(2, dtype=np.float32)[labels]
    new = reference.copy()
    new[1000:1020] = [1.0, 0.0]
    found = drop_in_macro_recall(PairedPredictions(new, reference, labels), 0.0, LEVEL, rng)
    assert found.drop == pytest.approx(0.2)
    assert found.p_value < 0.01


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_adjusted_p_values_are_no_smaller_and_keep_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, adjusted, strict=True))
    assert max(adjusted) <= 1
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.array(adjusted)[order]) >= 0)
    assert adjusted[order[0]] == pytest.approx(min(1, len(p_values) * min(p_values)))
