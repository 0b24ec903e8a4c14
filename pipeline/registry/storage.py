"""Where the registry's files are: what differs between a folder of this machine and a remote one."""

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
"""From what a file holds, None where there is none, to what it shall hold, None to leave it."""
_SECONDS_FOR_LOCK = 60
_LARGEST = 64 * 2**20
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Storage(Protocol):
    """What must be safe while other processes do the same."""

    def reserve(self, models: Path) -> int:
        """Set the next version number in the folder of a model aside; no other process gets it."""

    def release(self, folder: Path) -> None:
        """Give a version that was set aside back, if nothing was published there."""

    def publish(self, bundle: Path, folder: Path) -> None:
        """Let a bundle on this machine appear under its version, whole or not at all."""

    def change(self, path: Path, change: Change) -> None:
        """Replace a file by what a function makes of it; no other process's change is lost."""

    def fetch(self, folder: Path) -> Path:
        """A published bundle in a folder of this machine."""


class LocalStorage:
    """Folders of this machine: a version is set aside by making its folder, which one process can.

    Beside the folder lies a temporary file that the process holds until it publishes or gives up. What a
    killed process had set aside can so be told from what a living one has.
    """

    def reserve(self, models: Path) -> int:
        """See `Storage`. Numbers that killed processes had set aside become free first."""
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
            content = change(read_content(path, _LARGEST) if path.exists() else None)
            if content is not None:
                write_text(path, content)

    def fetch(self, folder: Path) -> Path:
        """See `Storage`."""
        return folder


def version_of(name: str) -> int | None:
    """The version that a folder's name stands for, if it is one."""
    return int(name) if _VERSION.fullmatch(name) else None


def next_version(models: Path) -> int:
    """One more than the highest number in the folder of a model."""
    return max((version_of(path.name) or 0 for path in children(models)), default=0) + 1


_RESERVED: dict[Path, HeldFile] = {}
"""The folders that this process has set aside, each with the file that says so."""


def _forget_reservation(folder: Path) -> None:
    mark = _RESERVED.pop(folder, None)
    if mark is not None:
        mark.remove()


def _remove_abandoned_reservations(models: Path) -> None:
    for mark in remove_leftovers(models):
        folder = models / (temporary_for(mark.name) or "")
        # A living process that has set the same number aside has a file of its own, made before the folder.
        if version_of(folder.name) is not None and not temporaries(models, folder.name):
            with suppress(OSError):  # Only an empty folder goes.
                folder.rmdir()
