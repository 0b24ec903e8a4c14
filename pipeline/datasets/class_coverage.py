"""Whether every class is in every split."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from pixelmill.pipeline.datasets import Labels, SplitName
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError

_MAX_NAMES = 8
_CONSEQUENCES: Mapping[SplitName, str] = {
    "test": "their recall is not judged until there are new images, of which the test split gets the first",
    "validation": "their validation accuracy is unknown",
}


def check_coverage(
    labels: Mapping[SplitName, Labels], class_names: Sequence[str], removed: Collection[str] = ()
) -> tuple[str, ...]:
    """Require training images of every class, and test images.

    A split can lose its last image of a class when images are deleted: those that are left stay where they
    are, because a training image must not become a test image. New images of the class go to the test split
    first.

    Args:
        labels: The class index of each image in each split, int64 [images].
        class_names: In the order of the labels.
        removed: Classes that may be without images.

    Returns:
        A warning for the test and the validation split if classes are without images there.

    Raises:
        RequestError: A class has no training image, or no class has a test image.
    """
    missing = {
        split: [
            repr(printable(class_names[label]))
            for label in np.flatnonzero(np.bincount(found, minlength=len(class_names)) == 0).tolist()
            if class_names[label] not in removed
        ]
        for split, found in labels.items()
    }
    required: tuple[tuple[SplitName, bool], ...] = (("train", True), ("test", not len(labels["test"])))
    for split, is_required in required:
        if is_required and (names := missing[split]):
            raise RequestError(
                f"no image of {_join(names)} in the {split} split can be read",
                "images of every class for training, and images for the test",
                "Add new images of these classes: those that earlier runs used stay in their splits.",
            )
    return tuple(
        f"no {split} image of {_join(missing[split])}: {consequence}"
        for split, consequence in _CONSEQUENCES.items()
        if missing[split]
    )


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    return f"{shown} and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else shown
