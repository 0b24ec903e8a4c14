"""Files and folders whose path is longer than the system takes at once (on Linux 4,096 bytes)."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_STEP_BYTES = 2048
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


def open_file(path: str, flags: int, folder: int | None = None) -> int:
    """What `os.open` does, for a path of any length.

    Args:
        path: Of the file.
        flags: As `os.open` takes them.
        folder: The descriptor of a folder that the path is relative to.

    Raises:
        OSError: As `os.open` raises it.
    """
    try:
        return os.open(path, flags, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    with _parent(path, folder) as (parent, name):
        return os.open(name, flags, dir_fd=parent)


def stat_file(path: str) -> os.stat_result:
    """What `os.stat` does, for a path of any length."""
    try:
        return os.stat(path)  # noqa: PTH116  # Three times as fast as pathlib's.
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    with _parent(path, None) as (parent, name):
        return os.stat(name, dir_fd=parent)


@contextmanager
def scan_folder(path: str) -> "Iterator[Iterator[os.DirEntry[str]]]":
    """What `os.scandir` does, for a path of any length."""
    with ExitStack() as closing:
        try:
            entries = os.scandir(path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            descriptor = open_file(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            closing.callback(os.close, descriptor)
            entries = os.scandir(descriptor)
        yield closing.enter_context(entries)


@contextmanager
def _parent(path: str, folder: int | None) -> Iterator[tuple[int | None, str]]:
    """The folder that holds the last part of a path, opened step by step, and that part."""
    *steps, name = _cut(path)
    with ExitStack() as closing:
        for step in steps:
            folder = os.open(step, _FOLDER, dir_fd=folder)
            closing.callback(os.close, folder)
        yield folder, name


def _cut(path: str) -> list[str]:
    """A path as a list of shorter ones, each relative to the one before."""
    steps: list[str] = []
    size = _STEP_BYTES
    for part in path.split("/"):
        if steps and not part:
            continue  # Of two slashes together, or one at the end.
        more = len(os.fsencode(part)) + 1
        if size + more > _STEP_BYTES:
            steps.append(part or "/")  # A path that begins at the root has an empty first part.
            size = more
        else:
            steps[-1] = os.path.join(steps[-1], part)  # noqa: PTH118  # Text to the system, not a Path.
            size += more
    return steps
