"""The columns of the prediction table, and the predictions that fill them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.predictions.arrays import (
    Mask,
    fixed_list_array,
    list_array,
    number_array,
    schema_of_text,
    text_array,
)

if TYPE_CHECKING:
    import pyarrow as pa


DECISIONS = ("accept", "review")
"""The values of the column `decision`."""
EMBEDDING = "embedding"
"""The column with the embedding of each image."""
TRUE_LABEL = "true_label"
SEEN = "seen_in_training"
LABEL_THRESHOLD = 0.5
"""The probability from which a class is among the labels of an image that may have several."""


@dataclass(frozen=True)
class RunFacts:
    """The columns that are the same in every row of a run; `scored_at` is in UTC, ISO 8601."""

    model_name: str
    model_version: str
    model_sha256: str
    run_id: str
    scored_at: str


_LISTS = ("top_labels", "top_probabilities", "labels", "label_probabilities")
_OPTIONAL = (*_LISTS, "decision", TRUE_LABEL, SEEN, "embedding")
_ALWAYS = ("image_path", "image_sha256", "status", "error", "label", "class_index", "probability")
_NAMES = (*_ALWAYS, *_OPTIONAL, "width", "height", *RunFacts.__annotations__)
_OWN_COLUMN = re.compile(rf"{'|'.join(_NAMES)}|(label|probability)_\d+", re.IGNORECASE)


@dataclass(frozen=True)
class TableLayout:
    """The optional columns of a table.

    Attributes:
        top_k: The number of predictions per row.
        true_labels: Whether it has true labels.
        decisions: Whether it says which predictions are accepted.
        embedding_size: The number of values of an embedding; 0 if it has none.
        passed_through: The columns of a list of images, as text of `schema_to_text`.
        seen: Whether it says which images the model was trained on.
        multi_label: Whether it lists all labels of an image.
    """

    top_k: int = 1
    true_labels: bool = False
    decisions: bool = False
    embedding_size: int = 0
    passed_through: str = ""
    seen: bool = False
    multi_label: bool = False


class Predictions:
    """The predictions of some images by column; row i belongs to the i-th path.

    A row with an error has failed. `class_indices` (int32) and `probabilities` (float32) are
    [rows, kept] with the highest probability first, and are undefined in failed rows, as are `embeddings`
    (float32 [rows, values]). A width and height of 0 are unknown. As many predictions are kept of each image
    as the table has, or all of a model for which an image may have several labels.
    """

    def __init__(self, paths: Sequence[str], kept: int, embedding_size: int = 0) -> None:
        count = len(paths)
        self.paths = list(paths)
        self.sha256: list[str | None] = [None] * count
        self.errors: list[str | None] = [None] * count
        self.class_indices: npt.NDArray[np.int32] = np.zeros((count, kept), np.int32)
        self.probabilities: npt.NDArray[np.float32] = np.zeros((count, kept), np.float32)
        self.embeddings: npt.NDArray[np.float32] = np.zeros((count, embedding_size), np.float32)
        self.widths: npt.NDArray[np.int32] = np.zeros(count, np.int32)
        self.heights: npt.NDArray[np.int32] = np.zeros(count, np.int32)

    def paste(self, start: int, others: "Predictions") -> None:
        """Overwrite rows from `start` with those of `others`."""
        stop = start + len(others.paths)
        self.sha256[start:stop] = others.sha256
        self.errors[start:stop] = others.errors
        self.class_indices[start:stop] = others.class_indices
        self.probabilities[start:stop] = others.probabilities
        self.embeddings[start:stop] = others.embeddings
        self.widths[start:stop] = others.widths
        self.heights[start:stop] = others.heights

    def copy_row(self, source: int, target: int) -> None:
        """Copy the prediction of a row to another whose file has the same bytes."""
        self.errors[target] = self.errors[source]
        for column in (
            self.class_indices,
            self.probabilities,
            self.embeddings,
            self.widths,
            self.heights,
        ):
            column[target] = column[source]

    def to_table(
        self,
        labels: Sequence[str],
        facts: RunFacts,
        layout: TableLayout,
        true_labels: Sequence[str | None] | None = None,
        thresholds: Sequence[float | None] = (),
        passed_through: "pa.Table | None" = None,
        seen: Mask | None = None,
    ) -> "pa.Table":
        """The rows as an Arrow table with all columns.

        Args:
            labels: The class names in the order of the model's outputs.
            facts: The columns that are the same in every row.
            layout: The optional columns.
            true_labels: The true label of each row, if the layout has them.
            thresholds: For each class, the lowest probability that is accepted, None if none is; if the
                layout has decisions.
            passed_through: The columns of the list of images; nulls if it is None.
            seen: Whether the model was trained on the image, if the layout says so; bool [rows]. Null for a
                file that could not be read.
        """
        import pyarrow as pa

        failed = np.fromiter((error is not None for error in self.errors), bool, len(self.errors))
        names, states = text_array(labels), text_array(["scored", "failed"])
        first = np.where(failed, 0, self.class_indices[:, 0])
        columns: dict[str, Any] = {
            "image_path": text_array(self.paths),
            "image_sha256": text_array(self.sha256),
            "status": states.take(number_array(failed.astype(np.int8))),
            "error": text_array(self.errors),
            "label": names.take(number_array(first, failed)),
            "class_index": number_array(first, failed),
            "probability": number_array(self.probabilities[:, 0], failed),
            "width": number_array(self.widths, self.widths == 0),
            "height": number_array(self.heights, self.heights == 0),
        }
        columns |= self._lists(names, layout, failed)
        if layout.decisions:
            review = (~self._accepted(thresholds, first)).astype(np.int8)
            columns["decision"] = text_array(DECISIONS).take(number_array(review, failed))
        if layout.true_labels:
            columns["true_label"] = text_array(true_labels or [])
        if layout.seen:
            columns[SEEN] = self._seen_column(seen)
        if layout.embedding_size:
            # Not null: Arrow cannot read a null list of fixed size from Parquet (apache/arrow#35692).
            columns[EMBEDDING] = fixed_list_array(
                np.where(failed[:, np.newaxis], np.float32(np.nan), self.embeddings)
            )
        for name, value in vars(facts).items():
            columns[name] = text_array([value]).take(number_array(np.zeros(len(self.paths), np.int8)))
        wanted = schema(layout)
        for column in schema_of_text(layout.passed_through):
            nulls = pa.nulls(len(self.paths), column.type)
            columns[column.name] = nulls if passed_through is None else passed_through[column.name]
        return pa.Table.from_arrays([columns[name] for name in wanted.names], schema=wanted)

    def _lists(self, names: "pa.Array", layout: TableLayout, failed: Mask) -> "dict[str, pa.Array]":
        """The columns with several predictions of each image."""
        columns = {}
        if layout.top_k > 1:
            chosen = names.take(number_array(self.class_indices[~failed, : layout.top_k].ravel()))
            values = number_array(self.probabilities[~failed, : layout.top_k].ravel())
            columns["top_labels"] = list_array(chosen, layout.top_k, failed)
            columns["top_probabilities"] = list_array(values, layout.top_k, failed)
        if layout.multi_label:
            applies = (self.probabilities >= LABEL_THRESHOLD) & ~failed[:, np.newaxis]
            counts, chosen = applies.sum(axis=1), names.take(number_array(self.class_indices[applies]))
            columns["labels"] = list_array(chosen, counts, failed)
            values = number_array(self.probabilities[applies])
            columns["label_probabilities"] = list_array(values, counts, failed)
        return columns

    def _seen_column(self, seen: Mask | None) -> "pa.Array":
        import pyarrow as pa

        known = np.zeros(len(self.paths), bool) if seen is None else seen
        pairs = zip(self.sha256, known.tolist(), strict=True)
        return pa.array([None if sha256 is None else value for sha256, value in pairs], pa.bool_())

    def _accepted(
        self, thresholds: Sequence[float | None], classes: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.bool_]:
        limits = np.array([np.inf if limit is None else limit for limit in thresholds], np.float32)
        accepted: npt.NDArray[np.bool_] = self.probabilities[:, 0] >= limits[classes]
        return accepted


def schema(layout: TableLayout) -> "pa.Schema":
    """The Arrow schema of the table; optional columns only if the layout has them."""
    import pyarrow as pa

    texts, numbers = pa.list_(pa.string()), pa.list_(pa.float32())
    top = [("top_labels", texts), ("top_probabilities", numbers)]
    several = [("labels", texts), ("label_probabilities", numbers)]
    return pa.schema(
        [
            pa.field("image_path", pa.string(), nullable=False),
            ("image_sha256", pa.string()),
            pa.field("status", pa.string(), nullable=False),
            ("error", pa.string()),
            ("label", pa.string()),
            ("class_index", pa.int32()),
            ("probability", pa.float32()),
            *(top if layout.top_k > 1 else []),
            *(several if layout.multi_label else []),
            *([("decision", pa.string())] if layout.decisions else []),
            *([("true_label", pa.string())] if layout.true_labels else []),
            *([(SEEN, pa.bool_())] if layout.seen else []),
            *([_embedding_field(layout.embedding_size)] if layout.embedding_size else []),
            ("width", pa.int32()),
            ("height", pa.int32()),
            *(pa.field(name, pa.string(), nullable=False) for name in RunFacts.__annotations__),
            *schema_of_text(layout.passed_through),
        ]
    )


def _embedding_field(size: int) -> "pa.Field":
    import pyarrow as pa

    return pa.field(EMBEDDING, pa.list_(pa.field("element", pa.float32()), size), nullable=False)


def is_own_column(name: str) -> bool:
    """Whether a name is that of a column which some table of predictions has, in Parquet or CSV."""
    return _OWN_COLUMN.fullmatch(name) is not None
