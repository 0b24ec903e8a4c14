"""Nightly tables: one folder per date, `run_date=2026-11-25/`, below a root.

Programs that read partitioned tables, such as DuckDB and pyarrow, take `run_date` for a column. A night keeps
the version of the model that it began with, although the alias may move before it is finished, and takes over
rows of the newest finished table.
"""

import re
from datetime import date

from pixelmill.pipeline.artifacts import MANIFEST
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.scoring.resume import held_model
from pixelmill.pipeline.storage import Location, children, parse_location

LATEST = "latest"
_FOLDER = re.compile(r"run_date=(\d{4}-\d{2}-\d{2})")


def parse_night(text: str, option: str = "night") -> date:
    """The date of a night, given by an option.

    Raises:
        RequestError: The text is not a date.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise RequestError(
            f"`{option}` {text!r} ({error})",
            "a date such as 2026-11-25",
            "Correct it, or leave it empty for today.",
        ) from None


def night_folder(root: str | Location, night: date) -> Location:
    """The folder of a night's table."""
    return parse_location(root) / f"run_date={night.isoformat()}"


def reference_for_night(output: Location, model: str) -> str:
    """The model of a night: the version that it began with, if it began; otherwise `model`."""
    return held_model(output) or model


def date_run(
    root: Location, run_date: str, previous: str | Location | None
) -> tuple[Location, Location | None]:
    """The output of a run with a date, and its earlier table.

    Args:
        root: The folder of all dates.
        run_date: The date as text.
        previous: An earlier table; `latest` for the finished one of the last date before.

    Raises:
        RequestError: The text is not a date.
    """
    day = parse_night(run_date, "run_date")
    if str(previous) == LATEST:
        return night_folder(root, day), newest_table(root, day)
    return night_folder(root, day), parse_location(previous) if previous else None


def newest_table(root: str | Location, night: date) -> Location | None:
    """The finished table of the last night before `night`, or None."""
    finished = [folder for day, folder in _nights(root) if day < night and (folder / MANIFEST).is_file()]
    return finished[-1] if finished else None


def unfinished_nights(root: str | Location, night: date) -> list[date]:
    """The nights before `night` whose runs were interrupted and not run again."""
    return [
        day
        for day, folder in _nights(root)
        if day < night and not (folder / MANIFEST).is_file() and held_model(folder)
    ]


def _nights(root: str | Location) -> list[tuple[date, Location]]:
    place = parse_location(root)
    if not place.is_dir():
        return []
    found = []
    for folder in children(place):
        match = _FOLDER.fullmatch(folder.name)
        if match:
            found.append((parse_night(match[1]), folder))
    return sorted(found, key=lambda pair: pair[0])
