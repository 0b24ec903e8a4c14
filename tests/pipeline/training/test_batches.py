"""The batches of training: every image once per epoch, and the same for the same seed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.training.input_pipeline import (
    KerasBatch,
    TrainingBatches,
    ValidationBatches,
    shuffled_order,
)


def images(count: int) -> Images:
    """Images with one pixel, whose value is the index."""
    numbers = np.arange(count)
    return Images(numbers.astype(np.uint8).reshape(count, 1, 1, 1), numbers % 3)


def training(**fields: Any) -> TrainingSpec:
    return TrainingSpec.model_validate({"epochs": 3, "batch_size": 8, **fields})


def batches(count: int = 50, **fields: Any) -> TrainingBatches:
    return TrainingBatches(images(count), 3, training(**fields))


def numbers(batch: KerasBatch) -> list[int]:
    return [int(number) for number in batch[0].ravel()]


@given(count=st.integers(1, 500), block=st.integers(1, 50), window=st.integers(1, 20), seed=st.integers(0, 9))
def test_the_order_contains_every_image_once_and_is_local(
    count: int, block: int, window: int, seed: int
) -> None:
    order = shuffled_order(count, block, window, np.random.default_rng(seed))
    assert sorted(order) == list(range(count))
    # The last block may be shorter than the others, which shifts the windows by less than a block.
    for start in range(0, count, block * window):
        assert len(set(order[start : start + block * window] // block)) < window + block


def test_a_small_dataset_is_fully_shuffled() -> None:
    order = shuffled_order(1000, 10, 100, np.random.default_rng(0))
    assert np.abs(np.diff(order)).mean() > 200


def test_an_epoch_contains_every_image_with_its_label_in_batches_of_equal_size() -> None:
    made = batches()
    assert (made.steps, len(made)) == (7, 21)
    for epoch in range(3):
        steps = [made[epoch * 7 + step] for step in range(7)]
        assert [len(pixels) for pixels, _ in steps] == [8] * 7
        seen = [number for batch in steps for number in numbers(batch)]
        assert sorted(seen[:50]) == list(range(50))
        assert seen[50:] == seen[:6]
        assert [int(label.argmax()) for _, labels in steps for label in labels] == [n % 3 for n in seen]


def test_a_dataset_smaller_than_a_batch_fills_it() -> None:
    assert sorted(numbers(batches(count=3)[0])) == [0, 0, 0, 1, 1, 1, 2, 2]


def test_every_epoch_and_every_seed_has_a_different_order() -> None:
    first = [numbers(batches()[index]) for index in range(21)]
    assert first == [numbers(batches()[index]) for index in range(21)]
    assert first[:7] != first[7:14]
    assert first != [numbers(batches(seed=1)[index]) for index in range(21)]


def test_a_batch_does_not_depend_on_earlier_ones() -> None:
    augmentation = {"mixup": 0.5, "shift": 0.3}
    forward, backward = batches(augmentation=augmentation), batches(augmentation=augmentation)
    expected = [forward[index] for index in range(21)]
    for index in reversed(range(21)):
        for made, wanted in zip(backward[index], expected[index], strict=True):
            np.testing.assert_array_equal(made, wanted)


def test_labels_are_smoothed_only_for_training() -> None:
    _, smoothed = batches(label_smoothing=0.3)[0]
    np.testing.assert_allclose(np.sort(smoothed, axis=1), np.tile([0.1, 0.1, 0.8], (8, 1)), rtol=1e-6)
    _, plain = ValidationBatches(images(5), 3, 1)[0]
    np.testing.assert_array_equal(plain, np.eye(3)[[0, 1, 2, 0, 1]])


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("count", [1, 100, 1234])
def test_validation_covers_the_whole_split_in_order(count: int, devices: int) -> None:
    many = Images(np.zeros((count, 1, 1, 1), np.uint8), np.arange(count) % 3)
    validation = ValidationBatches(many, 3, devices)
    made = [validation[index][1] for index in range(len(validation))]
    assert all(len(part) % devices == 0 for part in made[:-1])
    labels = [int(label.argmax()) for part in made for label in part]
    assert labels == list(many.labels)
