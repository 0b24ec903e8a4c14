"""The baseline for drift: what the test images, and the predictions for them, are like."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.datasets.contents import as_contents
from pixelmill.pipeline.decoding.files import decode_files
from pixelmill.pipeline.drift.baseline import describe_baseline
from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES, ImageValues, measure_images
from pixelmill.pipeline.images import DecodedImage
from pixelmill.pipeline.inference import Probabilities

_MOST_IMAGES = 10_000
_AT_ONCE = 250


def baseline_of_dataset(dataset: PreparedDataset, probabilities: Probabilities) -> dict[str, Any]:
    """The baseline from the test split of a dataset.

    Args:
        dataset: The dataset.
        probabilities: The predictions for the test images, float32 [images, classes].
    """
    test = dataset.split("test")
    return describe_baseline(probabilities, test.labels, _measure_split(dataset))


def measure_files(files: Sequence[Path], spec: ImageSpec) -> ImageValues | None:
    """The measures of those image files that can be read, float32 [images, measures]; None if none can.

    Args:
        files: The files, of which at most 10,000 evenly spaced ones are read.
        spec: The model's input.
    """
    found, waiting = [], list[DecodedImage]()
    chosen = [files[at] for at in _evenly(len(files))]
    for image in decode_files(chosen, spec):
        if isinstance(image, DecodedImage):
            waiting.append(image)
        if len(waiting) == _AT_ONCE:
            found.append(_measure(waiting))
            waiting = []
    if waiting:
        found.append(_measure(waiting))
    return np.concatenate(found) if found else None


def _measure(images: Sequence[DecodedImage]) -> ImageValues:
    return measure_images(
        [image.pixels for image in images],
        [image.width for image in images],
        [image.height for image in images],
    )


def _measure_split(dataset: PreparedDataset) -> ImageValues:
    pixels = dataset.split("test").pixels
    chosen = _evenly(len(pixels))
    contents = dataset.rows("test", ["sha256"])["sha256"].take(chosen).to_pylist()
    sizes = dataset.tensors().measures(as_contents(contents))
    widths, heights = sizes["width"].to_numpy(), sizes["height"].to_numpy()
    found = [np.empty((0, len(IMAGE_MEASURES)), np.float32)]
    for start in range(0, len(chosen), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        found.append(measure_images(list(np.asarray(pixels[chosen[some]])), widths[some], heights[some]))
    return np.concatenate(found)


def _evenly(images: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.linspace(0, images - 1, min(images, _MOST_IMAGES)).round().astype(np.int64)
