"""Whether every class is in every split."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from pixelmill.pipeline.datasets import Labels, SplitName
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError

_MAX_NAMES = 8


def check_coverage(
    labels: Mapping[SplitName, Labels], class_names: Sequence[str], removed: Collection[str] = ()
) -> tuple[str, ...]:
    """Require images of every class for training and test.

    A split can lose its last image of a class when images are deleted: those that are left stay where they
    are, because a training image must not become a test image.

    Args:
        labels: The class index of each image in each split, int64 [images].
        class_names: In the order of the labels.
        removed: Classes that may be without images.

    Returns:
        A warning if classes are without validation images, else nothing.

    Raises:
        RequestError: A class has no training image, or no test image.
    """
    missing = {
        split: [
            repr(printable(class_names[label]))
            for label in np.flatnonzero(np.bincount(found, minlength=len(class_names)) == 0).tolist()
            if class_names[label] not in removed
        ]
        for split, found in labels.items()
    }
    for split in ("train", "test"):
        if names := missing[split]:
            raise RequestError(
                f"no image of {_join(names)} in the {split} split can be read",
                "images of every class for training and test",
                "Add new images of these classes: those that earlier runs used stay in their splits.",
            )
    if names := missing["validation"]:
        return (f"no validation image of {_join(names)}: their validation accuracy is unknown",)
    return ()


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    return f"{shown} and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else shown
