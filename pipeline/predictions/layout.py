"""The names and order of the files of a prediction table in its folder."""

from typing import Literal

from pixelmill.pipeline.predictions.parts import is_part
from pixelmill.pipeline.storage import Location, children

TableFormat = Literal["parquet", "csv"]
PARTS_FOLDER = "predictions"
"""Holds only the parts, so that other programs can read it as one dataset."""
CSV_FILE = "predictions.csv"
SORTED_SOURCE = "folder"
"""The source of images whose rows are sorted by path, and have each path once."""
REPORT_FILE = "report.html"
WORK_FOLDER = ".pixelmill"
WORK_PARTS = "parts"
"""In the work folder: the finished parts of a run, and later those of the table to be published."""


def table_files(folder: Location) -> list[Location]:
    """The files with rows in an output folder, listed in the manifest or not, in the order of the rows."""
    parts = folder / PARTS_FOLDER
    found = [path for path in children(parts) if is_part(path.name)] if parts.is_dir() else []
    found += [path for path in (folder / CSV_FILE,) if path.is_file()]
    return sorted(found, key=lambda path: row_order(path.name))


def table_names(files: "dict[str, dict[str, object]]") -> list[str]:
    """The files of a manifest that hold rows, in the order of the rows."""
    names = [name for name in files if name == CSV_FILE or _is_listed_part(name)]
    return sorted(names, key=row_order)


def row_order(name: str) -> tuple[int, str]:
    """A sort key that orders part names by number, however many digits the numbers have."""
    return len(name), name


def _is_listed_part(name: str) -> bool:
    folder, _, part = name.partition("/")
    return folder == PARTS_FOLDER and is_part(part)
