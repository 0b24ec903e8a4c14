"""Finding the image files below a class folder, and counting everything else."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pixelmill.pipeline.clutter import CLUTTER_NAMES, is_clutter
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.images import EXTENSIONS

HIDDEN = "hidden"
LOOPS = "folders that were seen already through another link"
BROKEN = "links to nothing"
ODD = "pipes and devices"
TOO_LONG = "paths that are too long"
_MAX_REASONS = 10
_UNREACHABLE = {errno.ENAMETOOLONG: TOO_LONG, errno.ELOOP: BROKEN, errno.ENOENT: BROKEN}


class FoundFile(NamedTuple):
    """A file or folder found below a class folder.

    Attributes:
        path: Its path, through linked folders.
        left_out: Why it is left out: its extension, the name of clutter, or a reason in words; None for an
            image.
    """

    path: Path
    left_out: str | None = None


def walk_images(folder: Path) -> Iterator[FoundFile]:
    """Everything below a folder, in arbitrary order.

    Linked folders are followed, and each folder is visited once, so circular links do no harm.

    Raises:
        OSError: A folder cannot be listed; skipping it would change the dataset.
    """
    seen = {_identity(folder.stat())}
    stack = [_entries(folder)]
    while stack:
        path = next(stack[-1], None)
        if path is None:
            stack.pop()
            continue
        found, status = _look_at(path)
        if status is None or not stat.S_ISDIR(status.st_mode):
            yield found
        elif _identity(status) in seen:
            yield FoundFile(path, LOOPS)
        else:
            seen.add(_identity(status))
            try:
                stack.append(_entries(path))
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                yield FoundFile(path, TOO_LONG)


def list_image_files(folder: Path, left_out: Counter[str], advance: Callable[[int, str], None]) -> list[Path]:
    """The images below a folder, sorted by path.

    Args:
        folder: The folder to search.
        left_out: Counts the files left out, by extension or reason; updated.
        advance: Called for each file that was examined.

    Raises:
        OSError: A folder cannot be listed.
    """
    images = []
    for found in walk_images(folder):
        if found.left_out is None:
            images.append(found.path)
        else:
            left_out[found.left_out] += 1
        advance(1, "")
    return sorted(images)


def has_images(folder: Path, count: int) -> bool:
    """Whether there are at least `count` images below a folder; the search stops once they are found.

    Raises:
        OSError: A folder cannot be listed.
    """
    found = 0
    for file in walk_images(folder):
        found += file.left_out is None
        if found == count:
            return True
    return False


def describe_excluded(left_out: Counter[str]) -> str:
    """The counts in descending order: `.heic 40, hidden 2`."""
    shown = left_out.most_common(_MAX_REASONS)
    rest = left_out.total() - sum(count for _, count in shown)
    words = [f"{printable(reason)} {count}" for reason, count in shown]
    return ", ".join([*words, f"others {rest}"] if rest else words)


def exclusion_reason(path: Path) -> str | None:
    """Why a file or folder is left out by its name alone: it is clutter or hidden; None if it is not."""
    if is_clutter(path.name):
        return path.name if path.name in CLUTTER_NAMES else "system files"
    return HIDDEN if path.name.startswith(".") else None


def _look_at(path: Path) -> tuple[FoundFile, os.stat_result | None]:
    """Classify a path, and return its status if it can be opened."""
    if reason := exclusion_reason(path):
        return FoundFile(path, reason), None
    extension = path.suffix.lower()
    try:
        status = path.stat()
    except OSError as error:
        if error.errno not in _UNREACHABLE:
            raise
        return FoundFile(path, _UNREACHABLE[error.errno]), None
    if not stat.S_ISREG(status.st_mode):
        return FoundFile(path, ODD), status
    return FoundFile(path, None if extension in EXTENSIONS else extension or "no extension"), status


def _entries(folder: Path) -> Iterator[Path]:
    """Files in any order, then folders by name, so that a folder is always reached by the same path."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            (folders if entry.is_dir() else files).append(entry.name)
    return (folder / name for name in [*files, *sorted(folders)])


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
