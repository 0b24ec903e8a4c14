"""Temperature scaling: it finds what was planted, and is not used where it makes things worse."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.evaluation.temperature import calibrate, fit_temperature, scale

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


def softmax(logits: npt.NDArray[np.float64]) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def drawn(images: int, temperature: float, seed: int) -> tuple[Floats, Classes]:
    """Labels drawn from the true probabilities, and the same logits multiplied by a temperature."""
    draws = np.random.default_rng(seed)
    logits = draws.normal(0, 2, (images, 5))
    true = softmax(logits).astype(np.float64)
    labels = (true.cumsum(axis=1) < draws.random((images, 1)) * true.sum(axis=1, keepdims=True)).sum(axis=1)
    return softmax(logits * temperature), labels.astype(np.int64)


@pytest.mark.parametrize("planted", [0.5, 1.0, 2.5])
def test_the_planted_temperature_is_found(planted: float) -> None:
    assert fit_temperature(*drawn(20_000, planted, 0)) == pytest.approx(planted, rel=0.05)


def test_it_is_used_where_it_helps() -> None:
    found = calibrate(*drawn(5_000, 3.0, 1), *drawn(5_000, 3.0, 2))
    assert found.is_used
    assert found.scaled_error < 0.03
    assert found.error > 0.1
    assert found.error_interval.low > found.scaled_error_interval.high
    assert (found.validation_images, found.images) == (5_000, 5_000)


def test_it_is_not_used_where_the_test_images_disagree() -> None:
    found = calibrate(*drawn(5_000, 3.0, 1), *drawn(5_000, 1.0, 2))
    assert not found.is_used
    assert found.scaled_error > found.error


def test_it_is_not_used_where_no_temperature_fits() -> None:
    probabilities, _ = drawn(200, 1.0, 3)
    perfect = probabilities.argmax(axis=1)
    # Without a mistake, the lower the temperature, the lower the loss.
    found = calibrate(probabilities, perfect, probabilities, perfect)
    assert not found.is_used
    assert found.scaled_error < found.error


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.25, 8))
def test_scaling_equals_a_softmax_of_divided_logits_and_keeps_the_labels(
    seed: int, temperature: float
) -> None:
    logits = np.random.default_rng(seed).normal(0, 4, (20, 6))
    scaled = scale(softmax(logits), temperature)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, softmax(logits / temperature), atol=2e-6)
    assert (scaled.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_a_probability_of_zero_stays_finite() -> None:
    scaled = scale(np.array([[1.0, 0.0]], np.float32), 2.0)
    assert np.isfinite(scaled).all()
    assert scaled.sum() == pytest.approx(1)
