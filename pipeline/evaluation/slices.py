"""The accuracy on parts of the test images: by class, size, brightness, and columns of the table."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.datasets.catalogue import SLICE
from pixelmill.pipeline.datasets.contents import as_contents
from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.evaluation.metrics_file import Slice, SliceGroup
from pixelmill.pipeline.evaluation.paired import holm

Flags = npt.NDArray[np.bool_]
_MEASURES = ("brightness", "contrast", "sharpness")
_RANGES = 5
_MAX_VALUES = 20
_FEWEST_IMAGES = 5
_OTHER, _MISSING = "(other)", "(none)"
_LEVEL = 0.05


def measure_slices(dataset: PreparedDataset, right: Flags) -> list[SliceGroup]:
    """The accuracy on each slice of the test images, and whether it is below that on the others.

    A property that is the same for all images has no slices. Numbers are divided into up to five ranges with
    about as many images each; of other values, the 20 most frequent with at least 5 images are slices of
    their own. The size of images that come in many sizes is the square root of width times height.

    Args:
        dataset: The dataset with the test split.
        right: Whether the prediction of each test image is right, bool [images].
    """
    counts = {name: _counted(values, right) for name, values in slice_values(dataset).items()}
    counts = {name: rows for name, rows in counts.items() if len(rows) > 1}
    every = [(images, correct) for rows in counts.values() for _, images, correct in rows]
    adjusted = iter(holm(_p_values(every, right)))
    return [
        SliceGroup(
            property=name,
            slices=[_slice(value, images, correct, next(adjusted)) for value, images, correct in rows],
        )
        for name, rows in counts.items()
    ]


def slice_values(dataset: PreparedDataset) -> dict[str, list[str]]:
    """The value or range of every test image, by property."""
    rows = dataset.rows("test")
    labels = rows["label"].to_pylist()
    measures = dataset.tensors().measures(as_contents(rows["sha256"].to_pylist()))
    sizes = list(zip(measures["width"].to_pylist(), measures["height"].to_pylist(), strict=True))
    values = {"class": [dataset.class_names[label] for label in labels], "size": _by_size(sizes)}
    for name in _MEASURES:
        values[name] = _in_ranges(measures[name].to_numpy().astype(np.float64))
    for name in rows.column_names:
        if name.startswith(SLICE):
            values[f"column {name.removeprefix(SLICE)}"] = _by_value(rows[name].to_pylist())
    return values


def _by_size(sizes: Sequence[tuple[int, int]]) -> list[str]:
    if len(set(sizes)) <= _RANGES:
        return [f"{width} x {height} pixels" for width, height in sizes]
    sides = np.sqrt([width * height for width, height in sizes])
    return [f"{text} pixels" for text in _in_ranges(sides)]


def _by_value(values: Sequence[str | None]) -> list[str]:
    given = [_MISSING if value is None or not value.strip() else value for value in values]
    distinct = set(given)
    numbers = {value: number for value in distinct if (number := _number(value)) is not None}
    if len(numbers) > _RANGES and not distinct - set(numbers) - {_MISSING}:
        known = iter(_in_ranges(np.array([numbers[value] for value in given if value in numbers])))
        return [next(known) if value in numbers else value for value in given]
    most = {value for value, count in Counter(given).most_common(_MAX_VALUES) if count >= _FEWEST_IMAGES}
    return [value if value in most else _OTHER for value in given]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _in_ranges(values: npt.NDArray[np.float64]) -> list[str]:
    """The range of each value; the ranges hold about as many values each."""
    ends = np.unique(np.quantile(values, np.linspace(0, 1, _RANGES + 1), method="lower"))
    if len(ends) == 1:
        return [f"{ends[0]:.3g}"] * len(values)
    titles = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(ends)]
    places = np.clip(np.searchsorted(ends, values, side="right") - 1, 0, len(titles) - 1)
    return [titles[place] for place in places]


def _counted(values: Sequence[str], right: Flags) -> list[tuple[str, int, int]]:
    """Each value with its images and right predictions: ranges by their lower end, others by name."""
    code_of = {value: code for code, value in enumerate(sorted(set(values), key=_place))}
    codes = np.fromiter((code_of[value] for value in values), np.int64, len(values))
    images = np.bincount(codes, minlength=len(code_of)).tolist()
    correct = np.bincount(codes[right], minlength=len(code_of)).tolist()
    return list(zip(code_of, images, correct, strict=True))


def _place(value: str) -> tuple[bool, float, str]:
    number = _number(value.split(" ", maxsplit=1)[0])
    return number is None, number or 0.0, value


def _p_values(counts: Sequence[tuple[int, int]], right: Flags) -> list[float]:
    """The probability of at most as many right predictions, if the slice were any images: Fisher's test."""
    from scipy.stats import hypergeom

    images, correct = np.array(counts, np.int64).reshape(-1, 2).T
    found: list[float] = hypergeom.cdf(correct, len(right), int(right.sum()), images).tolist()
    return found


def _slice(value: str, images: int, correct: int, p_value: float) -> Slice:
    return Slice(
        value=value,
        images=images,
        accuracy=correct / images,
        accuracy_interval=interval_of_proportion(correct, images),
        p_value=p_value,
        is_below=p_value < _LEVEL,
    )
