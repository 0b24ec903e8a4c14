"""Reserving version numbers, safe while other processes do the same.

On this machine, a version is reserved by creating its folder, which only one process can do. The process
locks a temporary file next to the folder until the version is published or released. The lock distinguishes
the reservations of running processes from those of killed ones. In a remote store, which has no locks, a
version is reserved by creating an object in its folder, and a killed process's number stays unused.
"""

import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pixelmill.pipeline.artifacts import MANIFEST
from pixelmill.pipeline.storage import (
    Location,
    children,
    create_file,
    is_remote,
    remove_file,
    remove_leftovers,
)
from pixelmill.pipeline.storage.temporaries import HeldFile, temporaries, temporary_for

_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_RESERVATION = ".reserved"


def reserve_number(models: Location) -> int:
    """Reserve the next version number in a model's folder for this process.

    In a local store, the reservations of killed processes are removed first.
    """
    if not is_remote(models):
        models.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(models)
    while True:
        version = max((version_of(path.name) or 0 for path in children(models)), default=0) + 1
        if _reserve(models / str(version)):
            return version


def release_number(folder: Location) -> None:
    """Free a reserved version if nothing was published there."""
    if is_remote(folder):
        if not (folder / MANIFEST).exists():
            remove_file(folder / _RESERVATION)
    elif folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    end_reservation(folder)


def end_reservation(folder: Location) -> None:
    """Stop marking a version as reserved by this process, because it was published or is free again."""
    mark = _RESERVED.pop(folder, None)
    if mark is not None:
        mark.remove()


def version_of(name: str) -> int | None:
    """The version number in a folder's name, or None if it is not one."""
    return int(name) if _VERSION.fullmatch(name) else None


_RESERVED: dict[Location, HeldFile] = {}
"""The local version folders that this process has reserved, each with its locked temporary file."""


def _reserve(folder: Location) -> bool:
    if is_remote(folder):
        # The content is unique, so that a write whose response was lost can be recognized.
        return create_file(folder / _RESERVATION, uuid4().hex.encode())
    mark = HeldFile.beside(folder)
    try:
        folder.mkdir()
    except FileExistsError:
        mark.remove()
        return False
    _RESERVED[folder] = mark
    return True


def _remove_abandoned(models: Path) -> None:
    for mark in remove_leftovers(models):
        folder = models / (temporary_for(mark.name) or "")
        # A running process that reserved the same number has its own file, created before the folder.
        if version_of(folder.name) is not None and not temporaries(models, folder.name):
            with suppress(OSError):  # Only an empty folder is removed.
                folder.rmdir()
