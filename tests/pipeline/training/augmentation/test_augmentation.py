"""What all augmentations have in common."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.training.augmentation import augment
from tests.pipeline.training.augmentation.batches import augmented, random_batch


@settings(deadline=None)
@given(
    spec=st.builds(
        AugmentationSpec,
        shift=st.floats(0, 0.5),
        rotation=st.floats(0, 180),
        zoom=st.floats(0, 0.5),
        shear=st.floats(0, 45),
        elastic=st.floats(0, 0.2),
        flip=st.sampled_from(["none", "horizontal", "vertical", "both"]),
        crop=st.floats(0, 0.99),
        policy=st.sampled_from(["none", "randaugment", "trivialaugment"]),
        policy_strength=st.none() | st.floats(0, 1),
        brightness=st.floats(0, 1),
        contrast=st.floats(0, 1),
        saturation=st.floats(0, 1),
        hue=st.floats(0, 0.5),
        grey=st.floats(0, 1),
        cutout=st.floats(0, 0.99),
        erasing=st.floats(0, 1),
        mixup=st.floats(0, 10),
        cutmix=st.floats(0, 10),
    ),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3])),
)
def test_any_augmentation_keeps_shapes_and_dtypes(
    spec: AugmentationSpec, shape: tuple[int, int, int, int]
) -> None:
    pixels, labels = random_batch(*shape)
    before = pixels.copy(), labels.copy()
    changed, soft = augment(pixels, labels, spec, np.random.default_rng(0))
    assert changed.shape == shape
    assert (changed.dtype, soft.dtype) == (np.dtype(np.uint8), np.dtype(np.float32))
    assert soft.min() >= 0
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(labels, before[1])
    again, soft_again = augment(pixels, labels, spec, np.random.default_rng(0))
    np.testing.assert_array_equal(changed, again)
    np.testing.assert_array_equal(soft, soft_again)


def test_without_augmentation_nothing_changes() -> None:
    pixels, labels = random_batch(4, 8, 8, 1)
    changed, soft = augmented(pixels, labels)
    np.testing.assert_array_equal(changed, pixels)
    np.testing.assert_array_equal(soft, labels)


@pytest.mark.parametrize("field", ["saturation", "hue", "grey"])
def test_changes_of_colour_are_refused_for_greyscale_images(field: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_recipe("digits", [f"training.augmentation.{field}=0.25"])
    assert str(caught.value) == (
        f"recipe digits: training.augmentation.{field} is 0.25; expected 0 for images without colour, as "
        "image.channels is 1. Correct the recipe or the override."
    )
    assert load_recipe(
        "cifar10", [f"training.augmentation.{field}=0.25"]
    ).training.augmentation.for_color == {field: 0.25}
