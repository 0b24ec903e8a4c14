"""Replacement of a table with a new one, so that readers see the old table until the new one is complete.

The new table is first written to the work folder: its parts or its CSV file, its report, and its manifest
last. From then on, it is the current table. `publish_table` moves it to its final place; it can be killed at
any point and called again. On a local file system, the folder of parts is exchanged atomically. On an object
store, the parts are copied one by one, and `table` reads the one in the work folder meanwhile; other
programs that read the parts should wait for the manifest.
"""

import ctypes
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pixelmill.pipeline.artifacts import MANIFEST, flush_to_disk, read_json, remove_file, remove_folder
from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.predictions.layout import (
    CSV_FILE,
    PARTS_FOLDER,
    REPORT_FILE,
    WORK_FOLDER,
    WORK_PARTS,
    table_files,
)
from pixelmill.pipeline.predictions.parts import is_part
from pixelmill.pipeline.predictions.table import holds_table
from pixelmill.pipeline.storage import Location, children, is_remote, link_or_copy

_TEMPORARY = re.compile(r"\.part-\d{5,}\.parquet\.[0-9a-f]{8}\.pixelmill-tmp")
_AT_FOLDER = -100
_EXCHANGE = 2


def is_publication_pending(output: Location) -> bool:
    """Whether the work folder holds a complete table, because its run was killed while publishing it."""
    return (output / WORK_FOLDER / MANIFEST).is_file()


def publish_table(output: Location) -> None:
    """Replace the table in the output with the complete one in the work folder.

    Raises:
        WorkError: The folder of the old parts holds files that no scoring run wrote.
    """
    manifest = read_json(output / WORK_FOLDER / MANIFEST)
    # Folders of parts can only be exchanged locally; on an object store, other steps keep the table readable.
    if is_remote(output):
        _publish_remote(output, manifest)
    else:
        _publish_local(output, manifest)


def foreign_files_in_parts(output: Location) -> list[str]:
    """The names of files in the folder of parts that are neither parts nor clutter, sorted."""
    parts = output / PARTS_FOLDER
    if not parts.is_dir():
        return []
    names = (path.name for path in children(parts))
    return sorted(
        name for name in names if not (is_part(name) or _TEMPORARY.fullmatch(name) or is_clutter(name))
    )


def _publish_local(output: Path, manifest: dict[str, Any]) -> None:
    work = output / WORK_FOLDER
    is_csv = CSV_FILE in manifest["files"]
    if not holds_table(output, work / MANIFEST):
        if is_csv:
            (work / CSV_FILE).replace(output / CSV_FILE)
        else:
            _require_parts_alone(output)
            exchange_folders(work / WORK_PARTS, output / PARTS_FOLDER)
    if is_csv:
        _remove_parts(output)
    else:
        # The old parts are there now; a resumed run must not mistake them for its own.
        remove_folder(work / WORK_PARTS)
        remove_file(output / CSV_FILE)
    if (work / REPORT_FILE).is_file():
        (work / REPORT_FILE).replace(output / REPORT_FILE)
    flush_to_disk(output)
    (work / MANIFEST).replace(output / MANIFEST)
    flush_to_disk(output)


def _publish_remote(output: Location, manifest: dict[str, Any]) -> None:
    work, files = output / WORK_FOLDER, manifest["files"]
    old = read_json(output / MANIFEST)["files"] if (output / MANIFEST).is_file() else {}
    there = {path.name for path in table_files(output)}
    for name, facts in files.items():
        folder, _, part = name.rpartition("/")
        if old.get(name) != facts or (part not in there and name != REPORT_FILE):
            link_or_copy(work / (WORK_PARTS if folder else "") / part, output / folder / part)
    kept = {name.rpartition("/")[2] for name in files}
    for path in table_files(output):
        if path.name not in kept:
            remove_file(path)
    link_or_copy(work / MANIFEST, output / MANIFEST)


def _require_parts_alone(output: Path) -> None:
    foreign = foreign_files_in_parts(output)
    if foreign:
        raise WorkError(
            f"{output / PARTS_FOLDER} contains {foreign[0]!r}, which no scoring run wrote",
            "only parts of a table",
            "Move it elsewhere and run the same command again; finished shards are kept.",
        )


def _remove_parts(output: Location) -> None:
    """Remove the parts of a table that has been replaced by a CSV file, and their folder if it is empty."""
    if not (output / PARTS_FOLDER).is_dir():
        return
    for path in children(output / PARTS_FOLDER):
        if is_part(path.name) or _TEMPORARY.fullmatch(path.name):
            remove_file(path)
    with suppress(OSError):
        (output / PARTS_FOLDER).rmdir()


def exchange_folders(new: Path, old: Path) -> None:
    """Move `new` to `old`. Where the system supports it, the two are exchanged atomically.

    Elsewhere `old` is missing for a moment, and `new` holds the new table until it is moved.
    """
    if old.is_dir() and not _exchange_at_once(new, old):
        aside = new.with_name(f"{new.name}.old")
        remove_folder(aside)
        old.rename(aside)
    if not old.is_dir():
        new.rename(old)
    flush_to_disk(old.parent)


def _exchange_at_once(first: Path, second: Path) -> bool:
    exchange = _system_exchange()
    return exchange is not None and exchange(os.fsencode(first), os.fsencode(second)) == 0


@cache
def _system_exchange() -> Callable[[bytes, bytes], int] | None:
    """The system call that exchanges two names atomically and returns 0 on success; None if there is none."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        return lambda first, second: int(
            library.renameat2(_AT_FOLDER, first, _AT_FOLDER, second, ctypes.c_uint(_EXCHANGE))
        )
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return lambda first, second: int(library.renamex_np(first, second, ctypes.c_uint(_EXCHANGE)))
    return None
