"""The estimated number of images of each class: planted mixes, and what cannot be estimated."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.drift.baseline import describe_baseline
from pixelmill.pipeline.drift.class_totals import estimate_class_totals
from pixelmill.pipeline.drift.comparison import measure_drift
from pixelmill.pipeline.drift.counts import PredictionCounts
from tests.pipeline.drift.pictures import CLASSES, Scored, draw_pictures, score

LABELS = [f"digit {digit}" for digit in range(CLASSES)]
MIXES = 100
IMAGES = 2_000


@pytest.fixture(scope="module")
def production() -> Scored:
    return score(*draw_pictures(8_000, seed=5))


def planted(production: Scored, mix: npt.NDArray[np.float64], draws: np.random.Generator) -> Scored:
    """A run with a given mix of classes."""
    truth = draws.multinomial(IMAGES, mix)
    chosen = np.concatenate(
        [draws.choice(np.flatnonzero(production.labels == digit), truth[digit]) for digit in range(CLASSES)]
    )
    return Scored(production.probabilities[chosen], production.values[chosen], production.labels[chosen])


def test_the_intervals_cover_the_truth_in_93_of_100_planted_mixes(production: Scored) -> None:
    """Each mix has test images of its own, as chance may favour one set of them over all mixes."""
    draws = np.random.default_rng(0)
    covered, counting, estimating = 0, 0.0, 0.0
    for _ in range(MIXES):
        baseline = production.drawn(600, draws).baseline()
        run = planted(production, draws.dirichlet(np.full(CLASSES, draws.choice([0.3, 1, 5]))), draws)
        totals = estimate_class_totals(baseline, run.counts(), LABELS, measure_drift(baseline, run.counts()))
        assert totals is not None
        truth = np.bincount(run.labels, minlength=CLASSES)
        for label, real in zip(LABELS, truth.tolist(), strict=True):
            found = totals["classes"][label]
            covered += found["interval"][0] <= real <= found["interval"][1]
            counting += abs(found["predicted"] - real)
            estimating += abs(found["estimated"] - real)
    print(
        f"{covered / MIXES / CLASSES:.1%} covered; wrong by {counting / MIXES:.0f} images, "
        f"corrected by {estimating / MIXES:.0f}"
    )
    assert covered >= 0.93 * MIXES * CLASSES
    assert estimating < 0.7 * counting


@given(st.integers(2, 12), st.integers(1, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_totals_add_up_and_intervals_hold_the_estimate(classes: int, images: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    probabilities = draws.dirichlet(np.full(classes, 0.2), images).astype(np.float32)
    labels = draws.integers(0, classes, images)
    run = Scored(probabilities, np.zeros((images, 7), np.float32), labels)
    baseline = describe_baseline(probabilities, labels)
    top_1 = probabilities.argmax(axis=1)
    counts = PredictionCounts.of(top_1, probabilities.max(axis=1), classes)
    names = [str(index) for index in range(classes)]
    totals = estimate_class_totals(baseline, counts, names, measure_drift(baseline, counts))
    assert totals is not None
    rows = totals["classes"].values()
    assert sum(row["estimated"] for row in rows) == pytest.approx(images, abs=0.06 * classes)
    assert sum(row["predicted"] for row in rows) == len(run.labels)
    for row in rows:
        assert 0 <= row["interval"][0] <= row["estimated"] <= row["interval"][1] <= images


def test_a_perfect_model_has_what_it_predicts() -> None:
    labels = np.arange(1000) % 4
    exact = np.eye(4, dtype=np.float32)[labels]
    baseline = describe_baseline(exact, labels)
    counts = PredictionCounts.of([0] * 90 + [1] * 10, [1.0] * 100, 4)
    totals = estimate_class_totals(baseline, counts, list("abcd"), measure_drift(baseline, counts))
    assert totals is not None
    assert totals["classes"]["a"]["estimated"] == pytest.approx(90, abs=0.5)
    assert totals["classes"]["a"]["interval"][1] - totals["classes"]["a"]["interval"][0] < 6


def test_images_unlike_the_test_images_make_it_unreliable(production: Scored) -> None:
    draws = np.random.default_rng(1)
    baseline = production.drawn(2_000, draws).baseline()
    darker = Scored(production.probabilities, production.values * np.float32(0.5), production.labels)
    for source, mix in ((production, 0.2), (darker, 0.1)):
        # Another mix of classes alone is what the estimate is for.
        run = planted(source, np.array([mix] + [(1 - mix) / 9] * 9), draws)
        drift = measure_drift(baseline, run.counts(), run.sample())
        totals = estimate_class_totals(baseline, run.counts(), LABELS, drift)
        assert totals is not None
        assert totals["reliable"] is (source is production)


def test_without_labels_or_predictions_there_is_no_estimate(production: Scored) -> None:
    baseline = production.drawn(100, np.random.default_rng(2)).baseline()
    nothing = PredictionCounts.of([], [], CLASSES)
    assert estimate_class_totals(baseline, nothing, LABELS, None) is None
    del baseline["confusion"]
    counts = production.counts()
    assert estimate_class_totals(baseline, counts, LABELS, measure_drift(baseline, counts)) is None


def test_many_classes_have_estimates_without_intervals() -> None:
    classes = 1000
    baseline = {"confusion": [[at, at, 20] for at in range(classes)]}
    counts = PredictionCounts.of(np.arange(5000) % classes, np.ones(5000), classes)
    names = [str(at) for at in range(classes)]
    totals = estimate_class_totals(baseline, counts, names, {"measures": []})
    assert totals is not None
    assert totals["classes"]["7"] == {"predicted": 5, "estimated": 5.0, "interval": None}
