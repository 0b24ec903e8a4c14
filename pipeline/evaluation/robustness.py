"""How much the predictions depend on changes that leave the class of an image as it is.

A network of convolutions and pooling is nearly invariant to small shifts, but nothing in it makes it
invariant to rotation: both are measured on a sample of the test images.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import ImageSpec, Recipe
from pixelmill.pipeline.datasets import Labels, PreparedDataset
from pixelmill.pipeline.datasets.contents import hash_content
from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.evaluation.metrics_file import Robustness, RobustnessLevel, RobustnessSeries
from pixelmill.pipeline.evaluation.perturbations import PERTURBATIONS
from pixelmill.pipeline.file_names import unescape
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.images.opencv import decode_with_opencv
from pixelmill.pipeline.layers import summarize_layers
from pixelmill.pipeline.progress import progress

Predict = Callable[[Pixels], Labels]
"""Maps uint8 [images, height, width, channels] to the top-1 classes, int64 [images]."""
_SEED = 0
_FEWEST_IMAGES = 50
_MAX_MULTIPLY_ADDS = 2e11


def measure_robustness(predict: Predict, dataset: PreparedDataset, recipe: Recipe) -> Robustness | None:
    """Predict a sample of the test images before and after changes of their pixels.

    Args:
        predict: The model.
        dataset: The dataset with the test split.
        recipe: The recipe of the run.

    Returns:
        None if the recipe asks for no images.
    """
    images = dataset.split("test")
    count = min(len(images.labels), _affordable(recipe, len(dataset.class_names)))
    if not count:
        return None
    chosen = np.sort(np.random.default_rng(_SEED).choice(len(images.labels), count, replace=False))
    pixels, labels = images.pixels[chosen], images.labels[chosen]
    before = predict(pixels)
    side = min(pixels.shape[1:3])
    plan = [(each, each.levels(side)) for each in PERTURBATIONS]
    series = []
    with progress("robustness", count * sum(len(levels) for _, levels in plan), "images") as advance:
        for each, levels in plan:
            rows = []
            for level in levels:
                after = predict(each.apply(pixels, level))
                rows.append(_compare(level, before, after, labels))
                advance(count, "")
            series.append(RobustnessSeries(change=each.change, unit=each.unit, levels=rows))
    found, other = _decode_again(dataset, chosen, recipe.image)
    if len(found):
        row = _compare(None, before[found], predict(other), labels[found])
        series.append(RobustnessSeries(change="decoding by OpenCV", unit="", levels=[row]))
    right = int((before == labels).sum())
    return Robustness(
        images=count,
        accuracy=right / count,
        accuracy_interval=interval_of_proportion(right, count),
        series=[row for row in series if row.levels],
    )


def _affordable(recipe: Recipe, classes: int) -> int:
    """The number of images: that of the recipe, but fewer for a large network, which takes long."""
    summary = summarize_layers(recipe.model, recipe.image, classes)
    cost = sum(row.multiply_adds or 0 for row in summary)
    side = min(recipe.image.height, recipe.image.width)
    changes = sum(len(each.levels(side)) for each in PERTURBATIONS)
    most = max(_FEWEST_IMAGES, int(_MAX_MULTIPLY_ADDS / max(cost * changes, 1)))
    return min(recipe.evaluation.robustness_images, most)


def _compare(level: float | None, before: Labels, after: Labels, labels: Labels) -> RobustnessLevel:
    count, right, unchanged = len(labels), int((after == labels).sum()), int((after == before).sum())
    return RobustnessLevel(
        level=level,
        images=count,
        accuracy=right / count,
        accuracy_interval=interval_of_proportion(right, count),
        unchanged=unchanged / count,
        unchanged_interval=interval_of_proportion(unchanged, count),
    )


def _decode_again(
    dataset: PreparedDataset, chosen: npt.NDArray[np.int64], spec: ImageSpec
) -> tuple[npt.NDArray[np.int64], Pixels]:
    """Decode the files of images with OpenCV, as another program would.

    Returns:
        The positions in `chosen` of the images whose file is on this machine, unchanged, and readable by
        OpenCV; and their tensors.
    """
    rows = dataset.rows("test", ["origin", "sha256"]).take(chosen)
    positions, tensors = [], []
    for position, (origin, sha256) in enumerate(
        zip(rows["origin"].to_pylist(), rows["sha256"].to_pylist(), strict=True)
    ):
        data = _read(Path(unescape(origin)))
        if data is None or hash_content(data).hexdigest() != sha256:
            continue
        if (tensor := decode_with_opencv(data, spec)) is not None:
            positions.append(position)
            tensors.append(tensor)
    shape = (0, spec.height, spec.width, spec.channels)
    found = np.stack(tensors) if tensors else np.zeros(shape, np.uint8)
    return np.array(positions, np.int64), found


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None
