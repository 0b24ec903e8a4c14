"""The operations of RandAugment and TrivialAugment, compared with Pillow."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.training.augmentation.policies import OPERATIONS
from tests.pipeline.training.augmentation.batches import augmented, random_batch

Reference = Callable[[Image.Image, float], Image.Image]
REFERENCES: dict[str, Reference] = {
    "identity": lambda image, _: image,
    "brightness": lambda image, by: ImageEnhance.Brightness(image).enhance(1 + by),
    "saturation": lambda image, by: ImageEnhance.Color(image).enhance(1 + by),
    "contrast": lambda image, by: ImageEnhance.Contrast(image).enhance(1 + by),
    "sharpness": lambda image, by: ImageEnhance.Sharpness(image).enhance(1 + by),
    "posterize": lambda image, by: ImageOps.posterize(image, 8 - round(by)),
    "solarize": lambda image, by: ImageOps.solarize(image, 256 * (1 - by)),  # type: ignore[arg-type]
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}
PER_PIXEL = tuple(REFERENCES)
GEOMETRIC = tuple(name for name in OPERATIONS if name not in REFERENCES)


def noise(channels: int = 3, low: int = 40, high: int = 200) -> Pixels:
    return np.random.default_rng(0).integers(low, high, (24, 30, channels), np.uint8)


@pytest.mark.parametrize("name", PER_PIXEL)
@pytest.mark.parametrize("share", [-1.0, -0.5, 0.0, 0.3, 0.75, 1.0])
def test_an_operation_is_that_of_pillow(name: str, share: float) -> None:
    operation = OPERATIONS[name]
    share = share if operation.is_signed else abs(share)
    for policy, strongest in operation.strongest.items():
        found = operation.apply(noise(), share * strongest)
        expected = np.asarray(REFERENCES[name](Image.fromarray(noise()), share * strongest))
        np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=2, err_msg=policy)


def test_equal_values_are_kept_where_there_is_nothing_to_stretch() -> None:
    flat = np.full((9, 9, 3), 77, np.uint8)
    for name in ("autocontrast", "equalize"):
        np.testing.assert_array_equal(OPERATIONS[name].apply(flat, 0), flat)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_geometric_operation_without_magnitude_changes_nothing(name: str) -> None:
    np.testing.assert_array_equal(OPERATIONS[name].apply(noise(), 0.0), noise())


def spot(row: int, column: int) -> Pixels:
    away = np.indices((61, 61)) - np.array([row, column])[:, None, None]
    return np.repeat(255 * np.exp(-(away**2).sum(axis=0) / 8)[..., None], 3, axis=2).astype(np.uint8)


def centre(image: Pixels) -> tuple[float, float]:
    weights = image[..., 0].astype(float)
    rows, columns = np.indices(weights.shape) - 30
    return float((weights * rows).sum() / weights.sum()), float((weights * columns).sum() / weights.sum())


@pytest.mark.parametrize(
    ("name", "magnitude", "expected"),
    [
        ("shift_x", 0.1, (10, -6)),
        ("shift_y", 0.1, (4, 0)),
        ("shear_x", 0.3, (10, -3)),
        ("shear_y", -0.3, (10, 0)),
        ("rotate", 90, (0, 10)),
        ("rotate", -30, (8.66, -5)),
    ],
)
def test_geometric_operations_move_pixels_as_far_as_they_say(
    name: str, magnitude: float, expected: tuple[float, float]
) -> None:
    moved = OPERATIONS[name].apply(spot(40, 30), magnitude)
    assert centre(moved) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_a_policy_changes_images_more_the_stronger_it_is(policy: str) -> None:
    # Operations without a magnitude are those of all strengths.
    pixels = np.stack([noise()] * 600)
    changes = [
        np.abs(augmented(pixels, policy=policy, policy_strength=share)[0].astype(int) - pixels).mean()
        for share in (0.0, 0.1, 0.5, 1.0)
    ]
    assert changes == sorted(changes)
    assert changes[-1] > 1.5 * changes[0]


def test_the_default_strengths_are_those_of_the_papers() -> None:
    pixels, _ = random_batch(20, 12, 12, 3)
    for policy, strength in (("randaugment", 0.3), ("trivialaugment", 1.0)):
        by_default, _ = augmented(pixels, policy=policy)
        named, _ = augmented(pixels, policy=policy, policy_strength=strength)
        np.testing.assert_array_equal(by_default, named)


def test_trivialaugment_applies_one_operation_to_each_image() -> None:
    shades = np.stack([noise()] * 300)
    changed, _ = augmented(shades, policy="trivialaugment")
    unchanged = (changed == shades).all(axis=(1, 2, 3)).sum()
    assert 10 < unchanged < 60  # identity is one of 14 operations, and some have no effect.


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_greyscale_images_are_never_given_an_operation_on_colours(policy: str) -> None:
    pixels = np.stack([noise(channels=1)] * 100)
    changed, _ = augmented(pixels, policy=policy)
    assert changed.shape == pixels.shape
    assert not OPERATIONS["saturation"].strongest.keys() - {"randaugment", "trivialaugment"}
