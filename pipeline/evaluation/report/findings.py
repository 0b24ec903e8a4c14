"""What a reader of the report should know first, one sentence each."""

from collections.abc import Callable

from pixelmill.pipeline.display import printable
from pixelmill.pipeline.evaluation.intervals import Interval
from pixelmill.pipeline.evaluation.metrics_file import MetricsFile

_MOST_NAMED = 3
_MOST_SLICES = 6
_WANTED_COVERAGE = 0.8
# Changes that are common in practice.
_CHANGES = {"shift": 1, "rotation": 15, "JPEG": 50}


def percent(share: float, digits: int = 1) -> str:
    """For example `97.3%`."""
    return f"{share * 100:.{digits}f}%"


def ends(interval: Interval, digits: int = 1) -> str:
    """For example `95.1 to 98.6`, in percent."""
    return f"{interval.low * 100:.{digits}f} to {interval.high * 100:.{digits}f}"


def find_notable(results: MetricsFile) -> list[str]:
    """The classes, mistakes and slices to look at, and what changes of the images do."""
    finders: tuple[Callable[[MetricsFile], str | None], ...] = (
        _lowest_recall,
        _most_frequent_mistake,
        _slices_below,
        _if_some_are_left,
        _changes,
    )
    return [text for find in finders if (text := find(results))]


def _lowest_recall(results: MetricsFile) -> str | None:
    rows = sorted(
        (row for row in results.classes if row.images and row.recall < 1), key=lambda row: row.recall
    )
    if not rows:
        return None
    named = [
        f"{percent(row.recall)} ({ends(row.recall_interval)}) for {printable(row.name)}"
        for row in rows[:_MOST_NAMED]
    ]
    return f"Lowest recall: {', '.join(named)}."


def _most_frequent_mistake(results: MetricsFile) -> str | None:
    if not results.confused_pairs:
        return None
    pair = results.confused_pairs[0]
    images = next(row.images for row in results.classes if row.name == pair.true)
    return (
        f"Most frequent mistake: {pair.images:,} of {images:,} images of {printable(pair.true)} are "
        f"predicted as {printable(pair.predicted)}."
    )


def _slices_below(results: MetricsFile) -> str | None:
    below = sorted(
        (
            each.p_value,
            f"{percent(each.accuracy)} ({ends(each.accuracy_interval)}) for {printable(group.property)} "
            f"{printable(each.value)}",
        )
        for group in results.slices
        if group.property != "class"
        for each in group.slices
        if each.is_below
    )
    if not below:
        return None
    named = ", ".join(text for _, text in below[:_MOST_SLICES])
    more = f", and {len(below) - _MOST_SLICES} more" if len(below) > _MOST_SLICES else ""
    return f"Less accurate than on the other test images: {named}{more}."


def _if_some_are_left(results: MetricsFile) -> str | None:
    point = next((point for point in results.coverage if point.coverage >= _WANTED_COVERAGE), None)
    if point is None or point.coverage == 1:
        return None
    return (
        f"If a person decides the least certain {percent(1 - point.coverage, 0)}, the model is right for "
        f"{percent(point.precision)} ({ends(point.precision_interval)}) of the others."
    )


def _changes(results: MetricsFile) -> str | None:
    if results.robustness is None:
        return None
    named = [
        f"{percent(row.unchanged)} after {_describe(series.change, level)}"
        for series in results.robustness.series
        if (level := _CHANGES.get(series.change)) is not None
        for row in series.levels
        if row.level == level
    ]
    return f"Labels that stay the same: {', '.join(named)}." if named else None


def _describe(change: str, level: float) -> str:
    return {
        "shift": f"a shift by {level:g} pixel",
        "rotation": f"a rotation by {level:g} degrees",
        "JPEG": f"JPEG compression of quality {level:g}",
    }[change]
