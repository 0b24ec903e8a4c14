"""The prediction table: `columns` says what is in it; `parts` and `csv_form` are its two forms."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.artifacts import read_manifest
from pipeline.errors import RequestError
from pipeline.locations import children
from pipeline.predictions.csv_form import read_csv
from pipeline.predictions.parts import is_part, read_part

if TYPE_CHECKING:
    import pandas as pd

TableFormat = Literal["parquet", "csv"]
CSV_FILE = "predictions.csv"
REPORT_FILE = "report.html"
WORK_FOLDER = ".pixelmill"


def table_files(folder: Path) -> list[Path]:
    """The files of a table in an output folder, without its manifest, in the order of their rows."""
    files = [path for path in children(folder) if is_part(path.name) or path.name == CSV_FILE]
    return sorted(files, key=lambda path: (len(path.name), path.name))


def read_predictions(folder: Path) -> "pd.DataFrame":
    """Read a prediction table, in either form, as one pandas frame.

    Raises:
        RequestError: The folder holds none that is finished.
    """
    import pandas as pd

    require_table(folder)
    files = table_files(folder)
    if files[0].name == CSV_FILE:
        frame = read_csv(files[0])
    else:
        frame = pd.concat([read_part(part).to_pandas() for part in files], ignore_index=True)
    # Whole numbers and missing ones in one column, whichever form they were read from.
    return frame.astype(dict.fromkeys(("class_index", "width", "height"), "Int32"))


def require_table(folder: Path) -> dict[str, Any]:
    """The manifest of a finished prediction table.

    Raises:
        RequestError: The folder holds none.
    """
    manifest = read_manifest(folder)
    if manifest.get("kind") != "prediction-table":
        raise RequestError(
            f"{folder} holds no prediction table",
            "the output of `pixelmill score`",
            "Check the path.",
        )
    return manifest
