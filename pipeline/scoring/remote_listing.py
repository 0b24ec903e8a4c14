"""Listing of the images below a remote folder, in the order of the table."""

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.file_names import escape, unescape
from pixelmill.pipeline.scoring.skipped import SkippedFiles
from pixelmill.pipeline.storage import file_system

if TYPE_CHECKING:
    from upath import UPath

# The keys under which fsspec's file systems (S3, Azure, Google, local and others) report the modification
# time.
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
RemoteEntry = tuple[str, int, int, str | None]
"""Escaped path, with a trailing slash for a folder; size in bytes; modification time in nanoseconds; why it
cannot be read as an image."""


def walk_remote(
    folder: "UPath", is_wanted: Callable[[str], bool], counts: SkippedFiles
) -> Iterator[RemoteEntry]:
    """List the files below a remote folder whose names are wanted, sorted by path.

    A folder that this user may not list is listed as an entry with a problem, and so is one without a name.

    Raises:
        WorkError: A folder cannot be listed for another reason; skipping it would lose images.
    """
    system, root = file_system(folder)
    root = root.rstrip("/")
    stack = [_entries(system, root, "", is_wanted, counts)]
    while stack:
        if not stack[-1]:
            stack.pop()
            continue
        path, size, modified_ns, problem = stack[-1].pop()
        if path.endswith("/") and problem is None:
            place = f"{root}/{unescape(path)}"
            try:
                stack.append(_entries(system, place, path, is_wanted, counts))
            except PermissionError as error:
                yield path, 0, 0, f"the folder cannot be listed ({error.strerror or error})"
        else:
            yield path, size, modified_ns, problem


def first_remote_folders(folder: "UPath") -> list[str]:
    """The names of a remote folder's immediate subfolders, without hidden ones and clutter."""
    system, root = file_system(folder)
    entries = _entries(system, root.rstrip("/"), "", lambda _: False, SkippedFiles())
    return [unescape(path).rstrip("/") for path, *_ in entries if path.rstrip("/")]


def _entries(
    system: Any, folder: str, prefix: str, is_wanted: Callable[[str], bool], counts: SkippedFiles
) -> list[RemoteEntry]:
    """The entries of one remote folder in descending order of path."""
    place = folder.rstrip("/")
    try:
        entries = system.ls(place, detail=True)
    except PermissionError:
        if prefix:
            raise
        raise _cannot_list(folder, "permission denied") from None
    except OSError as error:
        raise _cannot_list(folder, str(error)) from error
    found: list[RemoteEntry] = []
    for entry in entries:
        if entry["name"].rstrip("/") != place:
            found += _described(entry, prefix, is_wanted, counts)
        elif entry["type"] == "directory":
            found.append((f"{prefix}/", 0, 0, "a folder without a name cannot be listed"))
        # Otherwise it is the empty object by which an object store represents the folder itself.
    return sorted(found, key=lambda item: item[0], reverse=True)


def _described(
    entry: dict[str, Any], prefix: str, is_wanted: Callable[[str], bool], counts: SkippedFiles
) -> list[RemoteEntry]:
    """The entry of a subfolder to list or of a file to score; anything else is counted as skipped."""
    name = entry["name"].rstrip("/").rpartition("/")[2]
    if name.startswith("."):
        counts.count_hidden(name)
    elif entry["type"] == "directory":
        if not counts.count_clutter(name):
            return [(f"{prefix}{escape(name)}/", 0, 0, None)]
    elif is_wanted(name) and not is_clutter(name):
        return [(prefix + escape(name), entry.get("size") or 0, _modified_ns(entry), None)]
    else:
        counts.count_file(name)
    return []


def _modified_ns(entry: dict[str, Any]) -> int:
    """The modification time in nanoseconds.

    Where a file system reports it as text, a hash of the text, so that a changed object changes the listing.
    """
    moment = next((entry[name] for name in _TIMES if entry.get(name)), 0)
    if isinstance(moment, str):
        return int.from_bytes(hashlib.sha256(moment.encode()).digest()[:7], "big")
    seconds = moment.timestamp() if hasattr(moment, "timestamp") else float(moment)
    return int(seconds * 1e9)


def _cannot_list(folder: str, reason: str) -> WorkError:
    return WorkError(
        f"folder {folder} cannot be listed ({reason})",
        "a folder that this user may read",
        "Correct its permissions or choose another folder.",
    )
