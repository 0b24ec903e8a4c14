"""Temporary files and folders that are recognisably ours, and that tell whether their owner is still alive.

Each is called `.{name}.{8 hex digits}.pixelmill-tmp`, and the process that made it holds a lock (`flock`)
on it for as long as it is in use. The system releases the lock however that process ends, so a name of this
form without a lock is what a killed process left. Where a file system has no such locks, nothing counts as
left behind and nothing is removed.
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


def temporary_sibling(path: Path) -> Path:
    """A hidden name beside `path`, on the same file system, that no other process uses."""
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}{_SUFFIX}")


def temporary_for(name: str) -> str | None:
    """What a temporary name stands in for, `file.txt` for `.file.txt.0a1b2c3d.pixelmill-tmp`; else None."""
    match = _TEMPORARY.fullmatch(name)
    return match["name"] if match else None


@dataclass(frozen=True)
class HeldFile:
    """A temporary file or folder that this process holds.

    Attributes:
        path: Where it is.
        descriptor: What the lock hangs on; None where the file system has no locks.
    """

    path: Path
    descriptor: int | None

    @classmethod
    def beside(cls, path: Path, is_folder: bool = False, mode: int | None = None) -> "HeldFile":
        """Make an empty one beside `path`.

        Args:
            path: What it stands in for.
            is_folder: Whether it is a folder.
            mode: Its permissions; those that the user's umask leaves when None.
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
                return cls(temporary, None)  # Without locks, nobody takes it for a leftover either.
            if descriptor is not None:
                return cls(temporary, descriptor)
            # Another process took it for a leftover between the two steps, and removes it.

    def remove(self) -> None:
        """Remove it, if it still has its temporary name, and hold it no longer."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)
        if self.descriptor is not None:
            release(self.descriptor)


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, held by this process; removed at the end if it is still there."""
    held = HeldFile.beside(path)
    try:
        yield held.path
    finally:
        held.remove()


@contextmanager
def temporary_folder(path: Path, mode: int | None = None) -> Iterator[Path]:
    """An empty folder beside `path`, held by this process; removed at the end if it is still there."""
    held = HeldFile.beside(path, is_folder=True, mode=mode)
    try:
        yield held.path
    finally:
        held.remove()


@contextmanager
def scratch_folder(name: str, parent: Path | None = None) -> Iterator[Path]:
    """An empty folder for the time of a block, which only this user can enter.

    What killed processes left beside it is removed first.

    Args:
        name: What it is for; part of its name.
        parent: Where it is made; the system's folder for temporary files when None.
    """
    parent = parent or Path(tempfile.gettempdir())
    remove_leftovers(parent)
    with temporary_folder(parent / name, mode=0o700) as folder:
        yield folder


def hold(path: Path) -> int | None:
    """Mark a file or folder as in use until `release`, or until this process ends.

    Returns:
        A descriptor to release it with; None if another process holds it, or it is gone.

    Raises:
        OSError: The file system has no locks.
    """
    with suppress(FileNotFoundError):
        # Neither a link nor a FIFO of that name may lead elsewhere or block.
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
    """Release what `hold` marked."""
    os.close(descriptor)


def remove_leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Remove the temporary files and folders directly in `folder` whose owners have ended.

    Args:
        folder: Where to look; nothing is found in a folder that does not exist.
        name: Only those that stand in for this name.

    Returns:
        What was removed.
    """
    removed = []
    for path in temporaries(folder, name):
        if remove_if_abandoned(path):
            removed.append(path)
            _log.debug("removed %s, which a killed process left", path)
    return removed


def remove_if_abandoned(path: Path) -> bool:
    """Remove a file or folder of this user's that no process holds; whether it was."""
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
    """The temporary files and folders directly in `folder`, of one name or all, whoever holds them."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, temporary_for(entry.name)) for entry in entries]
    except OSError:
        return []
    return [folder / entry for entry, stands_for in found if stands_for and name in (None, stands_for)]


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False
