"""Cutout and random erasing."""

import numpy as np

from tests.pipeline.training.augmentation.batches import augmented, random_batch


def test_cutout_fills_one_square_with_the_mean_of_the_image() -> None:
    pixels, _ = random_batch(200, 20, 30, 3)
    pixels //= 4  # No pixel has the fill value by chance.
    pixels[:, 0, 0] = 255
    changed, _ = augmented(pixels, cutout=0.5)
    areas = []
    for one, before in zip(changed, pixels, strict=True):
        rows, columns, _ = np.nonzero(one != before)
        if len(rows):
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert max(height, width) <= 11
            square = one[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (square == before.mean(axis=(0, 1)).astype(np.uint8)).all()
            areas.append(height * width)
    assert len(areas) > 190
    assert max(areas) >= 100


def test_erasing_replaces_one_rectangle_of_some_images_by_noise() -> None:
    pixels = np.zeros((1000, 40, 60, 3), np.uint8)
    changed, _ = augmented(pixels, erasing=0.25)
    areas, aspects, noise = [], [], []
    for one in changed:
        rows, columns, _ = np.nonzero(one)
        if len(rows):
            part = one[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            noise.append(part.ravel())
            areas.append(part.shape[0] * part.shape[1] / 2400)
            if max(part.shape[:2]) < 38:
                aspects.append(part.shape[0] / part.shape[1])
    assert 200 < len(areas) < 300
    # Sides are whole pixels.
    assert 0.01 < min(areas) < 0.04
    assert 0.28 < max(areas) < 0.36
    assert min(aspects) < 0.45
    assert max(aspects) > 2.2
    values = np.concatenate(noise)
    assert abs(values.mean() - 127.5) < 1
    assert set(np.unique(values)) == set(range(256))
