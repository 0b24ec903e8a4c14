"""Listing the images below a folder in the order of the table, without holding the list in memory."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pipeline.errors import WorkError
from pipeline.images import EXTENSIONS

_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class ListedImage:
    """One row to come.

    Attributes:
        path: Relative to the folder, escaped where it is not plain text; unique in a listing.
        size: In bytes, as listed.
        modified_ns: Time of the last change in nanoseconds, as listed.
        problem: Why it cannot be an image at all: a pipe, a device, a link to nothing.
    """

    path: str
    size: int
    modified_ns: int
    problem: str | None = None


def list_images(folder: Path) -> Iterator[ListedImage]:
    """Every file below a folder with an image's extension, sorted by path as the table has it.

    Hidden files and folders are left out. Links to files are followed, links to folders are not, so
    loops do no harm. What has an image's name and is no regular file comes with its problem.

    Raises:
        WorkError: A folder cannot be listed; leaving it out would lose images.
    """
    # A stack of its own: a tree may be deeper than Python's.
    stack = [iter(_entries(os.fspath(folder), ""))]
    while stack:
        for path, entry in stack[-1]:
            if path.endswith("/"):
                stack.append(iter(_entries(entry.path, path)))
                break
            image = _describe(entry, path)
            if image is not None:
                yield image
        else:
            stack.pop()


def escape(name: str) -> str:
    """A file name as text. A name that is not text, or that could be taken for an escaped one, is
    percent-escaped; `unescape` gives every name back.
    """
    data = os.fsencode(name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(data, safe=" !#$&'()*+,;=@[]^`{|}")
    if _ESCAPE.search(text) or _CONTROL.search(text):
        text = text.replace("%", "%25")
        return _CONTROL.sub(lambda match: f"%{ord(match[0]):02X}", text)
    return text


def unescape(path: str) -> str:
    """The path on disk that an escaped path stands for."""
    if not _ESCAPE.search(path):
        return path
    return os.fsdecode(unquote_to_bytes(path))


def _entries(folder: str, prefix: str) -> list[tuple[str, "os.DirEntry[str]"]]:
    """The folders, with a slash at the end, and images of one folder in the order of their paths."""
    try:
        with os.scandir(folder) as entries:
            found = [
                (prefix + escape(entry.name) + ("/" if is_folder else ""), entry)
                for entry in entries
                if not entry.name.startswith(".")
                and ((is_folder := entry.is_dir(follow_symlinks=False)) or _is_wanted(entry.name))
            ]
    except OSError as error:
        raise WorkError(
            f"folder {folder} cannot be listed ({error.strerror})",
            "every folder to be readable",
            "Mend its permissions, so that no image is lost.",
        ) from error
    # With the slash that their paths go on with, folders sort in among files as whole paths do.
    return sorted(found, key=lambda pair: pair[0])


def _is_wanted(name: str) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS


def _describe(entry: "os.DirEntry[str]", path: str) -> ListedImage | None:
    try:
        facts = entry.stat()
    except OSError as error:
        words = {errno.ENOENT: "a link to nothing", errno.ELOOP: "a link to itself"}
        problem = words.get(error.errno or 0, error.strerror or "cannot be looked at")
        return ListedImage(path, 0, 0, problem)
    if stat.S_ISDIR(facts.st_mode):
        return None
    if not stat.S_ISREG(facts.st_mode):
        return ListedImage(path, 0, 0, _kind(facts.st_mode))
    return ListedImage(path, facts.st_size, facts.st_mtime_ns)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
