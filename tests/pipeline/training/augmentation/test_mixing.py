"""Mixup and cutmix."""

from typing import Any

import numpy as np

from tests.pipeline.training.augmentation.batches import Augmented, augmented


def halves(**spec: Any) -> Augmented:
    """Augmented images, half of them black with the label 0, half of them white with the label 1."""
    shades = np.repeat(np.array([0, 255], np.uint8), 50)
    pixels = np.broadcast_to(shades[:, None, None, None], (100, 12, 16, 1))
    return augmented(pixels, np.eye(2, dtype=np.float32)[shades // 255], **spec)


def test_mixup_blends_labels_like_images() -> None:
    shades = np.repeat(np.array([0, 255], np.uint8), 50)
    pixels = np.broadcast_to(shades[:, None, None, None], (100, 4, 4, 1))
    changed, soft = augmented(pixels, np.eye(2, dtype=np.float32)[shades // 255], mixup=0.5)
    np.testing.assert_allclose(changed[:, 0, 0, 0] / 255, soft[:, 1], atol=0.003)
    assert ((soft > 0.05) & (soft < 0.95)).any()


def test_cutmix_mixes_labels_by_the_area_of_the_pasted_rectangle() -> None:
    changed, soft = halves(cutmix=1.0)
    assert set(np.unique(changed)) == {0, 255}
    np.testing.assert_allclose(changed[..., 0].mean(axis=(1, 2)) / 255, soft[:, 1], atol=1e-6)
    mixed = changed[(soft[:, 1] > 0.01) & (soft[:, 1] < 0.99)]
    assert len(mixed) > 20
    areas = []
    for one in mixed[..., 0]:
        # The rectangle is the part of another colour than three of the corners or more.
        corners = [one[0, 0], one[0, -1], one[-1, 0], one[-1, -1]]
        if corners.count(corners[0]) == 4:
            rows, columns = np.nonzero(one != corners[0])
            part = one[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (part != corners[0]).all()
            areas.append(part.size / one.size)
    assert min(areas) < 0.1


def test_cutmix_draws_the_area_from_the_beta_distribution() -> None:
    shades = np.arange(2000) % 2 * 255
    pixels = np.broadcast_to(shades.astype(np.uint8)[:, None, None, None], (2000, 64, 64, 1))
    _, soft = augmented(pixels, np.eye(2, dtype=np.float32)[shades // 255], cutmix=1.0)
    own = soft[np.arange(2000), shades // 255]
    changed = own[own < 1]
    # A rectangle around a random centre loses what is beyond the edges: more of it is the image's own.
    assert 0.55 < changed.mean() < 0.75
    assert changed.min() < 0.2


def test_with_both_each_batch_gets_one_of_the_two() -> None:
    kinds = []
    for seed in range(40):
        changed, soft = halves(mixup=1.0, cutmix=1.0, seed=seed)
        shown = changed[..., 0].mean(axis=(1, 2)) / 255
        np.testing.assert_allclose(shown, soft[:, 1], atol=0.003)
        kinds.append(set(np.unique(changed)) == {0, 255})
    assert 10 < sum(kinds) < 30
