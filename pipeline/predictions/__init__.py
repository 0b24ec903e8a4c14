"""The prediction table: `columns` says what is in it; `parts` and `csv_form` are its two forms.

`layout` says where its files lie; `stored` reads a finished table, `publishing` replaces one by another.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pixelmill.pipeline.locations import parse_location
from pixelmill.pipeline.predictions.csv_form import read_csv
from pixelmill.pipeline.predictions.layout import (
    CSV_FILE,
    PARTS_FOLDER,
    REPORT_FILE,
    WORK_FOLDER,
    TableFormat,
    table_files,
)
from pixelmill.pipeline.predictions.parts import read_part
from pixelmill.pipeline.predictions.stored import StoredTable, read_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CSV_FILE",
    "PARTS_FOLDER",
    "REPORT_FILE",
    "WORK_FOLDER",
    "TableFormat",
    "read_predictions",
    "table_files",
]


def read_predictions(folder: str | Path) -> "pd.DataFrame":
    """Read a prediction table, in either form, as one pandas frame; each file's SHA-256 is checked.

    While a run replaces the table, the old one or the new one is read, never some of both.

    Args:
        folder: The output of a scoring run: a path, or an address such as `s3://bucket/folder`.

    Raises:
        RequestError: The folder holds no finished table.
        WorkError: A file is missing, changed, of another run, or not listed by the manifest.
    """
    place = parse_location(folder) if isinstance(folder, str) else folder
    frame = read_table(place, _read_frame)
    # Whole numbers and missing ones in one column, whichever form they were read from.
    return frame.astype(dict.fromkeys(("class_index", "width", "height"), "Int32"))


def _read_frame(table: StoredTable) -> "pd.DataFrame":
    import pandas as pd

    if table.is_csv:
        with table.files[0].opened() as file:
            return read_csv(file)
    parts = [read_part(file.content()).to_pandas() for file in table.files]
    frame: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return frame
