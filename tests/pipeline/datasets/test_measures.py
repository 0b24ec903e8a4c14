"""What is measured of a tensor: on any tensor, and on photographs that are darkened, blurred and so on."""

from pathlib import Path

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage import data

from pixelmill.pipeline.datasets.measures import measure
from pixelmill.pipeline.images import Pixels

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))


@pytest.fixture(scope="module")
def photograph() -> Pixels:
    small: Pixels = np.asarray(Image.open(Path(data.__file__).with_name("camera.png")).resize((96, 96)))
    return small[..., np.newaxis].repeat(3, axis=2)


@given(arrays(np.uint8, SHAPES))
def test_any_tensor_can_be_measured(pixels: Pixels) -> None:
    measures = measure(pixels)
    assert 0 <= measures.perceptual_hash < 2**64
    assert 0 <= measures.darkest <= measures.brightest <= 1
    assert 0 <= measures.brightness <= 1
    assert 0 <= measures.contrast <= 0.5 + 1e-9
    assert 0 <= measures.sharpness <= 64
    assert 0 < measures.flatness <= 1
    assert all(type(value) is float for value in measures[1:])


def test_grey_and_colour_are_measured_alike(photograph: Pixels) -> None:
    assert measure(photograph) == measure(photograph[..., :1])


def test_the_hash_is_that_of_imagehash(photograph: Pixels) -> None:
    expected = str(imagehash.phash(Image.fromarray(photograph).convert("L")))
    assert f"{measure(photograph).perceptual_hash:016x}" == expected


def test_one_colour_is_flat_and_has_no_contrast() -> None:
    measures = measure(np.full((20, 30, 3), 51, np.uint8))
    assert (measures.brightness, measures.contrast, measures.sharpness) == (0.2, 0, 0)
    assert (measures.darkest, measures.brightest, measures.flatness) == (0.2, 0.2, 1)


def test_grey_levels_within_16_are_alike() -> None:
    pixels = np.arange(32, dtype=np.uint8).reshape(4, 8, 1)
    assert measure(pixels).flatness == 0.5


def test_a_darkened_photograph_has_no_bright_pixels(photograph: Pixels) -> None:
    assert measure(photograph // 8).brightest <= 1 / 8
    assert measure(255 - photograph // 8).darkest >= 7 / 8
    assert measure(photograph).darkest < 0.1
    assert measure(photograph).brightest > 0.8


def test_sharpness_is_that_of_the_edges_and_not_of_the_contrast(photograph: Pixels) -> None:
    sharp, pale = measure(photograph), measure(128 + photograph // 4)
    blurred = measure(np.asarray(cv2.GaussianBlur(photograph, (0, 0), 3), np.uint8))
    assert pale.sharpness == pytest.approx(sharp.sharpness, rel=0.1)
    assert blurred.sharpness < sharp.sharpness / 20
