"""The prediction table: `columns` defines its content; `parts` and `csv_format` are its two file formats.

`layout` defines the names of its files; `table` reads a finished table, `publication` replaces it.
"""

from typing import TYPE_CHECKING

from pixelmill.pipeline.predictions.csv_format import read_csv
from pixelmill.pipeline.predictions.layout import (
    CSV_FILE,
    PARTS_FOLDER,
    REPORT_FILE,
    WORK_FOLDER,
    TableFormat,
    table_files,
)
from pixelmill.pipeline.predictions.parts import read_part
from pixelmill.pipeline.predictions.table import StoredTable, read_table
from pixelmill.pipeline.storage import Location, parse_location

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


def read_predictions(folder: str | Location) -> "pd.DataFrame":
    """Read a prediction table in either format as a pandas DataFrame, checking the SHA-256 of each file.

    While a run replaces the table, either the old or the new one is read, never a mixture.

    Args:
        folder: The output of a scoring run: a path, or an address such as `s3://bucket/folder`.

    Raises:
        RequestError: The folder holds no finished table.
        WorkError: A file is missing, modified, from another run, or not listed in the manifest.
    """
    place = parse_location(folder) if isinstance(folder, str) else folder
    frame = read_table(place, _read_frame)
    # A nullable integer type, whichever format they were read from.
    return frame.astype(dict.fromkeys(("class_index", "width", "height"), "Int32"))


def _read_frame(table: StoredTable) -> "pd.DataFrame":
    import pandas as pd

    if table.is_csv:
        with table.files[0].opened() as file:
            return read_csv(file)
    parts = [read_part(file.content()).to_pandas() for file in table.files]
    frame: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return frame
