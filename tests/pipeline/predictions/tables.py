"""Small prediction tables in both formats, built from concise rows."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pixelmill.pipeline.artifacts import MANIFEST, describe_files, write_json
from pixelmill.pipeline.predictions import CSV_FILE, PARTS_FOLDER, read_predictions
from pixelmill.pipeline.predictions.columns import Predictions, RunFacts, TableLayout
from pixelmill.pipeline.predictions.csv_format import write_csv
from pixelmill.pipeline.predictions.parts import part_name, writing_part
from pixelmill.pipeline.predictions.table import KIND

SHA256 = "0f" * 32
FACTS = RunFacts("digits", "7", "a1" * 32, "20260131T235959Z-digits-1a2b3c", "2026-01-31T23:59:59Z")
LABELS = ("cat", "dog", "bird")
PLAIN = TableLayout()
COLUMNS = [
    "image_path",
    "image_sha256",
    "status",
    "error",
    "label",
    "class_index",
    "probability",
    "width",
    "height",
    "model_name",
    "model_version",
    "model_sha256",
    "run_id",
    "scored_at",
]
AFTER_PROBABILITY = COLUMNS.index("probability") + 1


@dataclass(frozen=True)
class Row:
    """One image: a scored one has classes and probabilities, a failed one an error."""

    path: str
    choices: tuple[tuple[int, float], ...] = ()
    error: str | None = None
    sha256: str | None = SHA256
    width: int = 640
    height: int = 480


def scored(path: str, *choices: tuple[int, float]) -> Row:
    return Row(path, choices)


def failed(path: str) -> Row:
    return Row(path, error='corrupt: a comma, a "quote"', sha256=None, width=0, height=0)


ROWS = (
    scored("a.png", (1, 0.7), (0, 0.2), (2, 0.1)),
    failed("b.png"),
    scored("c/d.png", (2, 0.9), (1, 0.06), (0, 0.04)),
)


def predictions_of(rows: Sequence[Row], top_k: int = 1) -> Predictions:
    predictions = Predictions([row.path for row in rows], top_k)
    for place, row in enumerate(rows):
        predictions.sha256[place], predictions.errors[place] = row.sha256, row.error
        predictions.widths[place], predictions.heights[place] = row.width, row.height
        for at, (index, probability) in enumerate(row.choices[:top_k]):
            predictions.class_indices[place, at], predictions.probabilities[place, at] = index, probability
    return predictions


def plain_row(
    row: Row,
    labels: Sequence[str] = LABELS,
    facts: RunFacts = FACTS,
    layout: TableLayout = PLAIN,
    true_label: str | None = None,
) -> dict[str, object]:
    """The expected row of a table, computed value by value."""
    choices = [] if row.error else row.choices[: layout.top_k]
    probabilities = [float(np.float32(probability)) for _, probability in choices]
    values: dict[str, object] = {
        "image_path": row.path,
        "image_sha256": row.sha256,
        "status": "failed" if row.error else "scored",
        "error": row.error,
        "label": labels[choices[0][0]] if choices else None,
        "class_index": choices[0][0] if choices else None,
        "probability": probabilities[0] if choices else None,
    }
    if layout.top_k > 1:
        values["top_labels"] = [labels[index] for index, _ in choices] if choices else None
        values["top_probabilities"] = probabilities if choices else None
    if layout.true_labels:
        values["true_label"] = true_label
    return {**values, "width": row.width or None, "height": row.height or None, **vars(facts)}


def write_manifest(folder: Path, run_id: str = FACTS.run_id) -> None:
    """Write a manifest for the files in a folder, as the table of a run."""
    request = {"images": "/images", "model": "digits@7", "top_k": 1}
    facts = {"kind": KIND, "run": {"run_id": run_id}, "request": request}
    write_json(folder / MANIFEST, {**facts, "files": describe_files(folder)})


class Table:
    """The table of one run in both formats."""

    def __init__(
        self,
        folder: Path,
        rows: Sequence[Row] = ROWS,
        labels: Sequence[str] = LABELS,
        facts: RunFacts = FACTS,
        layout: TableLayout = PLAIN,
        rows_in_a_part: int = 1000,
        rows_in_a_group: int = 1000,
    ) -> None:
        self.parquet, self.csv = folder / "parquet", folder / "csv"
        self.parts = []
        for index, start in enumerate(range(0, len(rows), rows_in_a_part)):
            part = self.parquet / PARTS_FOLDER / part_name(index)
            self._write(
                part,
                rows[start : start + rows_in_a_part],
                labels,
                facts,
                layout,
                f"listing {index}",
                rows_in_a_group,
            )
            self.parts.append(part)
        write_csv(self.csv / CSV_FILE, self.parts, layout)
        for form in (self.parquet, self.csv):
            write_manifest(form, facts.run_id)

    @staticmethod
    def _write(
        path: Path,
        rows: Sequence[Row],
        labels: Sequence[str],
        facts: RunFacts,
        layout: TableLayout,
        shard_key: str,
        rows_in_a_group: int,
    ) -> None:
        with writing_part(path, layout, shard_key, facts.run_id) as part:
            for start in range(0, len(rows), rows_in_a_group):
                group = rows[start : start + rows_in_a_group]
                predictions = predictions_of(group, layout.top_k)
                true_labels = [first_folder(row.path) for row in group] if layout.true_labels else None
                part.write(predictions.to_table(labels, facts, layout, true_labels), file_facts(group))

    def csv_cells(self) -> list[dict[str, str]]:
        with (self.csv / CSV_FILE).open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def shared_columns(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        parquet, text = read_predictions(self.parquet), read_predictions(self.csv)
        return parquet[COLUMNS], text[COLUMNS]


def first_folder(path: str) -> str | None:
    folder, slash, _ = path.partition("/")
    return folder if slash else None


def file_facts(rows: Sequence[Row]) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    """The size, time and inode of each row, which depend only on its path."""
    return np.array([[len(row.path), -(10**18), len(row.path) ** 5] for row in rows], np.int64).reshape(-1, 3)
