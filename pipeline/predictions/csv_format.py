"""The prediction table as CSV: safe to open in a spreadsheet, and read back without loss.

It begins with a UTF-8 byte order mark, without which Excel assumes the system's encoding. pandas, polars and
DuckDB skip the mark; Python's `csv` does with `encoding="utf-8-sig"`.
"""

import base64
import csv
import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pixelmill.pipeline.artifacts import replacing
from pixelmill.pipeline.predictions.arrays import schema_of_text
from pixelmill.pipeline.predictions.columns import TableLayout, schema
from pixelmill.pipeline.predictions.parts import read_row_groups
from pixelmill.pipeline.storage import Location

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Text that a spreadsheet would run as a formula, with any quotes that already guard it; and guarded text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"class_index|probability(_\d+)?|width|height")
# Lists of any length, each in one cell.
_JSON_LISTS = ("labels", "label_probabilities")
_ROWS_AT_ONCE = 1 << 16
_GUARDED = r"'+[=+\-@\t\r]"


def write_csv(path: Location, parts: Sequence[Location], layout: TableLayout) -> None:
    """Write the Parquet parts to one CSV file atomically, with one row group in memory at a time."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8-sig", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(csv_columns(layout))
        for part in parts:
            writer.writerows(_csv_rows(part, layout))


def csv_columns(layout: TableLayout) -> list[str]:
    """The columns of the CSV format, with `label_2`, `probability_2`, ... in place of the top lists."""
    names = []
    for name in schema(layout).names:
        if name == "top_labels":
            places = range(2, layout.top_k + 1)
            names += [f"{kind}_{i}" for i in places for kind in ("label", "probability")]
        elif name != "top_probabilities":
            names.append(name)
    return names


def read_csv(file: BinaryIO) -> "pd.DataFrame":
    """Read a CSV file written by `write_csv` as a DataFrame; the columns of a list of images are text."""
    import pandas as pd

    # Class names such as "7" or "NA" are text, and so are versions.
    columns = pd.read_csv(file, nrows=0).columns
    texts = [name for name in columns if not _NUMBER.fullmatch(name)]
    file.seek(0)
    frame = pd.read_csv(file, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""])
    frame["image_path"] = frame["image_path"].str.removeprefix("./")
    for name in set(texts) - {"image_path"}:
        guarded = frame[name].str.match(_GUARDED).fillna(value=False).astype(bool)
        frame.loc[guarded, name] = frame.loc[guarded, name].str[1:]
    for name in set(_JSON_LISTS) & set(columns):
        frame[name] = frame[name].map(json.loads, na_action="ignore")
    floats = [name for name in columns if name.startswith("probability") and _NUMBER.fullmatch(name)]
    return frame.astype(dict.fromkeys(floats, "float32"))


def _csv_rows(part: Location, layout: TableLayout) -> Iterator[list[object]]:
    columns = csv_columns(layout)
    others = set(schema_of_text(layout.passed_through).names)
    for group in read_row_groups(part):
        for row in group.to_pylist():
            names = row.pop("top_labels", None) or []
            values = row.pop("top_probabilities", None) or []
            for i in range(2, layout.top_k + 1):
                row[f"label_{i}"] = names[i - 1] if len(names) >= i else None
                row[f"probability_{i}"] = values[i - 1] if len(values) >= i else None
            row["image_path"] = _path_for_csv(row["image_path"])
            yield [_cell(row[name]) if name not in others else _other_cell(row[name]) for name in columns]


def _path_for_csv(path: str) -> str:
    # `./=x.png` is the same file as `=x.png` but not a formula.
    return f"./{path}" if _FORMULA.match(path) else path


def _other_cell(value: object) -> object:
    """The value of a column of the list of images; what has no form of its own is JSON."""
    if isinstance(value, list | dict | tuple | bytes):
        value = json.dumps(value, default=_as_json, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _as_json(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _cell(value: object) -> object:
    if isinstance(value, list):
        # A JSON list: a class name may contain any separator.
        return f"[{', '.join(_json(item) for item in value)}]"
    if isinstance(value, float):
        # The shortest representation that converts back to the same float32.
        return np.format_float_positional(np.float32(value), trim="0")
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value


def _json(item: object) -> str:
    return str(_cell(item)) if isinstance(item, float) else json.dumps(item, ensure_ascii=False)


def identity_blocks(file: BinaryIO) -> "Iterator[pa.Table]":
    """`image_path`, `image_sha256` and `status` of every row as text, with one block in memory at a time."""
    import pandas as pd
    import pyarrow as pa

    columns = ["image_path", "image_sha256", "status"]
    frames = pd.read_csv(file, usecols=columns, dtype=str, keep_default_na=False, chunksize=_ROWS_AT_ONCE)
    for frame in frames:
        frame["image_path"] = frame["image_path"].str.removeprefix("./")
        yield pa.table({name: pa.array(frame[name].tolist(), pa.string()) for name in columns})
