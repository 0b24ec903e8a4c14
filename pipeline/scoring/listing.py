"""Listing of the images below a folder in the order of the table, without holding the list in memory."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.file_names import escape, unescape
from pixelmill.pipeline.images import EXTENSIONS
from pixelmill.pipeline.scoring.remote_listing import first_remote_folders, walk_remote
from pixelmill.pipeline.scoring.skipped import SkippedFiles
from pixelmill.pipeline.storage import Location, is_remote
from pixelmill.pipeline.storage.deep_paths import scan_folder, stat_file

if TYPE_CHECKING:
    from upath import UPath

__all__ = ["ListedImage", "escape", "first_folders", "holds_images", "list_images", "unescape"]
# These errors are about the machine, not about the folder being listed.
_MACHINE_TROUBLE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_Entry = os.DirEntry[str]
_GUESSED_BYTES = 128 << 10
UNKNOWN_SIZE = -1
"""The size of a file that was not looked at when it was listed."""


class ListedImage(NamedTuple):
    """One image to score.

    Attributes:
        path: Relative to the folder, escaped where it is not plain text; unique in a listing. A trailing
            slash marks a folder that cannot be listed.
        size: Size in bytes at the time of listing; `UNKNOWN_SIZE` for an address in a list.
        modified_ns: Modification time in nanoseconds at the time of listing.
        inode: Inode number; 0 where there is none.
        problem: Why it cannot be read as an image: a pipe, a device, a broken link. It may begin with the
            failure code of its row and a colon.
    """

    path: str
    size: int
    modified_ns: int
    inode: int
    problem: str | None = None

    @property
    def expected_bytes(self) -> int:
        """Its size in bytes, or a guess."""
        return _GUESSED_BYTES if self.size == UNKNOWN_SIZE else self.size


def list_images(
    folder: Location, globs: Sequence[str] = (), skipped: SkippedFiles | None = None
) -> Iterator[ListedImage]:
    """List the files with an image extension below a folder, sorted by path in the order of the table.

    Hidden files and folders are skipped, and so are the files that operating systems leave behind. Links to
    files are followed; links to folders are not, so cycles do no harm. An entry with an image extension that
    is not a regular file is listed with its problem, and so is a folder that cannot be listed.

    Args:
        folder: A local or remote folder.
        globs: Shell patterns for the file names to list, instead of the image extensions.
        skipped: Updated with what has been skipped so far.

    Raises:
        WorkError: The folder itself cannot be listed.
    """
    return _listing_of(folder).images(globs, SkippedFiles() if skipped is None else skipped)


def holds_images(folder: Location, globs: Sequence[str] = ()) -> bool:
    """Whether there is anything to list. Stops at the first image found.

    Raises:
        WorkError: The folder itself cannot be listed.
    """
    return _listing_of(folder).holds_images(globs)


def first_folders(folder: Location) -> Iterator[str]:
    """The names of the immediate subfolders in any order, without hidden ones and clutter.

    Raises:
        WorkError: The folder cannot be listed.
    """
    return _listing_of(folder).first_folders()


def is_wanted(name: str, globs: Sequence[str]) -> bool:
    """Whether a file of this name is to be scored."""
    if globs:
        return any(fnmatchcase(name, pattern) for pattern in globs)
    stem, dot, extension = name.rpartition(".")
    return bool(stem) and dot + extension.lower() in EXTENSIONS


class _Listing(Protocol):
    """The ways in which a folder is listed; the public functions document them."""

    def images(self, globs: Sequence[str], counts: SkippedFiles) -> Iterator[ListedImage]: ...

    def holds_images(self, globs: Sequence[str]) -> bool: ...

    def first_folders(self) -> Iterator[str]: ...


def _listing_of(folder: Location) -> _Listing:
    # A disk has links, pipes and names that are not text; an object store returns pages of names with sizes.
    return _RemoteListing(folder) if is_remote(folder) else _LocalListing(os.fspath(folder))


@dataclass(frozen=True)
class _RemoteListing:
    folder: "UPath"

    def images(self, globs: Sequence[str], counts: SkippedFiles) -> Iterator[ListedImage]:
        found = walk_remote(self.folder, lambda name: is_wanted(name, globs), counts)
        return (ListedImage(path, size, modified, 0, problem) for path, size, modified, problem in found)

    def holds_images(self, globs: Sequence[str]) -> bool:
        return next(self.images(globs, SkippedFiles()), None) is not None

    def first_folders(self) -> Iterator[str]:
        return iter(first_remote_folders(self.folder))


@dataclass(frozen=True)
class _LocalListing:
    folder: str

    def images(self, globs: Sequence[str], counts: SkippedFiles) -> Iterator[ListedImage]:
        return _list_local(self.folder, globs, counts)

    def holds_images(self, globs: Sequence[str]) -> bool:
        folders, ignored = [self.folder], SkippedFiles()
        while folders:
            place = folders.pop()
            try:
                with scan_folder(place) as entries:
                    for entry in entries:
                        kind = _kind_of(entry, globs, ignored)
                        if kind == "folder":
                            folders.append(f"{place}/{entry.name}")
                        elif kind == "image" and not _is_folder(entry):
                            return True
            except OSError as error:
                _require_subfolder(self.folder, place, error)
                return True
        return False

    def first_folders(self) -> Iterator[str]:
        ignored = SkippedFiles()
        try:
            with scan_folder(self.folder) as entries:
                yield from (entry.name for entry in entries if _kind_of(entry, (), ignored) == "folder")
        except OSError as error:
            raise _cannot_list(self.folder, error.strerror or str(error)) from error


def _list_local(folder: str, globs: Sequence[str], counts: SkippedFiles) -> Iterator[ListedImage]:
    # An explicit stack, because a tree may be deeper than Python's recursion limit. It holds only the names
    # in the folders from the root to the current one.
    stack: list[list[str] | ListedImage] = [_names(folder, folder, "", globs, counts)]
    while stack:
        names = stack[-1]
        if isinstance(names, ListedImage):
            yield names
            stack.pop()
        elif not names:
            stack.pop()
        else:
            path = names.pop()
            place = f"{folder}/{unescape(path)}"
            if path.endswith("/"):
                stack.append(_names(folder, place, path, globs, counts))
            elif (image := describe_file(place, path)) is not None:
                yield image
            else:
                counts.linked_folders += 1


def _names(
    root: str, folder: str, prefix: str, globs: Sequence[str], counts: SkippedFiles
) -> list[str] | ListedImage:
    """The paths of a folder's subfolders, with a trailing slash, and images, in descending order.

    For a folder that cannot be listed, its own row instead.
    """
    found = []
    try:
        with scan_folder(folder) as entries:
            for entry in entries:
                kind = _kind_of(entry, globs, counts)
                if kind is not None:
                    found.append(prefix + escape(entry.name) + ("/" if kind == "folder" else ""))
    except OSError as error:
        _require_subfolder(root, folder, error)
        reason = error.strerror or str(error)
        return ListedImage(prefix, 0, 0, 0, f"the folder cannot be listed ({reason})")
    # With their trailing slash, folders sort among files in the order of full paths.
    found.sort(reverse=True)
    return found


def _kind_of(entry: _Entry, globs: Sequence[str], counts: SkippedFiles) -> str | None:
    """`folder` for a subfolder to list, `image` for a file to score; anything else is counted as skipped."""
    name = entry.name
    if name.startswith("."):
        counts.count_hidden(name)
    elif entry.is_dir(follow_symlinks=False):
        if not counts.count_clutter(name):
            return "folder"
    elif is_wanted(name, globs) and not (globs and is_clutter(name)):
        return "image"
    elif entry.is_symlink() and _is_folder(entry):
        counts.linked_folders += 1
    else:
        counts.count_file(name)
    return None


def _is_folder(entry: _Entry) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def _require_subfolder(root: str, folder: str, error: OSError) -> None:
    """Accept that a subfolder cannot be listed, so that it becomes a failed row.

    Raises:
        WorkError: The folder to score cannot be listed either.
        OSError: The machine has run out of memory or file descriptors.
    """
    if error.errno in _MACHINE_TROUBLE:
        raise error
    try:
        if folder == root:
            raise error
        os.scandir(root).close()
    except OSError as reason:
        raise _cannot_list(root, reason.strerror or str(reason)) from error


def describe_file(place: str, path: str) -> ListedImage | None:
    """The listing entry of a file; None for a link to a folder."""
    try:
        facts = stat_file(place)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return ListedImage(path, 0, 0, 0)  # Reading the file will report the error.
        problems = {errno.ENOENT: "a broken link", errno.ELOOP: "a link to itself"}
        problem = problems.get(error.errno or 0, error.strerror or "cannot be accessed")
        return ListedImage(path, 0, 0, 0, problem)
    if stat.S_ISREG(facts.st_mode):
        return ListedImage(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)
    if stat.S_ISDIR(facts.st_mode):
        return None
    return ListedImage(path, 0, 0, 0, _special_kind(facts.st_mode))


def _special_kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _cannot_list(folder: str, reason: str) -> WorkError:
    return WorkError(
        f"folder {folder} cannot be listed ({reason})",
        "a folder that this user may read",
        "Correct its permissions or choose another folder.",
    )
