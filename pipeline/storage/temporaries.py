"""Temporary files and folders with recognizable names, and locks that show whether their owner is alive.

Each is named `.{name}.{8 hex digits}.pixelmill-tmp`, and the process that created it holds a lock (`flock`)
on it while it is in use. The system releases the lock however the process ends, so an unlocked file of this
name was left by a killed process. On file systems without locks, nothing is considered abandoned or removed.
"""

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from uuid import uuid4

_log = getLogger(__name__)
_SUFFIX = ".pixelmill-tmp"
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}" + re.escape(_SUFFIX), re.DOTALL)
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def temporary_sibling(path: Path) -> Path:
    """A unique hidden path beside `path`, on the same file system."""
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}{_SUFFIX}")


def temporary_for(name: str) -> str | None:
    """The final name for a temporary one: `file.txt` for `.file.txt.0a1b2c3d.pixelmill-tmp`; or None."""
    match = _TEMPORARY.fullmatch(name)
    return match["name"] if match else None


@dataclass(frozen=True)
class HeldFile:
    """A temporary file or folder locked by this process.

    Attributes:
        path: Its path.
        descriptor: The file descriptor that holds the lock; None if the file system has no locks.
    """

    path: Path
    descriptor: int | None

    @classmethod
    def beside(cls, path: Path, is_folder: bool = False, mode: int | None = None) -> "HeldFile":
        """Create an empty temporary file or folder beside `path`.

        Args:
            path: The final path.
            is_folder: Whether to create a folder.
            mode: Its permissions; if None, the default under the user's umask.
        """
        while True:
            temporary = temporary_sibling(path)
            if is_folder:
                temporary.mkdir(0o777 if mode is None else mode)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(temporary, flags, 0o666 if mode is None else mode))
            try:
                descriptor = hold(temporary)
            except OSError:
                return cls(temporary, None)  # Without locks, it is never considered abandoned.
            if descriptor is not None:
                return cls(temporary, descriptor)
            # Another process saw it before it was locked and is removing it as abandoned: try again.

    def remove(self) -> None:
        """Remove it, if it still has its temporary name, and release the lock."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)
        if self.descriptor is not None:
            release(self.descriptor)


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """A locked, empty file beside `path`; removed at the end of the block if it still exists.

    Raises:
        OSError: The disk is full; unlike the system's own error, it names `path`.
    """
    held = HeldFile.beside(path)
    try:
        yield held.path
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        held.remove()


@contextmanager
def temporary_folder(path: Path, mode: int | None = None) -> Iterator[Path]:
    """A locked, empty folder beside `path`; removed at the end of the block if it still exists."""
    held = HeldFile.beside(path, is_folder=True, mode=mode)
    try:
        yield held.path
    finally:
        held.remove()


@contextmanager
def scratch_folder(name: str, parent: Path | None = None) -> Iterator[Path]:
    """An empty folder for the duration of a block, accessible to this user only.

    Folders that killed processes left beside it are removed first.

    Args:
        name: Its purpose, which becomes part of its name.
        parent: The folder to create it in; the system's folder for temporary files if None.
    """
    parent = parent or Path(tempfile.gettempdir())
    remove_leftovers(parent)
    with temporary_folder(parent / name, mode=0o700) as folder:
        yield folder


def hold(path: Path) -> int | None:
    """Lock a file or folder until `release` or until this process ends.

    Returns:
        The descriptor for `release`; None if another process holds the lock or the file is gone.

    Raises:
        OSError: The file system has no locks.
    """
    with suppress(FileNotFoundError):
        # A link must not be followed, and a FIFO must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except OSError as error:
            if error.errno not in _HELD:
                os.close(descriptor)
                raise
        os.close(descriptor)
    return None


def release(descriptor: int) -> None:
    """Release a lock taken by `hold`."""
    os.close(descriptor)


def remove_leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Remove the temporary files and folders directly in `folder` whose owners have ended.

    Args:
        folder: The folder to clean; it need not exist.
        name: If given, only temporaries for this final name.

    Returns:
        The paths removed.
    """
    removed = []
    for path in temporaries(folder, name):
        if remove_if_abandoned(path):
            removed.append(path)
            _log.debug("removed %s, which a killed process left", path)
    return removed


def remove_if_abandoned(path: Path) -> bool:
    """Remove a file or folder of this user that no process has locked; returns whether it was removed."""
    try:
        found = path.lstat()
        if found.st_uid != os.geteuid() or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return False
        descriptor = hold(path)
    except OSError:
        return False
    if descriptor is None:
        return False
    try:
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        release(descriptor)
    return not path.exists()


def temporaries(folder: Path, name: str | None = None) -> list[Path]:
    """The temporary files and folders directly in `folder`, for one final name or all, locked or not."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, temporary_for(entry.name)) for entry in entries]
    except OSError:
        return []
    return [folder / entry for entry, stands_for in found if stands_for and name in (None, stands_for)]


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False
