"""Storage: files and folders on this machine and at remote addresses, read and written in the same way.

A `Location` is a local path or an address. Every function here accepts both, and writes atomically: a reader
sees either the old content or the new one. `local` and `remote` are the two implementations.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pixelmill.pipeline.storage.interface import Change, OpenFile, Storage
from pixelmill.pipeline.storage.local import LocalStorage, flush_to_disk
from pixelmill.pipeline.storage.location import (
    LocalPath,
    Location,
    absolute,
    cache_folder,
    file_system,
    has_latency,
    is_remote,
    is_remote_error,
    local_path,
    parse_location,
    relative_to_here,
    require_reachable,
    workspace,
)
from pixelmill.pipeline.storage.regular_files import open_regular
from pixelmill.pipeline.storage.remote import RemoteStorage
from pixelmill.pipeline.storage.temporaries import (
    remove_leftovers,
    scratch_folder,
    temporary_folder,
    temporary_sibling,
)

if TYPE_CHECKING:
    from upath.types import StatResultType

__all__ = [
    "Change",
    "LocalPath",
    "Location",
    "OpenFile",
    "absolute",
    "cache_folder",
    "change_file",
    "children",
    "create_file",
    "download_file",
    "file_sizes",
    "file_system",
    "flush_to_disk",
    "has_latency",
    "is_remote",
    "is_remote_error",
    "link_or_copy",
    "local_folder",
    "local_path",
    "locked_folder",
    "make_folder",
    "open_regular",
    "opened",
    "opened_for_reading",
    "parse_location",
    "publish_copy",
    "publish_folder",
    "read_content",
    "relative_to_here",
    "remove_file",
    "remove_folder",
    "remove_leftovers",
    "replacing",
    "require_reachable",
    "require_writable",
    "resolves_within",
    "scratch_folder",
    "sha256_of",
    "stamp_of",
    "stat_of",
    "temporary_folder",
    "temporary_sibling",
    "workspace",
]


def make_folder(folder: Location) -> None:
    """Create a folder and its parents unless they exist; a remote one appears with its first file."""
    _storage_of(folder).make_folder()


def children(folder: Location) -> list[Location]:
    """The entries of a folder; empty for a missing remote folder.

    Raises:
        FileNotFoundError: A local folder does not exist.
    """
    return _storage_of(folder).children()


def file_sizes(folder: Location) -> dict[str, int]:
    """The sizes in bytes of the files directly in a folder, by name; empty for a missing folder."""
    return _storage_of(folder).file_sizes()


def stat_of(path: Location) -> "StatResultType":
    """The kind, size, time and inode of a file or folder; an inode of 0 where there is none.

    Raises:
        OSError: There is none, or it cannot be accessed.
    """
    return _storage_of(path).stat()


def stamp_of(path: Location) -> object:
    """A value that differs once a file or folder was replaced; None if there is none."""
    return _storage_of(path).stamp()


def read_content(path: Location, largest: int | None = None) -> bytes:
    """The bytes of a file, in one read.

    Args:
        path: The file.
        largest: The largest size in bytes of a local file; None for any.

    Raises:
        OSError: It is not a regular file, cannot be read, or has more than `largest` bytes.
    """
    return _storage_of(path).read(largest)


@contextmanager
def opened(path: Location) -> Iterator[OpenFile]:
    """A file, whose content stays the same while it is open even if the file is replaced."""
    with _storage_of(path).opened() as file:
        yield file


@contextmanager
def opened_for_reading(path: Location) -> Iterator[str | OpenFile]:
    """A source for Arrow: the name of a local file, or the bytes of a remote one, fetched once."""
    yield _storage_of(path).source()


def sha256_of(path: Location) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: It is not a regular file, or cannot be read.
    """
    return _storage_of(path).sha256()


def replacing(path: Location) -> AbstractContextManager[Path]:
    """Yield a local temporary path that replaces `path` when the block succeeds.

    If the block raises, the temporary file is removed and `path` is unchanged. A remote `path` is replaced by
    uploading the temporary file.
    """
    return _storage_of(path).replacing()


def create_file(path: Location, content: bytes) -> bool:
    """Create a file, unless there is one already. Of several processes, only one creates it.

    Returns:
        Whether this call created it. In a remote store, whether the file holds this content: processes that
        compete must write different contents, so that a write whose response was lost can be recognized.
    """
    return _storage_of(path).create(content)


def change_file(path: Location, change: Change, largest: int | None = None) -> None:
    """Change a small file with a function, without losing what other processes change at the same time.

    Args:
        path: The file; it need not exist.
        change: From the file's content, None if there is no file, to its new content, None to leave it as it
            is. For a remote file, it is called again if another process changed the file first; two processes
            that write the same content count as one change, and a change whose response was lost is made
            again if another process changed the file before the retry.
        largest: The largest size in bytes of a local file; None for any.

    Raises:
        OSError: The file cannot be read or written, or another process holds its lock for a minute.
    """
    _storage_of(path).change(change, largest)


def publish_folder(source: Path, target: Location, names: Sequence[str]) -> bool:
    """Publish a local folder under a new name, completely or not at all.

    On this machine, the folder is renamed. To a remote address, its files are uploaded; for readers, the
    folder is complete only once the last of them exists.

    Args:
        source: The folder; a local `target` must be on the same file system.
        target: The new name, not in use; an empty local folder is replaced.
        names: The relative paths of the files, of which the last is uploaded last.

    Returns:
        Whether the name was free in a remote store.

    Raises:
        OSError: A local `target` is in use.
    """
    return _storage_of(target).publish(source, names)


def publish_copy(source: Path, target: Location, names: Sequence[str]) -> bool:
    """Publish a copy of a local folder under a new name; otherwise as `publish_folder`.

    Raises:
        OSError: A local `target` is in use.
    """
    return _storage_of(target).publish_copy(source, names)


def download_file(source: Location, target: Path) -> None:
    """Copy a file to a local one, whose folder is created; a missing file is skipped."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _storage_of(source).download(target)


def link_or_copy(source: Location, target: Location) -> None:
    """Give a file a second name in the same storage, by a hard link if possible; files are never modified
    in place.
    """
    _storage_of(source).link(target)


def remove_file(path: Location) -> None:
    """Remove a file if it exists."""
    _storage_of(path).remove_file()


def remove_folder(folder: Location) -> None:
    """Remove a folder and its contents if it exists."""
    _storage_of(folder).remove_folder()


def require_writable(folder: Location) -> None:
    """Check that files can be written to a local folder, or that it can be created.

    Raises:
        OSError: They cannot.
    """
    _storage_of(folder).require_writable()


def resolves_within(path: Location, folder: Location) -> bool:
    """Whether a file lies in a folder once links are followed; always true of an address below it."""
    return _storage_of(path).resolves_within(folder)


def locked_folder(folder: Location, lock: str) -> AbstractContextManager[None]:
    """Create a folder, and lock it with a file of that name while the block lasts.

    At the end, the folder and the parents that were created for it are removed if still empty.
    Object stores have no locks: their callers must ensure that only one process uses the folder.

    Raises:
        TimeoutError: Another process holds the lock.
    """
    return _storage_of(folder).locked_folder(lock)


def local_folder(folder: Location) -> AbstractContextManager[Path]:
    """An empty folder on this machine: `folder` itself, emptied, or for an address a temporary one.

    The temporary one is removed at the end of the block.
    """
    return _storage_of(folder).local_folder()


def _storage_of(location: Location) -> Storage:
    return RemoteStorage(location) if is_remote(location) else LocalStorage(location)
