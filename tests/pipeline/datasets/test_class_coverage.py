"""A class that lost its images of a split is warned of, or stops the run."""

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


def test_a_class_without_test_images_is_a_warning_that_says_what_follows() -> None:
    (line,) = check_coverage(labels(test=2), NAMES)
    assert line == (
        "no test image of 'cat': their recall is not judged until there are new images, of which the test "
        "split gets the first"
    )


def test_a_class_without_training_images_is_refused() -> None:
    with pytest.raises(RequestError, match="no image of 'cat' in the train split can be read"):
        check_coverage(labels(train=2), NAMES)


def test_a_dataset_without_test_images_is_refused() -> None:
    nothing = {**labels(), "test": np.zeros(0, np.int64)}
    with pytest.raises(RequestError, match="no image of 'ant', 'bee', 'cat' in the test split can be read"):
        check_coverage(nothing, NAMES)


def test_a_removed_class_may_be_without_images() -> None:
    assert check_coverage(labels(train=0, test=0, validation=0), NAMES, ["ant"]) == ()
