"""Simulated production runs: how often drift is reported without any, and how often it is missed."""

import numpy as np
import pytest

from pixelmill.pipeline.drift.comparison import measure_drift
from pixelmill.pipeline.drift.expected_accuracy import expect_accuracy
from tests.pipeline.drift.pictures import CHANGES, SIDE, Scored, draw_pictures, score

SIZES = (200, 1_000, 10_000)


def verdict(baseline: dict[str, object], run: Scored) -> str:
    drift = measure_drift(baseline, run.counts(), run.sample())
    assert drift is not None
    assert len(drift["measures"]) == 9
    return str(drift["verdict"])


@pytest.fixture(scope="module")
def baseline() -> dict[str, object]:
    return score(*draw_pictures(10_000, seed=1)).baseline()


@pytest.fixture(scope="module")
def production() -> Scored:
    """Other pictures of the same kind."""
    return score(*draw_pictures(20_000, seed=2))


@pytest.mark.parametrize("images", SIZES)
def test_at_most_1_percent_of_runs_without_drift_are_false_alarms(
    images: int, baseline: dict[str, object], production: Scored
) -> None:
    draws = np.random.default_rng(images)
    alarms = sum(verdict(baseline, production.drawn(images, draws)) == "drifted" for _ in range(1000))
    print(f"{alarms} false alarms in 1,000 runs of {images:,} images")
    assert alarms <= 10


def test_without_any_tolerance_the_noise_alone_keeps_false_alarms_below_1_percent() -> None:
    """Each run has test images of its own, as chance may favour one set of them over all runs."""
    draws = np.random.default_rng(0)
    everything = score(*draw_pictures(20_000, seed=3))
    alarms = 0
    for _ in range(1000):
        run, other = everything.drawn(500, draws), everything.drawn(1_000, draws)
        drift = measure_drift(other.baseline(), run.counts(), run.sample(), tolerance=0.0)
        assert drift is not None
        alarms += drift["verdict"] == "drifted"
    print(f"{alarms} false alarms in 1,000 runs of 500 images without a tolerance")
    assert alarms <= 10


@pytest.mark.parametrize("images", SIZES)
def test_what_is_different_is_found(images: int, baseline: dict[str, object]) -> None:
    draws = np.random.default_rng(images)
    pictures, labels = draw_pictures(2_000, seed=4)
    changed = {name: score(change(pictures), labels) for name, change in CHANGES.items()}
    changed["another camera's size"] = score(pictures, labels, 2 * SIDE, 2 * SIDE)
    for name, run in changed.items():
        found = [verdict(baseline, run.drawn(images, draws)) for _ in range(20)]
        print(f"{name}: found in {found.count('drifted')} of 20 runs of {images:,} images")
        assert found == ["drifted"] * 20


def test_the_expected_accuracy_is_within_a_point_and_its_interval_holds(
    baseline: dict[str, object], production: Scored
) -> None:
    draws = np.random.default_rng(7)
    errors, covered = [], 0
    for _ in range(200):
        run = production.drawn(10_000, draws)
        counts = run.counts()
        expected = expect_accuracy(baseline, counts, measure_drift(baseline, counts, run.sample()))
        assert expected is not None
        assert expected["reliable"]
        low, high = expected["interval"]
        covered += low <= run.accuracy() <= high
        errors.append(abs(expected["accuracy"] - run.accuracy()))
    within = sum(error < 0.01 for error in errors)
    print(f"accuracy {production.accuracy():.4f}; within a point {within}, in the interval {covered} of 200")
    assert 0.5 < production.accuracy() < 0.99
    assert within >= 196
    assert covered >= 180


def test_the_expected_accuracy_of_drifted_images_is_marked(baseline: dict[str, object]) -> None:
    pictures, labels = draw_pictures(1_000, seed=6)
    run = score(CHANGES["inverted"](pictures), labels)
    drift = measure_drift(baseline, run.counts(), run.sample())
    expected = expect_accuracy(baseline, run.counts(), drift)
    assert expected is not None
    assert not expected["reliable"]
