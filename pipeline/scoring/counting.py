"""Counting a finished table's rows, a part in memory at a time."""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.drift import AnswerCounts
from pipeline.errors import WorkError
from pipeline.predictions.columns import TableLayout
from pipeline.predictions.parts import read_part
from pipeline.scoring.report import FailedImage

_EXAMPLES = 5
_LEAST_CONFIDENT = 24
_COLUMNS = ["image_path", "error", "label", "class_index", "probability"]


class UncertainRow(NamedTuple):
    """A scored row that stands out by its low probability."""

    probability: float
    path: str
    label: str


@dataclass
class TableCounts:
    """What the rows of a table come to.

    `failed_images` has a few examples for each failure code; `least_confident` the rows of the lowest
    probability, the lowest first; `true_labels` counts (true label, label answered).
    """

    answers: AnswerCounts
    rows: int = 0
    scored: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    failed_images: dict[str, list[FailedImage]] = field(default_factory=dict)
    least_confident: list[UncertainRow] = field(default_factory=list)
    true_labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_path: str = ""

    def accuracy(self) -> dict[str, Any]:
        """How many scored images with a true label were answered with it, in all and by true label."""
        classes: dict[str, dict[str, int]] = {}
        for (true_label, label), count in sorted(self.true_labels.items()):
            entry = classes.setdefault(true_label, {"images": 0, "correct": 0})
            entry["images"] += count
            entry["correct"] += count * (label == true_label)
        images = sum(entry["images"] for entry in classes.values())
        correct = sum(entry["correct"] for entry in classes.values())
        return {
            "images": images,
            "correct": correct,
            "accuracy": correct / images if images else None,
            "classes": classes,
        }


def count_rows(parts: Sequence[Path], labels: Sequence[str], layout: TableLayout) -> TableCounts:
    """Read every row of a table back.

    Raises:
        WorkError: A path stands twice or out of order.
    """
    counts = TableCounts(AnswerCounts.of([], [], len(labels)))
    columns = [*_COLUMNS, "true_label"] if layout.true_labels else _COLUMNS
    for part in parts:
        _count_part(counts, read_part(part, columns).to_pydict(), len(labels))
    return counts


def _count_part(counts: TableCounts, rows: "dict[str, list[Any]]", classes: int) -> None:
    _require_order(counts, rows["image_path"])
    counts.rows += len(rows["image_path"])
    scored = [place for place, error in enumerate(rows["error"]) if error is None]
    counts.scored += len(scored)
    for path, error in zip(rows["image_path"], rows["error"], strict=True):
        if error is not None:
            code = error.partition(":")[0]
            counts.failures[code] += 1
            examples = counts.failed_images.setdefault(code, [])
            if len(examples) < _EXAMPLES:
                examples.append(FailedImage(path, error))
    labels = [rows["label"][place] for place in scored]
    counts.labels.update(labels)
    probabilities = np.array([rows["probability"][place] for place in scored], np.float32)
    counts.answers += AnswerCounts.of(
        [rows["class_index"][place] for place in scored], probabilities, classes
    )
    for at in np.argsort(probabilities, kind="stable")[:_LEAST_CONFIDENT]:
        row = UncertainRow(float(probabilities[at]), rows["image_path"][scored[at]], labels[at])
        counts.least_confident.append(row)
    counts.least_confident = heapq.nsmallest(_LEAST_CONFIDENT, counts.least_confident)
    if "true_label" in rows:
        true_labels = [rows["true_label"][place] for place in scored]
        pairs = zip(true_labels, labels, strict=True)
        counts.true_labels.update(pair for pair in pairs if pair[0] is not None)


def _require_order(counts: TableCounts, paths: Sequence[str]) -> None:
    for path in paths:
        if path <= counts.last_path:
            raise WorkError(
                f"row {path!r} comes after {counts.last_path!r}",
                "every path once, in order",
                "The output was changed while the run wrote it: run again with --fresh.",
            )
        counts.last_path = path
