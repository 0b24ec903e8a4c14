"""Reading of a finished table, verified against its manifest byte for byte.

`publication` replaces a table in several steps, and the old manifest stays until the last one. A table is
found by matching a manifest with the files it lists: both in their final place, the new files in their final
place and the new manifest still in the work folder, or both in the work folder. So a reader sees either the
old or the new table at any moment, even if the replacing process is killed.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from pixelmill.pipeline.artifacts import MANIFEST, read_json
from pixelmill.pipeline.artifacts.formats import require_known_format
from pixelmill.pipeline.errors import PixelmillError, RequestError, WorkError
from pixelmill.pipeline.predictions.layout import (
    CSV_FILE,
    PARTS_FOLDER,
    SORTED_SOURCE,
    WORK_FOLDER,
    WORK_PARTS,
    table_names,
)
from pixelmill.pipeline.predictions.parts import part_run_id
from pixelmill.pipeline.storage import Location, file_sizes, opened, stamp_of

Result = TypeVar("Result")
KIND = "prediction-table"


class DamagedTable(WorkError):
    """The files of a table are not those listed in its manifest."""


@dataclass(frozen=True)
class StoredFile:
    """One file with rows, and its entry in the manifest; `sha256` is in hexadecimal, `size` in bytes."""

    path: Location
    sha256: str
    size: int
    run_id: str

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file, opened after its SHA-256 was checked.

        Raises:
            DamagedTable: The SHA-256 differs, or the file is missing.
        """
        try:
            with opened(self.path) as file:
                # Files are never modified in place, so the bytes read next are those that were hashed.
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if digest != self.sha256:
                    raise self._damaged(digest)
                file.seek(0)
                yield file
        except FileNotFoundError as error:
            raise _damaged(f"{self.path} is missing") from error

    def content(self) -> bytes:
        """All bytes of the file; see `opened`."""
        with self.opened() as file:
            return file.read()

    def _damaged(self, digest: str) -> DamagedTable:
        run_id = None if self.path.name == CSV_FILE else part_run_id(self.path)
        if run_id not in (None, "", self.run_id):
            return _damaged(f"{self.path} is from run {run_id}, not from {self.run_id}")
        return _damaged(f"{self.path} has SHA-256 {digest}, not {self.sha256}")


@dataclass(frozen=True)
class StoredTable:
    """A finished table: its folder, the content of its manifest, and its files in the order of the rows."""

    folder: Location
    manifest: dict[str, Any]
    files: tuple[StoredFile, ...]

    @property
    def is_sorted(self) -> bool:
        """Whether the rows are sorted by path, and have each path once."""
        return bool(self.manifest["request"].get("source", SORTED_SOURCE) == SORTED_SOURCE)

    @property
    def is_csv(self) -> bool:
        """Whether the table is a CSV file rather than Parquet parts."""
        return CSV_FILE in self.manifest["files"]


def read_table(folder: Location, read: Callable[[StoredTable], Result]) -> Result:
    """Read consistently from a finished table, even while a run replaces it.

    Args:
        folder: The output of a scoring run, local or remote.
        read: Called with the table, and again with the new one if it was replaced during the call.

    Raises:
        RequestError: The folder holds no finished table.
        DamagedTable: A file is missing, modified, from another run, or not listed in the manifest.
    """
    while True:
        moment = _moment(folder)
        reason: PixelmillError | None = None
        for manifest, rows in _places(folder):
            try:
                table = _open(folder, manifest, rows)
            except (RequestError, DamagedTable) as error:
                reason = reason or error
                continue
            try:
                return read(table)
            except DamagedTable as error:
                reason = reason or error
        if reason is not None and _moment(folder) == moment:
            raise reason


def open_table(folder: Location) -> StoredTable:
    """Open a finished table. Checks that its files exist; the bytes of each are checked when it is opened.

    Raises:
        RequestError: The folder holds no finished table.
        DamagedTable: A file is missing, has the wrong size, or is not listed in the manifest.
    """
    return read_table(folder, lambda table: table)


def listed_table(folder: Location) -> StoredTable:
    """A finished table as listed in its manifest, whether or not its files still exist.

    Raises:
        RequestError: The folder holds no manifest of a table.
    """
    return _listed(folder, folder / MANIFEST, folder / PARTS_FOLDER)


def holds_table(folder: Location, manifest: Location) -> bool:
    """Whether the files in a folder are, byte for byte, those listed in a manifest elsewhere."""
    try:
        for file in _open(folder, manifest, folder / PARTS_FOLDER).files:
            with file.opened():
                pass
    except (RequestError, DamagedTable):
        return False
    return True


def _places(folder: Location) -> list[tuple[Location, Location]]:
    """The possible places of a manifest and of the folder with its parts."""
    work = folder / WORK_FOLDER
    return [
        (folder / MANIFEST, folder / PARTS_FOLDER),
        (work / MANIFEST, folder / PARTS_FOLDER),
        (work / MANIFEST, work / WORK_PARTS),
    ]


def _moment(folder: Location) -> list[object]:
    """A fingerprint that changes whenever the table is replaced."""
    manifests = [folder / MANIFEST, folder / WORK_FOLDER / MANIFEST]
    return [stamp_of(path) for path in (*manifests, folder / PARTS_FOLDER, folder / CSV_FILE)]


def _open(folder: Location, manifest_file: Location, parts: Location) -> StoredTable:
    table = _listed(folder, manifest_file, parts)
    found = file_sizes(parts.parent if table.is_csv else parts)
    for file in table.files:
        size = found.pop(file.path.name, None)
        if size is None:
            raise _damaged(f"{file.path}, which {MANIFEST} lists, is missing")
        if size != file.size:
            raise _damaged(f"{file.path} has {size} bytes, not {file.size}")
    foreign = [name for name in found if name.endswith(".parquet") and not name.startswith(".")]
    if foreign and not table.is_csv:
        raise _damaged(f"{parts / min(foreign)} is not listed in {MANIFEST}")
    return table


def _listed(folder: Location, manifest_file: Location, parts: Location) -> StoredTable:
    manifest = _read_manifest(folder, manifest_file)
    listed: dict[str, dict[str, Any]] = manifest["files"]
    run_id: str = manifest["run"]["run_id"]
    paths = {
        name: parts.parent / CSV_FILE if name == CSV_FILE else parts / name.rpartition("/")[2]
        for name in table_names(listed)
    }
    files = [
        StoredFile(path, listed[name]["sha256"], listed[name]["size"], run_id) for name, path in paths.items()
    ]
    return StoredTable(folder, manifest, tuple(files))


def _read_manifest(folder: Location, file: Location) -> dict[str, Any]:
    if not file.is_file():
        raise RequestError(
            f"{folder} has no {MANIFEST}",
            "the folder of a finished prediction table",
            "Check the path; if the run was interrupted, run the same command again.",
        )
    manifest = read_json(file)
    if isinstance(manifest, dict):
        require_known_format(folder, manifest)
    if not _is_well_formed(manifest):
        raise RequestError(
            f"{folder} contains no prediction table",
            "the output of `pixelmill score`",
            "Check the path.",
        )
    checked: dict[str, Any] = manifest
    return checked


def _is_well_formed(manifest: Any) -> bool:
    """Whether the manifest has the entries that readers depend on, with the right types."""
    if not (isinstance(manifest, dict) and manifest.get("kind") == KIND):
        return False
    run, request, files = (manifest.get(name) for name in ("run", "request", "files"))
    return (
        isinstance(request, dict)
        and isinstance(request.get("images"), str)
        and isinstance(request.get("model"), str)
        and isinstance(request.get("top_k"), int)
        and isinstance(run, dict)
        and isinstance(run.get("run_id"), str)
        and isinstance(files, dict)
        and all(
            isinstance(facts, dict)
            and isinstance(facts.get("sha256"), str)
            and isinstance(facts.get("size"), int)
            for facts in files.values()
        )
    )


def _damaged(received: str) -> DamagedTable:
    return DamagedTable(
        received,
        "the files listed in the manifest of the run",
        "Restore the table from a copy, or score the folder again.",
    )
