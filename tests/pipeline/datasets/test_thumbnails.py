"""The differences of thumbnails are those of their definition, however bright, and in any number."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pixelmill.pipeline.datasets.thumbnails import COARSE, FINE, make_thumbnails
from pixelmill.pipeline.images import Pixels

SHAPES = st.sampled_from([(4, 8, 8, 1), (3, 16, 8, 3), (3, 32, 32, 3), (2, 5, 3, 1)])


def difference(one: Pixels, two: Pixels) -> float:
    """The mean squared difference over the mean variance, each channel relative to its mean."""
    first, second = one.astype(np.float64), two.astype(np.float64)
    means = first.mean((0, 1)), second.mean((0, 1))
    if np.abs(means[0] - means[1]).max() > 16:
        return np.inf
    first, second = first - means[0], second - means[1]
    variance = (np.square(first).mean() + np.square(second).mean()) / 2
    return float(np.square(first - second).mean() / (variance + 16))


def every_pair(count: int) -> npt.NDArray[np.int64]:
    return np.stack(np.triu_indices(count, 1), axis=1)


@settings(deadline=None)
@given(SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_differences_are_those_of_the_definition(tensors: Pixels) -> None:
    pairs = every_pair(len(tensors))
    found = make_thumbnails(np.arange(len(tensors)), tensors, FINE).differences(pairs)
    expected = [difference(tensors[one], tensors[two]) for one, two in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("level", [0, 127, 255])
def test_the_brightest_and_darkest_images_are_compared_exactly(level: int) -> None:
    tensors = np.full((2, 32, 32, 3), level, np.uint8)
    tensors[1, 0, 0, 0] ^= 1
    found = make_thumbnails(np.arange(2), tensors, FINE).differences(every_pair(2))
    variance = (1 / 1024 - 1 / 1024**2) / 3
    assert found.tolist() == [np.float32(variance / (variance / 2 + 16))]


def test_images_are_found_by_their_index_among_any_number() -> None:
    tensors = np.random.default_rng(0).integers(120, 136, (700, 16, 16, 1)).astype(np.uint8)
    rows = np.arange(1, 700, 2)
    pairs = rows[every_pair(len(rows))[:3000]]
    found = make_thumbnails(rows, tensors, FINE).differences(pairs)
    expected = [difference(tensors[one], tensors[two]) for one, two in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_small_images_are_not_blurred_and_large_ones_are() -> None:
    tensors = np.zeros((1, 64, 64, 1), np.uint8)
    tensors[0, 31:33, 31:33] = 255
    rows = np.arange(1)
    assert make_thumbnails(rows, tensors, FINE).pixels.max() > 60
    assert make_thumbnails(rows, tensors, FINE, blurs=True).pixels.max() < 30
    coarse = make_thumbnails(rows, tensors, COARSE)
    assert (make_thumbnails(rows, tensors, COARSE, blurs=True).pixels == coarse.pixels).all()
