"""The measures of an image, compared with values computed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES, measure_images


def measured(*tensors: np.ndarray, width: int = 40, height: int = 30) -> list[dict[str, float]]:
    values = measure_images(list(tensors), [width] * len(tensors), [height] * len(tensors))
    assert values.dtype == np.float32
    return [dict(zip(IMAGE_MEASURES, row, strict=True)) for row in values.tolist()]


def test_a_flat_grey_image() -> None:
    (found,) = measured(np.full((8, 8, 1), 51, np.uint8))
    assert found["brightness"] == pytest.approx(0.2)
    assert found["contrast"] == found["sharpness"] == 0
    assert (found["horizontal_centre"], found["vertical_centre"]) == (0.5, 0.5)
    assert np.isnan(found["saturation"])
    assert np.isnan(found["warmth"])
    assert found["size"] == pytest.approx(1200**0.5)
    assert found["aspect"] == pytest.approx(4 / 3)


def test_an_image_that_is_bright_on_the_right_and_at_the_top() -> None:
    image = np.zeros((8, 9, 1), np.uint8)
    image[:4, 4:8] = 200
    (found,) = measured(image)
    assert found["brightness"] == pytest.approx(200 / 255 / 4)
    assert found["contrast"] == pytest.approx(200 / 255 * (3 / 16) ** 0.5)
    assert found["horizontal_centre"] == 0.75
    assert found["vertical_centre"] == 0.25


def test_colours() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 204, 51, 102
    found, swapped = measured(image, image[..., ::-1].copy())
    assert found["saturation"] == swapped["saturation"] == pytest.approx(0.6)
    assert found["warmth"] == -swapped["warmth"] == pytest.approx(0.4)
    grey = (2 * 204 + 5 * 51 + 102) // 8
    assert found["brightness"] == pytest.approx(grey / 255)


def test_a_blurred_image_is_less_sharp() -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    blurred = sharp.astype(np.float64)
    for axis in (0, 1):
        blurred = (blurred + np.roll(blurred, 1, axis) + np.roll(blurred, -1, axis)) / 3
    first, second = measured(sharp, blurred.astype(np.uint8))
    assert second["sharpness"] < 0.8 * first["sharpness"]


def test_an_unknown_size_is_not_measured() -> None:
    values = measure_images([np.zeros((4, 4, 1), np.uint8)] * 2, [0, 5], [0, 5])
    assert np.isnan(values[0, 7:]).all()
    assert values[1, 7:].tolist() == [5, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(1, 300), st.integers(0, 99)
)
def test_a_measure_does_not_depend_on_the_other_images(
    height: int, width: int, channels: int, images: int, seed: int
) -> None:
    tensors = np.random.default_rng(seed).integers(0, 256, (images, height, width, channels), np.uint8)
    together = measure_images(list(tensors), np.full(images, width), np.full(images, height))
    alone = measure_images([tensors[-1]], [width], [height])
    assert np.array_equal(together[-1:], alone, equal_nan=True)
    assert np.isfinite(together[:, :3]).all()
    known = together[:, [0, 1, 3, 5, 6]]
    assert ((known >= 0) & (known <= 1) | np.isnan(known)).all()
