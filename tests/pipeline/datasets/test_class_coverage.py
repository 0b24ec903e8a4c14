"""A class that lost its images of a split stops the run, or is warned of, and nothing moves."""

import numpy as np
import pytest

from pixelmill.pipeline.datasets import Labels, SplitName
from pixelmill.pipeline.datasets.class_coverage import check_coverage
from pixelmill.pipeline.errors import RequestError


def labels(**without: int) -> dict[SplitName, Labels]:
    """Three classes in every split, except for the given one."""
    splits: tuple[SplitName, ...] = ("train", "validation", "test")
    return {
        split: np.array([label for label in range(3) if label != without.get(split)], np.int64)
        for split in splits
    }


NAMES = ("ant", "bee", "cat")


def test_every_class_in_every_split_is_right() -> None:
    assert check_coverage(labels(), NAMES) == ()


def test_a_class_without_validation_images_is_a_warning() -> None:
    (line,) = check_coverage(labels(validation=1), NAMES)
    assert line.startswith("no validation image of 'bee'")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_without_training_or_test_images_is_refused(split: str) -> None:
    with pytest.raises(RequestError, match=f"no image of 'cat' in the {split} split can be read"):
        check_coverage(labels(**{split: 2}), NAMES)


def test_a_removed_class_may_be_without_images() -> None:
    assert check_coverage(labels(train=0, test=0, validation=0), NAMES, ["ant"]) == ()
