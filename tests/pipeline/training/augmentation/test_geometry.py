"""The effect of random geometry on images."""

from typing import Any

import cv2
import numpy as np
import pytest

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.training.augmentation import augment
from tests.pipeline.training.augmentation.batches import augmented, random_batch


def blobs(count: int, size: int, row: float, column: float) -> Pixels:
    """Images of one round spot on black; rows and columns are relative to the centre."""
    away = np.arange(size) - (size - 1) / 2
    spot = 255 * np.exp(-((away[:, None] - row) ** 2 + (away - column) ** 2) / 8)
    return np.repeat(np.rint(spot).astype(np.uint8)[None, :, :, None], count, axis=0)


def centres(pixels: Pixels) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """The centroid of each image, (row, column) relative to the centre."""
    weights = pixels[..., 0].astype(float)
    away = np.arange(pixels.shape[1]) - (pixels.shape[1] - 1) / 2
    total = weights.sum(axis=(1, 2))
    rows, columns = weights.sum(axis=2) @ away / total, weights.sum(axis=1) @ away / total
    return np.stack([rows, columns], axis=1)


@pytest.mark.parametrize(("flip", "axes"), [("horizontal", {2}), ("vertical", {1}), ("both", {1, 2})])
def test_a_flip_mirrors_about_half_of_the_images_exactly(flip: str, axes: set[int]) -> None:
    pixels, _ = random_batch(200, 7, 9, 3)
    changed, _ = augmented(pixels, flip=flip)
    kept = np.array([np.array_equal(one, other) for one, other in zip(changed, pixels, strict=True)])
    for axis in axes:
        mirrored = np.flip(pixels, axis)
        turned = [np.array_equal(one, other) for one, other in zip(changed, mirrored, strict=True)]
        assert 20 < sum(turned) < 130
    everything = [pixels, *(np.flip(pixels, axis) for axis in axes), np.flip(pixels, tuple(axes))]
    assert all((changed == one).all(axis=(1, 2, 3)).any() for one in everything)
    assert 20 < kept.sum() < 130
    assert all(any(np.array_equal(changed[i], one[i]) for one in everything) for i in range(200))


def test_a_shift_moves_by_whole_pixels_up_to_its_share_of_the_side() -> None:
    changed, _ = augmented(blobs(300, 40, 0, 0), shift=0.1)
    found = centres(changed)
    whole = np.rint(found)
    np.testing.assert_allclose(found, whole, atol=0.01)
    assert set(whole[:, 0]) == set(whole[:, 1]) == set(range(-4, 5))


def test_a_rotated_image_is_shifted_by_fractions_of_pixels() -> None:
    changed, _ = augmented(blobs(300, 40, 0, 0), shift=0.1, rotation=1)
    found = centres(changed)
    assert np.abs(found).max() < 4.1
    for axis in (0, 1):
        assert found[:, axis].min() < -3.5
        assert found[:, axis].max() > 3.5
    assert (np.abs(found - np.rint(found)) > 0.2).any()


def test_a_rotation_is_around_the_centre_up_to_its_angle() -> None:
    changed, _ = augmented(blobs(300, 40, 0, 10), rotation=30)
    rows, columns = centres(changed).T
    np.testing.assert_allclose(np.hypot(rows, columns), 10, atol=0.2)
    degrees = np.rad2deg(np.arctan2(rows, columns))
    assert -31 < degrees.min() < -27
    assert 27 < degrees.max() < 31


def test_a_zoom_scales_around_the_centre_up_to_its_share() -> None:
    changed, _ = augmented(blobs(300, 41, 0, 10), zoom=0.2)
    rows, columns = centres(changed).T
    np.testing.assert_allclose(rows, 0, atol=0.1)
    assert 7.9 < columns.min() < 8.4
    assert 11.6 < columns.max() < 12.1


def test_a_shear_shifts_rows_up_to_its_angle() -> None:
    changed, _ = augmented(blobs(300, 41, 10, 0), shear=20)
    rows, columns = centres(changed).T
    np.testing.assert_allclose(rows, 10, atol=0.1)
    slants = np.rad2deg(np.arctan2(columns, rows))
    assert -20.5 < slants.min() < -18
    assert 18 < slants.max() < 20.5


@pytest.mark.parametrize("shape", [(300, 28, 28, 1), (3, 40, 60, 3), (2000, 40, 1, 1)])
@pytest.mark.parametrize("spec", [{"rotation": 180, "zoom": 0.5, "elastic": 0.2}, {"shift": 0.5}])
def test_the_images_of_a_batch_do_not_mix(shape: tuple[int, ...], spec: dict[str, Any]) -> None:
    brightness = np.random.default_rng(2).integers(0, 256, (shape[0], 1, 1, 1), np.uint8)
    pixels = np.broadcast_to(brightness, shape)
    changed, _ = augmented(pixels, **spec)
    np.testing.assert_array_equal(changed, pixels)


def test_an_elastic_deformation_is_smooth_and_within_its_share() -> None:
    # The value of a pixel is its original position.
    down, across = np.indices((60, 100)).astype(np.uint8)
    pixels = np.repeat(np.stack([across, down, down], axis=2)[None], 200, axis=0)
    changed, _ = augmented(pixels, elastic=0.03)
    away = changed[:, 10:-10, 10:-10, :2].astype(float) - pixels[:, 10:-10, 10:-10, :2]
    # Between the points of the grid, the displacements are interpolated.
    assert 0.6 * 3 < away[..., 0].std() < 3
    assert 0.6 * 1.8 < away[..., 1].std() < 1.8
    np.testing.assert_allclose(away.mean(axis=(0, 1, 2)), 0, atol=0.2)
    for axis in (1, 2):
        assert np.abs(np.diff(away, axis=axis)).max() <= 2
    # Bent, not shifted: the points of an image move in different directions.
    assert (away.std(axis=(1, 2)) > 0.5).all()


def test_deformation_shift_and_rotation_are_one_step() -> None:
    spot = blobs(300, 40, 0, 10)
    straight, _ = augmented(spot, shift=0.1, rotation=30)
    bent, _ = augmented(spot, shift=0.1, rotation=30, elastic=1e-6)
    np.testing.assert_allclose(bent, straight, atol=12)
    np.testing.assert_allclose(centres(bent), centres(straight), atol=0.05)


@pytest.mark.parametrize(
    "spec",
    [
        AugmentationSpec(shift=0.1, rotation=5),
        AugmentationSpec(shift=0.1, zoom=0.02),
        AugmentationSpec(shift=0.1, shear=5),
        AugmentationSpec(shift=0.1, elastic=0.01),
    ],
    ids=str,
)
def test_interpolated_images_stay_sharp(spec: AugmentationSpec) -> None:
    # Lines of two pixels: bilinear interpolation leaves four fifths of their contrast.
    stripes = np.where(np.arange(64) // 2 % 2, 228, 28).astype(np.uint8)
    pixels = np.broadcast_to(stripes[None, None, :, None], (200, 64, 64, 1))
    changed, _ = augment(pixels, np.ones((200, 1), np.float32), spec, np.random.default_rng(0))
    inner = changed[:, 16:-16, 16:-16].astype(float)
    assert inner.std(axis=(1, 2)).mean() > 0.9 * 100


def test_edge_pixels_are_replicated() -> None:
    white = np.full((20, 9, 9, 3), 255, np.uint8)
    np.testing.assert_array_equal(
        augmented(white, shift=0.5, rotation=180, zoom=0.5, shear=45, elastic=0.2)[0], white
    )


def test_a_crop_keeps_its_share_of_the_area_and_a_limited_aspect_ratio() -> None:
    # The value of a pixel is its original position, so the slopes are the sides of the crop.
    down, across = np.indices((101, 201)).astype(np.uint8)
    pixels = np.repeat(np.stack([across, down, down], axis=2)[None], 400, axis=0)
    changed, _ = augmented(pixels, crop=0.75)
    middle = changed[:, 50, 100, :2].astype(float)
    wide = (changed[:, 50, 150, 0].astype(float) - changed[:, 50, 50, 0]) / 100
    high = (changed[:, 75, 100, 1].astype(float) - changed[:, 25, 100, 1]) / 50
    area, aspect = wide * high, wide / high
    assert 0.23 < area.min() < 0.3
    assert 0.9 < area.max() < 1.02
    assert 0.55 < area.mean() < 0.7
    assert 0.72 < aspect.min() < 0.8
    assert 1.25 < aspect.max() < 1.4
    # The crop lies inside the image, anywhere.
    assert (middle[:, 0] - 100 * wide >= -1.5).all()
    assert (middle[:, 0] + 100 * wide <= 201.5).all()
    assert middle[:, 0].min() < 70
    assert middle[:, 0].max() > 130


def test_a_crop_is_the_resized_part_of_the_image() -> None:
    small = np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)
    pixels = np.asarray(cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC), np.uint8)
    changed, _ = augmented(pixels[None], crop=0.9, seed=5)
    down, across = np.indices((64, 64)).astype(np.uint8) * 4
    places, _ = augmented(np.stack([across, down, down], axis=2)[None], crop=0.9, seed=5)
    (left, top), (right, bottom) = places[0, 0, 0, :2] / 4, places[0, -1, -1, :2] / 4
    steps = np.arange(64, dtype=np.float32) / 63
    rows, columns = np.meshgrid(top + steps * (bottom - top), left + steps * (right - left), indexing="ij")
    expected = cv2.remap(pixels, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_CUBIC)
    assert np.abs(changed[0].astype(float) - expected).mean() < 2
