"""Datasets from an archive, which is unpacked once, to the cache."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pixelmill.pipeline.artifacts import read_json, sha256_of, write_json
from pixelmill.pipeline.config import ArchiveSource, FolderSource, OwnImages, ParquetSource, TableSource
from pixelmill.pipeline.datasets.catalogue import ListedImage, Listing
from pixelmill.pipeline.datasets.class_folders import enter
from pixelmill.pipeline.datasets.folders import list_folder
from pixelmill.pipeline.datasets.image_files import stamp_of
from pixelmill.pipeline.datasets.mirrors import MirrorFailed, download_file
from pixelmill.pipeline.datasets.parquet_datasets import find_parquet_files, list_parquet
from pixelmill.pipeline.datasets.remote_stamps import RemoteStamps
from pixelmill.pipeline.datasets.tables import list_table, read_entries
from pixelmill.pipeline.datasets.unpacking import UnpackingLimits, archive_format, unpack
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import DownloadError, PixelmillError, RequestError
from pixelmill.pipeline.file_names import escape_path
from pixelmill.pipeline.storage import (
    file_system,
    flush_to_disk,
    is_remote,
    is_remote_error,
    parse_location,
    remove_leftovers,
    require_reachable,
    temporary_folder,
)

if TYPE_CHECKING:
    from upath import UPath

_log = getLogger(__name__)
_WEB = ("http://", "https://")


def list_archive(source: ArchiveSource, cache: Path) -> Listing:
    """Unpack an archive, unless that was done before, and list its images.

    The origin of an image is `ARCHIVE!MEMBER`.

    Raises:
        DownloadError: It cannot be downloaded.
        RequestError: `check_archive` or `unpack` fails, its SHA-256 is not that of the recipe, or it holds no
            dataset.
    """
    check_archive(source)
    sha256 = _fetch(source, cache / "archives")
    root = cache / "archives" / sha256
    inner = _dataset_in(source, root)
    try:
        listing = _list_dataset(inner, root, cache)
    except PixelmillError as error:
        raise _named_after_archive(error, source, root) from error
    warnings: list[str] = []
    left_out: dict[str, int] = {}
    return Listing(
        _list(listing, source, root, sha256, warnings, left_out),
        listing.reader,
        listing.class_names,
        f"{escape_path(source.path)} (SHA-256 {sha256})",
        warnings,
        left_out,
    )


def check_archive(source: ArchiveSource) -> None:
    """Check that an archive is there, without unpacking it or asking a web server.

    Raises:
        RequestError: It does not exist or is no archive.
    """
    if source.path.startswith(_WEB):
        return
    archive = parse_location(source.path)
    if is_remote(archive):
        require_reachable(archive)
        exists = file_system(archive)[0].isfile(file_system(archive)[1])
    else:
        exists = archive.is_file()
    if not exists:
        problem = "is a folder" if archive.is_dir() else "does not exist"
        raise RequestError(
            f"dataset.path {printable(source.path)} {problem}",
            "a .zip, .tar, .tar.gz or .tar.zst file",
            "Correct dataset.path; for a folder, set dataset.source=folder.",
        )
    if not is_remote(archive):
        archive_format(archive, source.path)


def _fetch(source: ArchiveSource, folder: Path) -> str:
    """See that an archive is unpacked to `folder/SHA256`, and return its SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (source.sha256 or "").lower()
    is_web = source.path.startswith(_WEB)
    stamp = "" if is_web else _stamp(source.path)
    key = f"{source.path} {stamp}"
    note = folder / f"{hashlib.sha256(os.fsencode(key)).hexdigest()}.json"
    with FileLock(folder / ".lock"):
        # A file that has not changed is not read again.
        known = str(read_json(note)["sha256"]) if stamp and note.is_file() else wanted if is_web else ""
        if not known or not (folder / known).is_dir():
            known = _fetch_and_unpack(source, folder)
            if stamp:
                write_json(note, {"archive": escape_path(source.path), "sha256": known})
        if wanted and known != wanted:
            raise _other_content(source, known)
    return known


def _fetch_and_unpack(source: ArchiveSource, folder: Path) -> str:
    if source.path.startswith(_WEB):
        fetched = _download(source, folder / "partial")
    else:
        archive = parse_location(source.path)
        if not is_remote(archive):
            return _unpack(source, archive, folder)
        fetched = _fetch_remote(source, archive, folder / "partial")
    try:
        return _unpack(source, fetched, folder)
    finally:
        fetched.unlink()


def _unpack(source: ArchiveSource, archive: Path, folder: Path) -> str:
    sha256 = sha256_of(archive)
    if source.sha256 is not None and sha256 != source.sha256.lower():
        # A page that says why there is no archive is the more helpful error.
        archive_format(archive, source.path)
        raise _other_content(source, sha256)
    target = folder / sha256
    if target.is_dir():
        return sha256
    _log.info("unpacking %s", printable(source.path))
    remove_leftovers(folder, sha256)
    with temporary_folder(target) as staging:
        unpack(archive, source.path, staging, UnpackingLimits(source.max_files, source.max_bytes))
        # All files in one go: one by one takes minutes for a million.
        os.sync()
        staging.rename(target)
        flush_to_disk(folder)
    return sha256


def _download(source: ArchiveSource, partial: Path) -> Path:
    """An archive on a web server as a file below `partial`."""
    try:
        return download_file(source.path, partial, source.max_bytes)
    except MirrorFailed as error:
        raise DownloadError(
            f"{printable(source.path)} cannot be downloaded ({error})",
            "a server that has the archive",
            "Check dataset.path and the network, or download it yourself and set its path.",
        ) from error


def _fetch_remote(source: ArchiveSource, archive: "UPath", partial: Path) -> Path:
    """An archive at an address as a file below `partial`."""
    system, name = file_system(archive)
    partial.mkdir(parents=True, exist_ok=True)
    target = partial / hashlib.sha256(source.path.encode()).hexdigest()
    try:
        size = system.info(name)["size"] or 0
        if size <= source.max_bytes:
            system.get_file(name, str(target))
    except Exception as error:
        if not isinstance(error, OSError) and not is_remote_error(error):
            raise
        raise DownloadError(
            f"{printable(source.path)} cannot be downloaded ({str(error) or type(error).__name__})",
            "an archive that is reachable",
            "Check the address, the network and the disk.",
        ) from error
    if size > source.max_bytes:
        raise RequestError(
            f"{printable(source.path)} has {size} bytes",
            f"at most {source.max_bytes}, as dataset.max_bytes says",
            "Raise dataset.max_bytes.",
        )
    return target


def _dataset_in(source: ArchiveSource, root: Path) -> OwnImages:
    """The source that describes the content of an unpacked archive."""
    fields = {name: getattr(source, name) for name in OwnImages.model_fields}
    if source.table is not None:
        table = root / source.table
        if not table.resolve().is_relative_to(root.resolve()) or not table.is_file():
            raise RequestError(
                f"{printable(source.path)} has no member {printable(source.table)!r}",
                "the path of a table in the archive",
                "Correct dataset.table.",
            )
        return TableSource(
            source="table",
            path=str(table),
            path_column=source.path_column,
            label_column=source.label_column,
            **fields,
        )
    inner = enter(root)
    if find_parquet_files(str(inner)):
        return ParquetSource(
            source="parquet",
            path=str(inner),
            image_column=source.image_column,
            label_column=source.label_column,
            **fields,
        )
    return FolderSource(source="folder", path=str(inner), group_by=source.group_by, **fields)


def _list_dataset(source: OwnImages, root: Path, cache: Path) -> Listing:
    match source:
        case TableSource():
            _require_inside(source, root)
            return list_table(source, cache)
        case ParquetSource():
            return list_parquet(source, cache)
        case FolderSource():
            return list_folder(source, cache)
    raise TypeError(source)


def _require_inside(source: TableSource, root: Path) -> None:
    """Require that a table names nothing but members of its archive."""
    inside = f"{os.fspath(root.resolve())}/"
    for entry in read_entries(source):
        if not entry.file.startswith(inside):
            raise RequestError(
                f"{printable(entry.place)} of an archive names {printable(entry.file)}",
                "files in the archive",
                "Make the archive anew, or unpack it and set dataset.source=table.",
            )


def _list(
    listing: Listing,
    source: ArchiveSource,
    root: Path,
    sha256: str,
    warnings: list[str],
    left_out: dict[str, int],
) -> Iterator[ListedImage]:
    prefix = f"{escape_path(os.fspath(root.resolve()))}/"
    title = escape_path(source.path)
    try:
        for image in listing.images:
            origin = f"{title}!{image.origin.removeprefix(prefix)}"
            yield replace(image, origin=origin, stamp=sha256 if image.stamp else "")
    except PixelmillError as error:
        raise _named_after_archive(error, source, root) from error
    warnings += (_without_root(line, source, root) for line in listing.warnings)
    left_out.update(listing.left_out)


def _named_after_archive(error: PixelmillError, source: ArchiveSource, root: Path) -> PixelmillError:
    parts = (error.received, error.expected, error.remedy)
    return type(error)(*(_without_root(part, source, root) for part in parts))


def _without_root(text: str, source: ArchiveSource, root: Path) -> str:
    """A text about files of the cache as one about members of the archive."""
    for place in (root, root.resolve()):
        text = text.replace(f"{place}/", f"{source.path}!").replace(str(place), source.path)
    return text


def _other_content(source: ArchiveSource, sha256: str) -> RequestError:
    return RequestError(
        f"{printable(source.path)} has the SHA-256 {sha256}",
        f"{source.sha256}, as dataset.sha256 says",
        "Correct dataset.sha256 if the archive is the one you want.",
    )


def _stamp(path: str) -> str:
    location = parse_location(path)
    if is_remote(location):
        system, name = file_system(location)
        return RemoteStamps().of(system.unstrip_protocol(name))
    return stamp_of(location.stat())
