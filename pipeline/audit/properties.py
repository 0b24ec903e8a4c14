"""Findings about single images, by their size and their pixels, and about the sizes of classes."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.audit import AuditInput, Finding
from pixelmill.pipeline.audit.columns import numbers_of, splits_of
from pixelmill.pipeline.config.audit import AuditSpec

Values = npt.NDArray[np.float64]


def find_unreadable(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Files that cannot be decoded."""
    rows = np.flatnonzero(given.images["error"].is_valid().to_numpy())
    for row, file in zip(
        rows.tolist(), given.images.select(["path", "error"]).take(rows).to_pylist(), strict=True
    ):
        yield Finding(row, file["path"], file["error"], facts={"error": file["error"]})


def find_imbalance(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Classes with few training images, or few images if there are no splits yet."""
    in_training = splits_of(given.images["split"]) == 0
    counted = in_training if in_training.any() else given.images["error"].is_null()
    images = given.images.filter(counted)
    found = {pair["values"]: pair["counts"] for pair in images["label"].value_counts().to_pylist()}
    counts = {name: found.get(name, 0) for name in given.class_names}
    largest = max(counts, key=counts.__getitem__, default="")
    for name, count in sorted(counts.items(), key=lambda pair: pair[1]):
        if counts[largest] >= spec.imbalance_factor * count and counts[largest]:
            reason = f"{count:,} training images, and {largest}, the largest class, has {counts[largest]:,}"
            yield Finding(None, name, reason, facts={"images": count, "largest": counts[largest]})


def find_odd_sizes(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Files much larger or smaller than the others."""
    width, height = numbers_of(given.images["width"]), numbers_of(given.images["height"])
    sides = np.sqrt(width * height)
    ratio = np.maximum(sides, 1) / _median(sides)
    distance = np.maximum(ratio, 1 / ratio)
    reason = f"{{width:.0f}}x{{height:.0f}} pixels; the median is {_median(width):.0f}x{_median(height):.0f}"
    yield from _outliers(given, distance >= spec.size_factor, -distance, reason, ("width", "height"))


def find_odd_aspect_ratios(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Files much longer or higher than the others."""
    width, height = numbers_of(given.images["width"]), numbers_of(given.images["height"])
    ratio = np.maximum(width, height) / np.maximum(np.minimum(width, height), 1)
    distance = ratio / _median(ratio)
    reason = f"{{width:.0f}}x{{height:.0f}} pixels; the median aspect ratio is {_median(ratio):.2f}"
    yield from _outliers(given, distance >= spec.aspect_ratio_factor, -distance, reason, ("width", "height"))


def find_dark(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Images without bright pixels."""
    level = numbers_of(given.images["brightest"])
    reason = "99% of the pixels have a grey level of at most {brightest:.2f}"
    yield from _outliers(given, level < spec.dark_below, level, reason, ("brightest",))


def find_bright(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Images without dark pixels."""
    level = numbers_of(given.images["darkest"])
    reason = "99% of the pixels have a grey level of at least {darkest:.2f}"
    yield from _outliers(given, level > spec.bright_above, -level, reason, ("darkest",))


def find_blurred(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Images that are much less sharp than the others, other than flat ones."""
    sharpness, flatness = numbers_of(given.images["sharpness"]), numbers_of(given.images["flatness"])
    median = _median(sharpness)
    chosen = (sharpness < spec.blurred_below * median) & (flatness < spec.flat_above)
    reason = f"a sharpness of {{sharpness:.3f}}; the median is {median:.3f}"
    yield from _outliers(given, chosen, sharpness, reason, ("sharpness",))


def find_flat(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Images of almost one colour."""
    share = numbers_of(given.images["flatness"])
    reason = "{flatness:.1%} of the pixels are of almost the same grey level"
    yield from _outliers(given, share >= spec.flat_above, -share, reason, ("flatness",))


def _median(values: Values) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else 1.0


def _outliers(
    given: AuditInput,
    chosen: npt.NDArray[np.bool_],
    order: Values,
    reason: str,
    columns: tuple[str, ...],
) -> Iterator[Finding]:
    """A finding for each chosen row, ascending by `order`, with the values of `columns` in its reason."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(order[rows], kind="stable")]
    facts = given.images.select(["path", *columns]).take(rows).to_pylist()
    for row, fact in zip(rows.tolist(), facts, strict=True):
        path = fact.pop("path")
        rounded = {name: round(value, 4) for name, value in fact.items()}
        yield Finding(row, path, reason.format(**fact), facts=rounded)
