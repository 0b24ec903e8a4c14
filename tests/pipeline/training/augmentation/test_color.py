"""Changes of colour, compared with Pillow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.training.augmentation.color import turn_hue
from tests.pipeline.training.augmentation.batches import augmented


def photographs(count: int = 50, channels: int = 3) -> Pixels:
    """Smooth images of medium brightness, which no small change clips."""
    rng = np.random.default_rng(0)
    small = rng.integers(60, 180, (count, 4, 4, channels), np.uint8)
    return np.repeat(np.repeat(small, 4, axis=1), 4, axis=2)


ENHANCERS: dict[str, Callable[[Any], Any]] = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


@pytest.mark.parametrize("field", ENHANCERS)
def test_a_change_is_that_of_pillow_with_some_factor_in_the_range(field: str) -> None:
    pixels = photographs()
    spec: dict[str, Any] = {field: 0.4}
    changed, _ = augmented(pixels, **spec)
    candidates = np.linspace(0.6, 1.4, 161)
    factors = []
    for before, after in zip(pixels, changed, strict=True):
        enhancer = ENHANCERS[field](Image.fromarray(before))
        differences = [
            np.abs(np.asarray(enhancer.enhance(factor)).astype(int) - after).max() for factor in candidates
        ]
        assert min(differences) <= 2
        factors.append(candidates[int(np.argmin(differences))])
    assert min(factors) < 0.65
    assert max(factors) > 1.35


def test_all_changes_together_are_one_after_the_other() -> None:
    pixels = photographs(1)
    changed, _ = augmented(pixels, brightness=0.2, contrast=0.3, saturation=0.5, seed=4)
    rng = np.random.default_rng(4)
    image = Image.fromarray(pixels[0])
    for enhancer, most in zip(ENHANCERS.values(), (0.2, 0.3, 0.5), strict=True):
        image = enhancer(image).enhance(rng.uniform(1 - most, 1 + most, 1)[0])
    np.testing.assert_allclose(changed[0].astype(int), np.asarray(image).astype(int), atol=3)


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 0.37])
def test_the_hue_turns_as_in_pillow(turn: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    changed = turn_hue(pixels, np.full(3, turn))
    for before, after in zip(pixels, changed, strict=True):
        hue, saturation, value = Image.fromarray(before).convert("HSV").split()
        # As in torchvision: the sum wraps.
        turned = np.asarray(hue) + np.int64(np.rint(turn * 256)).astype(np.uint8)
        image = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
        # Both round hue and saturation to 256 steps, in different ways.
        assert np.abs(np.asarray(image).astype(int) - after).mean() < 2


def test_hues_are_in_the_range() -> None:
    red = np.broadcast_to(np.array([200, 40, 40], np.uint8), (400, 2, 2, 3))
    changed, _ = augmented(red, hue=0.1)
    hues = np.array([np.asarray(Image.fromarray(one).convert("HSV"))[0, 0, 0] for one in changed])
    signed = hues.astype(np.int8) / 256
    assert -0.11 < signed.min() < -0.08
    assert 0.08 < signed.max() < 0.11


def test_some_images_become_grey() -> None:
    pixels = photographs(400)
    changed, _ = augmented(pixels, grey=0.3)
    is_grey = np.ptp(changed.astype(int), axis=-1).max(axis=(1, 2)) <= 1
    assert 90 < is_grey.sum() < 150
    np.testing.assert_array_equal(changed[~is_grey], pixels[~is_grey])
    first = int(np.flatnonzero(is_grey)[0])
    expected = np.asarray(Image.fromarray(pixels[first]).convert("L")).astype(int)
    np.testing.assert_allclose(changed[first, ..., 0].astype(int), expected, atol=1)


def test_greyscale_images_change_in_brightness_and_contrast() -> None:
    pixels = photographs(200, channels=1)
    changed, _ = augmented(pixels, brightness=0.3, contrast=0.3)
    means = changed.mean(axis=(1, 2, 3)) / pixels.mean(axis=(1, 2, 3))
    spread = changed.std(axis=(1, 2, 3)) / pixels.std(axis=(1, 2, 3))
    assert 0.69 < means.min() < 0.75
    assert 1.2 < means.max() < 1.31
    assert spread.min() < 0.6
    assert spread.max() > 1.4


def test_colours_are_clipped_not_wrapped() -> None:
    white = np.full((100, 4, 4, 3), 250, np.uint8)
    changed, _ = augmented(white, brightness=1.0)
    assert (changed == 255).all(axis=(1, 2, 3)).sum() > 30
    assert changed[changed < 255].max() <= 254
