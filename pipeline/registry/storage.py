"""The registry's storage: the operations that differ between local and remote stores."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from pixelmill.pipeline.artifacts import flush_to_disk, read_content, remove_leftovers, write_text
from pixelmill.pipeline.artifacts.temporaries import HeldFile, temporaries, temporary_for
from pixelmill.pipeline.locations import children

Change = Callable[[bytes | None], str | None]
"""From a file's content, None if there is no file, to its new content, None to leave it unchanged."""
_SECONDS_FOR_LOCK = 60
_MAX_FILE_SIZE = 64 * 2**20
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Storage(Protocol):
    """Operations that are safe while other processes use the same store."""

    def reserve(self, models: Path) -> int:
        """Reserve the next version number in a model's folder for this process."""

    def release(self, folder: Path) -> None:
        """Release a reserved version if nothing was published there."""

    def publish(self, bundle: Path, folder: Path) -> None:
        """Publish a local bundle under its version, completely or not at all."""

    def change(self, path: Path, change: Change) -> None:
        """Replace a file's content with a function's result, without losing other processes' changes."""

    def fetch(self, folder: Path) -> Path:
        """The local folder of a published bundle, which is downloaded if the store is remote."""


class LocalStorage:
    """Local folders: a version is reserved by creating its folder, which only one process can do.

    The process locks a temporary file next to the folder until it publishes or releases the version. The
    lock distinguishes the reservations of running processes from those of killed ones.
    """

    def reserve(self, models: Path) -> int:
        """See `Storage`. Reservations of killed processes are removed first."""
        models.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_reservations(models)
        while True:
            version = next_version(models)
            folder = models / str(version)
            mark = HeldFile.beside(folder)
            try:
                folder.mkdir()
            except FileExistsError:
                mark.remove()
                continue
            _RESERVED[folder] = mark
            return version

    def release(self, folder: Path) -> None:
        """See `Storage`."""
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        _forget_reservation(folder)

    def publish(self, bundle: Path, folder: Path) -> None:
        """See `Storage`."""
        bundle.rename(folder)
        flush_to_disk(folder.parent)
        _forget_reservation(folder)

    def change(self, path: Path, change: Change) -> None:
        """See `Storage`."""
        with FileLock(path.with_name(f".{path.stem}.lock"), timeout=_SECONDS_FOR_LOCK):
            content = change(read_content(path, _MAX_FILE_SIZE) if path.exists() else None)
            if content is not None:
                write_text(path, content)

    def fetch(self, folder: Path) -> Path:
        """See `Storage`."""
        return folder


def version_of(name: str) -> int | None:
    """The version number in a folder's name, or None if it is not one."""
    return int(name) if _VERSION.fullmatch(name) else None


def next_version(models: Path) -> int:
    """One more than the highest version number in a model's folder."""
    return max((version_of(path.name) or 0 for path in children(models)), default=0) + 1


_RESERVED: dict[Path, HeldFile] = {}
"""The version folders that this process has reserved, each with its locked temporary file."""


def _forget_reservation(folder: Path) -> None:
    mark = _RESERVED.pop(folder, None)
    if mark is not None:
        mark.remove()


def _remove_abandoned_reservations(models: Path) -> None:
    for mark in remove_leftovers(models):
        folder = models / (temporary_for(mark.name) or "")
        # A running process that reserved the same number has its own file, created before the folder.
        if version_of(folder.name) is not None and not temporaries(models, folder.name):
            with suppress(OSError):  # Only an empty folder is removed.
                folder.rmdir()
