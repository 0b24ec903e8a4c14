"""Where the files of a prediction table lie in its folder."""

from pathlib import Path
from typing import Literal

from pixelmill.pipeline.locations import children
from pixelmill.pipeline.predictions.parts import is_part

TableFormat = Literal["parquet", "csv"]
PARTS_FOLDER = "predictions"
"""Holds the parts and nothing else, so that other programs read it as one data set."""
CSV_FILE = "predictions.csv"
REPORT_FILE = "report.html"
WORK_FOLDER = ".pixelmill"
WORK_PARTS = "parts"
"""Of the work folder: the parts of a run that are finished, and later those of the table to be published."""


def table_files(folder: Path) -> list[Path]:
    """The files of rows in an output folder, in the order of their rows, whatever its manifest says."""
    parts = folder / PARTS_FOLDER
    found = [path for path in children(parts) if is_part(path.name)] if parts.is_dir() else []
    found += [path for path in (folder / CSV_FILE,) if path.is_file()]
    return sorted(found, key=lambda path: row_order(path.name))


def table_names(files: "dict[str, dict[str, object]]") -> list[str]:
    """Those files of a manifest that hold rows, in the order of their rows."""
    names = [name for name in files if name == CSV_FILE or _is_listed_part(name)]
    return sorted(names, key=row_order)


def row_order(name: str) -> tuple[int, str]:
    """A key that sorts the names of parts by their numbers, however many digits these have."""
    return len(name), name


def _is_listed_part(name: str) -> bool:
    folder, _, part = name.partition("/")
    return folder == PARTS_FOLDER and is_part(part)
