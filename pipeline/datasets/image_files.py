"""Finding the image files below a folder, and the reason for which each other file is left out."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pixelmill.pipeline.clutter import CLUTTER_NAMES, is_clutter
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import EXTENSIONS

HIDDEN = "hidden"
LOOPS = "folders that were seen already through another link"
BROKEN = "links to nothing"
ODD = "pipes and devices"
TOO_LONG = "paths that are too long"
VANISHED = "files that disappeared meanwhile"
_MAX_REASONS = 10
_UNREACHABLE = {errno.ENAMETOOLONG: TOO_LONG, errno.ELOOP: BROKEN, errno.ENOENT: BROKEN}


class FoundFile(NamedTuple):
    """A file or folder found below a folder.

    Attributes:
        name: Its path relative to the folder, through linked folders.
        left_out: Why it is left out: its extension, the name of clutter, or a reason in words; None for an
            image.
        stamp: Changes when the content changes: size, time of modification and inode, or an ETag.
    """

    name: str
    left_out: str | None = None
    stamp: str = ""


def walk_images(folder: Path) -> Iterator[FoundFile]:
    """Everything below a local folder: the files of each folder by name, then its folders.

    Linked folders are followed, and each folder is visited once, so circular links do no harm.

    Raises:
        WorkError: A folder disappears meanwhile.
        OSError: A folder cannot be listed; skipping it would change the dataset.
    """
    root = os.fspath(folder)
    try:
        seen = {_identity(folder.stat())}
        stack = [_entries(root, "")]
    except FileNotFoundError as error:
        raise _changed(root) from error
    while stack:
        name = next(stack[-1], None)
        if name is None:
            stack.pop()
            continue
        found, status = _look_at(root, name)
        if status is None or not stat.S_ISDIR(status.st_mode):
            yield found
        elif _identity(status) in seen:
            yield FoundFile(name, LOOPS)
        else:
            seen.add(_identity(status))
            try:
                stack.append(_entries(root, name))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    raise _changed(f"{root}/{name}") from error
                if error.errno != errno.ENAMETOOLONG:
                    raise
                yield FoundFile(name, TOO_LONG)


def has_images(folder: Path, count: int) -> bool:
    """Whether there are at least `count` images below a local folder; the search stops once they are found.

    Raises:
        OSError: A folder cannot be listed.
    """
    images = (found for found in walk_images(folder) if found.left_out is None)
    return len(list(islice(images, count))) == count


def stamp_of(status: os.stat_result) -> str:
    """Size, time of modification and inode of a file, as text."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


def describe_excluded(left_out: Counter[str]) -> str:
    """The counts in descending order: `.cr2 40, hidden 2`."""
    shown = left_out.most_common(_MAX_REASONS)
    rest = left_out.total() - sum(count for _, count in shown)
    words = [f"{printable(reason)} {count}" for reason, count in shown]
    return ", ".join([*words, f"others {rest}"] if rest else words)


def exclusion_reason(name: str) -> str | None:
    """Why a file or folder is left out by its name alone: it is clutter or hidden; None if it is not."""
    if is_clutter(name):
        return name if name in CLUTTER_NAMES else "system files"
    return HIDDEN if name.startswith(".") else None


def kind_reason(name: str) -> str | None:
    """Why a file is left out by its extension; None for the extension of an image."""
    extension = os.path.splitext(name)[1].lower()  # noqa: PTH122  # A name may contain anything.
    return None if extension in EXTENSIONS else extension or "no extension"


def _look_at(root: str, name: str) -> tuple[FoundFile, os.stat_result | None]:
    """Classify a path, and return its status if it can be opened."""
    last = name.rpartition("/")[2]
    if reason := exclusion_reason(last):
        return FoundFile(name, reason), None
    path = f"{root}/{name}"
    try:
        status = os.stat(path)  # noqa: PTH116  # A path object for each file takes longer than the system.
    except OSError as error:
        if error.errno not in _UNREACHABLE:
            raise
        vanished = error.errno == errno.ENOENT and not os.path.islink(path)  # noqa: PTH114
        return FoundFile(name, VANISHED if vanished else _UNREACHABLE[error.errno]), None
    if not stat.S_ISREG(status.st_mode):
        return FoundFile(name, ODD), status
    return FoundFile(name, kind_reason(last), stamp_of(status)), status


def _entries(root: str, name: str) -> Iterator[str]:
    """Files, then folders, each by name, so that a folder is always reached by the same path."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(f"{root}/{name}") as entries:
        for entry in entries:
            (folders if entry.is_dir() else files).append(entry.name)
    prefix = f"{name}/" if name else ""
    return (prefix + found for found in [*sorted(files), *sorted(folders)])


def _changed(folder: str) -> WorkError:
    return WorkError(
        f"folder {printable(folder)} disappeared while the dataset was listed",
        "a dataset that does not change meanwhile",
        "Run again once nothing changes it.",
    )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
