"""The confusion matrix of a scoring report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LARGEST_MATRIX = 20
_MOST_CONFUSED = 12


@dataclass(frozen=True)
class Cell:
    """A number of images, and its share of all with the true label, in percent."""

    count: int
    percent: float
    is_right: bool


@dataclass(frozen=True)
class Row:
    """The images of one true label, by predicted label."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: the predicted labels, and a row for each true label."""

    labels: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Confused:
    """How many images of one class were taken for another, and their share of the first class."""

    name: str
    count: int
    share: str
    width: float


def read_confusion(accuracy: Mapping[str, Any]) -> Confusion | None:
    """The matrix of a manifest's `accuracy`; None if it is too large to be shown or from an older version."""
    counts: Mapping[str, Mapping[str, int]] = accuracy.get("confusion", {})
    labels = tuple(sorted({*counts, *(label for row in counts.values() for label in row)}))
    if not 0 < len(labels) <= _LARGEST_MATRIX:
        return None
    return Confusion(labels, tuple(_row(name, counts.get(name, {}), labels) for name in labels))


def most_confused(accuracy: Mapping[str, Any]) -> list[Confused]:
    """The most frequent mistakes of a manifest's `accuracy`, most frequent first."""
    pairs = [
        (count, true_label, label, sum(row.values()))
        for true_label, row in accuracy.get("confusion", {}).items()
        for label, count in row.items()
        if label != true_label
    ]
    ordered = sorted(pairs, key=lambda pair: (-pair[0], *pair[1:3]))[:_MOST_CONFUSED]
    return [
        Confused(f"{true_label} as {label}", count, f"{100 * count / whole:.1f}%", 100 * count / whole)
        for count, true_label, label, whole in ordered
    ]


def _row(name: str, counts: Mapping[str, int], labels: tuple[str, ...]) -> Row:
    whole = max(sum(counts.values()), 1)
    return Row(name, tuple(_cell(counts.get(label, 0), whole, label == name) for label in labels))


def _cell(count: int, whole: int, is_right: bool) -> Cell:
    return Cell(count, 100 * count / whole, is_right)
