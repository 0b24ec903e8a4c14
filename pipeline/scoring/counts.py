"""Counts over the rows of a finished table, with one part in memory at a time."""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pixelmill.pipeline.drift.counts import PredictionCounts
from pixelmill.pipeline.drift.sample import ImageSample
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.predictions.arrays import number_array, numbers_of
from pixelmill.pipeline.predictions.columns import DECISIONS, SEEN, TableLayout
from pixelmill.pipeline.predictions.parts import read_image_sample, read_part
from pixelmill.pipeline.scoring.report import FailedImage
from pixelmill.pipeline.scoring.thumbnails import MOST_UNCERTAIN
from pixelmill.pipeline.scoring.true_labels import MOST_MISTAKES, Mistake, TrueLabelCounts
from pixelmill.pipeline.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

_EXAMPLES = 5
_COLUMNS = ["image_path", "error", "class_index", "probability"]


class UncertainRow(NamedTuple):
    """A scored row with a low top-1 probability."""

    probability: float
    path: str
    label: str


@dataclass
class TableCounts:
    """Counts and examples collected from the rows of a table.

    Attributes:
        predictions: Top-1 classes and probabilities of the scored rows.
        true_labels: The predicted labels compared with the folder names.
        images: The measures of a sample of the images.
        rows: All rows.
        scored: Rows with a prediction.
        failures: Failed rows by failure code.
        labels: Scored rows by predicted label.
        decisions: Scored rows by decision.
        seen: Rows of images that the model was trained on.
        failed_images: A few examples of each failure code.
        least_confident: The scored rows with the lowest probabilities, lowest first.
        last_path: The path of the last row read.
    """

    predictions: PredictionCounts
    true_labels: TrueLabelCounts
    images: ImageSample = field(default_factory=lambda: ImageSample.join([]))
    rows: int = 0
    scored: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    labels: dict[str, int] = field(default_factory=dict)
    decisions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DECISIONS, 0))
    seen: int = 0
    failed_images: dict[str, list[FailedImage]] = field(default_factory=dict)
    least_confident: list[UncertainRow] = field(default_factory=list)
    last_path: str = ""


def count_rows(
    parts: Sequence[Location], labels: Sequence[str], layout: TableLayout, is_sorted: bool = True
) -> TableCounts:
    """Count the rows of all parts of a table.

    Args:
        parts: The parts, in the order of the rows.
        labels: The class names.
        layout: The columns of the table.
        is_sorted: Whether each path must come once, in sorted order.

    Raises:
        WorkError: A path is duplicated or out of order.
    """
    counts = TableCounts(PredictionCounts.of([], [], len(labels)), TrueLabelCounts(frozenset(labels)))
    further = {"true_label": layout.true_labels, "decision": layout.decisions, SEEN: layout.seen}
    columns = [*_COLUMNS, *(name for name, wanted in further.items() if wanted)]
    for part in parts:
        _count_part(counts, read_part(part, columns), labels, is_sorted)
    counts.images = ImageSample.join(ImageSample.from_text(read_image_sample(part)) for part in parts)
    counts.labels = {
        label: count
        for label, count in zip(labels, counts.predictions.classes.tolist(), strict=True)
        if count
    }
    return counts


def _count_part(counts: TableCounts, rows: "pa.Table", labels: Sequence[str], is_sorted: bool) -> None:
    import pyarrow.compute as pc

    paths = rows["image_path"]
    if is_sorted:
        _require_order(counts, paths)
    failed = pc.indices_nonzero(pc.is_valid(rows["error"])).to_pylist()
    scored = np.delete(np.arange(len(rows)), failed)
    counts.rows += len(rows)
    counts.scored += len(scored)
    _count_failures(counts, paths, rows["error"], failed)
    classes = numbers_of(rows["class_index"], np.int32)[scored]
    probabilities = numbers_of(rows["probability"], np.float32)[scored]
    counts.predictions += PredictionCounts.of(classes, probabilities, len(labels))
    for at in np.argsort(probabilities, kind="stable")[:MOST_UNCERTAIN]:
        path = paths[int(scored[at])].as_py()
        counts.least_confident.append(UncertainRow(float(probabilities[at]), path, labels[classes[at]]))
    counts.least_confident = heapq.nsmallest(MOST_UNCERTAIN, counts.least_confident)
    if "decision" in rows.column_names:
        for decision in DECISIONS:
            counts.decisions[decision] += pc.sum(pc.equal(rows["decision"], decision)).as_py() or 0
    if SEEN in rows.column_names:
        counts.seen += pc.sum(rows[SEEN]).as_py() or 0
    if "true_label" in rows.column_names:
        known = rows["true_label"]
        if SEEN in rows.column_names:  # What the model has learnt says nothing about its accuracy.
            known = pc.if_else(rows[SEEN], None, known)
        true_labels = known.take(number_array(scored)).to_pylist()
        names = [labels[index] for index in classes]
        counts.true_labels.add(true_labels, iter(names))
        wrong = [at for at, (true, name) in enumerate(zip(true_labels, names, strict=True)) if true != name]
        # Of a part, no more than the most confident can be among those of the table.
        wrong = sorted(
            (at for at in wrong if true_labels[at] in counts.true_labels.classes),
            key=lambda at: -probabilities[at],
        )
        counts.true_labels.add_mistakes(
            Mistake(paths[int(scored[at])].as_py(), true_labels[at], names[at], float(probabilities[at]))
            for at in wrong[:MOST_MISTAKES]
        )


def _count_failures(
    counts: TableCounts, paths: "pa.ChunkedArray", errors: "pa.ChunkedArray", failed: Sequence[int]
) -> None:
    for place in failed:
        error = errors[place].as_py()
        code = error.partition(":")[0]
        counts.failures[code] += 1
        examples = counts.failed_images.setdefault(code, [])
        if len(examples) < _EXAMPLES:
            examples.append(FailedImage(paths[place].as_py(), error))


def _require_order(counts: TableCounts, paths: "pa.ChunkedArray") -> None:
    import pyarrow.compute as pc

    # Arrow compares UTF-8 bytes, which sort in the same order as Python strings.
    column = paths.combine_chunks()
    wrong = pc.indices_nonzero(pc.greater_equal(column[:-1], column[1:]))
    neighbours = [(counts.last_path, column[0].as_py())] if len(column) else []
    if len(wrong):
        place = wrong[0].as_py()
        neighbours.append((column[place].as_py(), column[place + 1].as_py()))
    for before, path in neighbours:
        if path <= before:
            raise WorkError(
                f"row {path!r} comes after {before!r}",
                "each path once, in sorted order",
                "The output was modified during the run; run again with `fresh`.",
            )
    if len(column):
        counts.last_path = column[-1].as_py()
