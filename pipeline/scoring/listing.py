"""Listing the images below a folder in the order of the table, without holding the list in memory."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import WorkError
from pipeline.file_names import escape, unescape
from pipeline.images import EXTENSIONS
from pipeline.locations import file_system, is_remote

__all__ = ["ListedImage", "escape", "holds_images", "list_images", "unescape"]

# By what name S3, Azure, Google, local and other file systems of fsspec tell it.
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")


class ListedImage(NamedTuple):
    """One row to come.

    Attributes:
        path: Relative to the folder, escaped where it is not plain text; unique in a listing.
        size: In bytes, as listed.
        modified_ns: Time of the last change in nanoseconds, as listed.
        inode: The file's number in its file system; 0 where there is none.
        problem: Why it cannot be an image at all: a pipe, a device, a link to nothing.
    """

    path: str
    size: int
    modified_ns: int
    inode: int
    problem: str | None = None


def list_images(folder: Path, globs: Sequence[str] = ()) -> Iterator[ListedImage]:
    """Every file below a folder with an image's extension, sorted by path as the table has it.

    Hidden files and folders are left out. Links to files are followed, links to folders are not, so
    loops do no harm. What has an image's name and is no regular file comes with its problem.

    Args:
        folder: On this machine or remote.
        globs: Shell patterns for the names of the files wanted, instead of the extensions.

    Raises:
        WorkError: A folder cannot be listed; leaving it out would lose images.
    """
    if is_remote(folder):
        return _list_remote(folder, globs)
    return _list_local(os.fspath(folder), globs)


def holds_images(folder: Path, globs: Sequence[str] = ()) -> bool:
    """Whether there is anything to list, told by the first such file that is found.

    Raises:
        WorkError: A folder cannot be listed.
    """
    if is_remote(folder):
        return next(_list_remote(folder, globs), None) is not None
    folders = [os.fspath(folder)]
    while folders:
        place = folders.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif _is_wanted(entry.name, globs) and not entry.is_dir():
                        return True
        except OSError as error:
            raise _cannot_list(place, error.strerror or str(error)) from error
    return False


def _list_local(folder: str, globs: Sequence[str]) -> Iterator[ListedImage]:
    # A stack of its own: a tree may be deeper than Python's. Names alone are held, a folder's at a time.
    stack = [_names(folder, "", globs)]
    while stack:
        if not stack[-1]:
            stack.pop()
            continue
        path = stack[-1].pop()
        place = f"{folder}/{unescape(path)}"
        if path.endswith("/"):
            stack.append(_names(place, path, globs))
        elif (image := _describe(place, path)) is not None:
            yield image


def _names(folder: str, prefix: str, globs: Sequence[str]) -> list[str]:
    """The folders, with a slash at the end, and images of one folder, the last path first."""
    try:
        with os.scandir(folder) as entries:
            found = [
                prefix + escape(entry.name) + ("/" if is_folder else "")
                for entry in entries
                if not entry.name.startswith(".")
                and ((is_folder := entry.is_dir(follow_symlinks=False)) or _is_wanted(entry.name, globs))
            ]
    except OSError as error:
        raise _cannot_list(folder, error.strerror or str(error)) from error
    # With the slash that their paths go on with, folders sort in among files as whole paths do.
    found.sort(reverse=True)
    return found


def _is_wanted(name: str, globs: Sequence[str]) -> bool:
    if globs:
        return any(fnmatchcase(name, pattern) for pattern in globs)
    stem, dot, extension = name.rpartition(".")
    return bool(stem) and dot + extension.lower() in EXTENSIONS


def _describe(place: str, path: str) -> ListedImage | None:
    try:
        facts = os.stat(place)  # noqa: PTH116  # Three times as fast.
    except OSError as error:
        words = {errno.ENOENT: "a link to nothing", errno.ELOOP: "a link to itself"}
        return ListedImage(
            path, 0, 0, 0, words.get(error.errno or 0, error.strerror or "cannot be looked at")
        )
    if stat.S_ISREG(facts.st_mode):
        return ListedImage(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)
    if stat.S_ISDIR(facts.st_mode):
        return None
    return ListedImage(path, 0, 0, 0, _kind(facts.st_mode))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _list_remote(folder: Path, globs: Sequence[str]) -> Iterator[ListedImage]:
    system, root = file_system(folder)
    root = root.rstrip("/")
    stack = [_remote_entries(system, root, "", globs)]
    while stack:
        if not stack[-1]:
            stack.pop()
            continue
        path, size, modified_ns = stack[-1].pop()
        if path.endswith("/"):
            stack.append(_remote_entries(system, f"{root}/{unescape(path)}", path, globs))
        else:
            yield ListedImage(path, size, modified_ns, 0)


def _remote_entries(
    system: Any, folder: str, prefix: str, globs: Sequence[str]
) -> list[tuple[str, int, int]]:
    """Path, size and time of what lies in one remote folder, the last path first."""
    try:
        entries = system.ls(folder.rstrip("/"), detail=True)
    except OSError as error:
        raise _cannot_list(folder, str(error)) from error
    found = []
    for entry in entries:
        name = entry["name"].rstrip("/").rpartition("/")[2]
        is_folder = entry["type"] == "directory"
        # An object store may list a folder among its own contents, as an empty object.
        is_itself = entry["name"].rstrip("/") == folder.rstrip("/")
        if is_itself and is_folder:
            raise _cannot_list(folder, "it holds a folder without a name")
        if is_itself or name.startswith("."):
            continue
        if is_folder or _is_wanted(name, globs):
            path = prefix + escape(name) + ("/" if is_folder else "")
            found.append((path, entry.get("size") or 0, _modified_ns(entry)))
    return sorted(found, reverse=True)


def _modified_ns(entry: dict[str, Any]) -> int:
    """The time of the last change; where a file system tells it in a form of its own, any number that
    changes with it, so that a changed object is a changed listing.
    """
    moment = next((entry[name] for name in _TIMES if entry.get(name)), 0)
    if isinstance(moment, str):
        return int.from_bytes(hashlib.sha256(moment.encode()).digest()[:7], "big")
    seconds = moment.timestamp() if hasattr(moment, "timestamp") else float(moment)
    return int(seconds * 1e9)


def _cannot_list(folder: str, reason: str) -> WorkError:
    return WorkError(
        f"folder {folder} cannot be listed ({reason})",
        "every folder to be readable",
        "Mend its permissions, so that no image is lost.",
    )
