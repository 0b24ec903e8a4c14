"""The prediction table: its columns, its parts in Parquet, its form as CSV, and reading it back."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.artifacts import read_manifest, replacing
from pipeline.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TableFormat = Literal["parquet", "csv"]
CSV_FILE = "predictions.csv"
LISTING_KEY = b"pixelmill.listing"
WORK_FOLDER = ".pixelmill"
_PART = re.compile(r"part-\d{5,}\.parquet")
Row = dict[str, Any]
# What a spreadsheet runs as a formula, with any quotes that guard it; and such a text guarded once more.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = r"'+[=+\-@\t\r]"


@dataclass(frozen=True)
class RunFacts:
    """What is the same in every row of a run; `scored_at` is in UTC, ISO 8601."""

    model_name: str
    model_version: str
    model_sha256: str
    run_id: str
    scored_at: str


@dataclass(frozen=True)
class Prediction:
    """One image's row, less what is the same for the whole run.

    A scored row has no `error` and at least one choice; a failed row has an `error` and no choice.

    Attributes:
        image_path: Relative to the folder scored, as `pipeline.scoring.listing` writes it.
        image_sha256: Of the file's bytes; None if it could not be read.
        error: Why it failed, a code and words; None when scored.
        choices: (class index, probability), the likeliest first.
        width, height: As displayed, after EXIF rotation; None if it could not be decoded.
    """

    image_path: str
    image_sha256: str | None = None
    error: str | None = None
    choices: tuple[tuple[int, float], ...] = ()
    width: int | None = None
    height: int | None = None


def table_files(folder: Path) -> list[Path]:
    """The files of a table in an output folder, without its manifest, in the order of their rows."""
    parts = [path for path in folder.iterdir() if _PART.fullmatch(path.name)]
    return sorted([*parts, *folder.glob(CSV_FILE)], key=lambda path: (len(path.name), path.name))


def part_name(index: int) -> str:
    """The file name of one part of a table in Parquet."""
    return f"part-{index:05d}.parquet"


def schema(top_k: int) -> "pa.Schema":
    """The table's columns; `top_labels` and `top_probabilities` only when `top_k` is over 1."""
    import pyarrow as pa

    top = [
        ("top_labels", pa.list_(pa.string())),
        ("top_probabilities", pa.list_(pa.float32())),
    ]
    return pa.schema(
        [
            pa.field("image_path", pa.string(), nullable=False),
            ("image_sha256", pa.string()),
            pa.field("status", pa.string(), nullable=False),
            ("error", pa.string()),
            ("label", pa.string()),
            ("class_index", pa.int32()),
            ("probability", pa.float32()),
            *(top if top_k > 1 else []),
            ("width", pa.int32()),
            ("height", pa.int32()),
            *(pa.field(name, pa.string(), nullable=False) for name in RunFacts.__annotations__),
        ]
    )


def table_row(row: Prediction, labels: Sequence[str], facts: RunFacts, top_k: int) -> Row:
    """A prediction with all the columns of the table.

    Args:
        row: The prediction.
        labels: The class names.
        facts: The same for every row of the run.
        top_k: How many choices a row keeps.
    """
    best = row.choices[0] if row.choices else None
    top: Row = {}
    if top_k > 1:
        choices = row.choices or None
        top = {
            "top_labels": choices and [labels[index] for index, _ in choices],
            "top_probabilities": choices and [probability for _, probability in choices],
        }
    return {
        "image_path": row.image_path,
        "image_sha256": row.image_sha256,
        "status": "failed" if row.error else "scored",
        "error": row.error,
        "label": best and labels[best[0]],
        "class_index": best and best[0],
        "probability": best and best[1],
        **top,
        "width": row.width,
        "height": row.height,
        **vars(facts),
    }


def write_part(path: Path, rows: Sequence[Row], top_k: int, listing: str) -> None:
    """Write one part, whole or not at all.

    Args:
        path: Its file.
        rows: As `table_row` makes them, in the order of `image_path`.
        top_k: How many choices a row keeps.
        listing: The hash of the run and the listing that the rows answer; kept in the file, so that a
            later run knows whether the part still holds.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = schema(top_k).with_metadata({LISTING_KEY: listing.encode()})
    table = pa.Table.from_pylist(list(rows), columns)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def part_listing(path: Path) -> str | None:
    """The hash of the listing that a part answers; None where there is no intact part."""
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        return metadata.get(LISTING_KEY, b"").decode() or None
    except (OSError, ValueError, NotImplementedError):  # What Arrow raises on damaged bytes.
        return None


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Some columns of one part."""
    import pyarrow.parquet as pq

    values: dict[str, list[Any]] = pq.read_table(path, columns=list(columns)).to_pydict()
    return values


def read_rows(path: Path) -> list[Row]:
    """All rows of one part."""
    import pyarrow.parquet as pq

    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def write_csv(path: Path, parts: Sequence[Path], top_k: int) -> None:
    """Join parts in Parquet to one CSV file, whole or not at all, a part in memory at a time."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(csv_columns(top_k))
        for part in parts:
            writer.writerows(_csv_rows(part, top_k))


def csv_columns(top_k: int) -> list[str]:
    """The columns of the CSV form: `label_2`, `probability_2`, ... stand for the lists."""
    names = []
    for name in schema(top_k).names:
        if name == "top_labels":
            names += [f"{kind}_{i}" for i in range(2, top_k + 1) for kind in ("label", "probability")]
        elif name != "top_probabilities":
            names.append(name)
    return names


def read_predictions(folder: Path) -> "pd.DataFrame":
    """Read a prediction table, in either form, as one pandas frame.

    Raises:
        RequestError: The folder holds none that is finished.
    """
    import pandas as pd

    if read_manifest(folder).get("kind") != "prediction-table":
        raise RequestError(
            f"{folder} holds no prediction table",
            "the output of `pixelmill score`",
            "Check the path.",
        )
    files = table_files(folder)
    if files[0].name == CSV_FILE:
        frame = _read_csv(files[0])
    else:
        frame = pd.concat([pd.read_parquet(part) for part in files], ignore_index=True)
    # Whole numbers and missing ones in one column, whichever form they were read from.
    return frame.astype(dict.fromkeys(("class_index", "width", "height"), "Int32"))


def _read_csv(path: Path) -> "pd.DataFrame":
    import pandas as pd

    # Class names such as "7" or "NA" are text, and so is a version.
    columns = pd.read_csv(path, nrows=0).columns
    numbers = ("class_index", "probability", "width", "height")
    texts = [name for name in columns if not name.startswith(numbers)]
    frame = pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""])
    frame["image_path"] = frame["image_path"].str.removeprefix("./")
    for name in set(texts) - {"image_path"}:
        guarded = frame[name].str.match(_GUARDED).fillna(value=False).astype(bool)
        frame.loc[guarded, name] = frame.loc[guarded, name].str[1:]
    floats = [name for name in columns if name.startswith("probability")]
    return frame.astype(dict.fromkeys(floats, "float32"))


def _csv_rows(part: Path, top_k: int) -> Iterator[list[object]]:
    columns = csv_columns(top_k)
    for row in read_rows(part):
        names = row.pop("top_labels", None) or []
        values = row.pop("top_probabilities", None) or []
        for i in range(2, top_k + 1):
            row[f"label_{i}"] = names[i - 1] if len(names) >= i else None
            row[f"probability_{i}"] = values[i - 1] if len(values) >= i else None
        row["image_path"] = _path_for_csv(row["image_path"])
        yield [_cell(row[name]) for name in columns]


def _path_for_csv(path: str) -> str:
    # `./=x.png` names the same file as `=x.png`, and is no formula.
    return f"./{path}" if _FORMULA.match(path) else path


def _cell(value: object) -> object:
    if isinstance(value, float):
        # The shortest digits that give the same float32 back.
        return _shortest(value)
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value


def _shortest(value: float) -> str:
    import numpy as np

    return np.format_float_positional(np.float32(value), trim="0")
