"""Listing of the folders and files at an address, as `image_files` does for a folder on this machine."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pixelmill.pipeline.datasets.image_files import FoundFile, exclusion_reason, kind_reason
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import Location, file_system, is_remote_error

if TYPE_CHECKING:
    from upath import UPath

NAMELESS = "folders without a name"
# What fsspec's file systems call a hash or version of the content, and the time of modification.
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")


def walk_remote_images(folder: "UPath") -> Iterator[FoundFile]:
    """Everything below a remote folder: the files of each folder by name, then its folders.

    Raises:
        RequestError: A folder cannot be listed; skipping it would change the dataset.
    """
    system, root = file_system(folder)
    root = root.rstrip("/")
    stack = [""]
    while stack:
        name = stack.pop()
        prefix = f"{name}/" if name else ""
        folders = []
        for last, entry in _entries(system, f"{root}/{name}".rstrip("/")):
            if not last:
                yield FoundFile(prefix, NAMELESS)
            elif reason := exclusion_reason(last):
                yield FoundFile(prefix + last, reason)
            elif entry["type"] == "directory":
                folders.append(prefix + last)
            else:
                yield FoundFile(prefix + last, kind_reason(last), remote_stamp(entry))
        stack += reversed(folders)


def list_remote_folders(folder: "UPath") -> "list[Location]":
    """The subfolders of a remote folder by name; hidden folders and clutter are left out.

    Raises:
        RequestError: The folder cannot be listed.
    """
    return [
        folder / last
        for last, entry in list_remote(folder)
        if last and entry["type"] == "directory" and not exclusion_reason(last)
    ]


def list_remote(folder: "UPath") -> list[tuple[str, dict[str, Any]]]:
    """The entries of a remote folder by name, as fsspec describes them; empty if it does not exist.

    Raises:
        RequestError: The folder cannot be listed.
    """
    system, root = file_system(folder)
    return _entries(system, root.rstrip("/"))


def remote_stamp(entry: dict[str, Any]) -> str:
    """A text that changes when the content of a remote file changes; empty if nothing is known of it."""
    version = next((entry[key] for key in _VERSIONS if entry.get(key)), None)
    version = version or next((entry[key] for key in _TIMES if entry.get(key)), None)
    if version is None:
        return ""
    return f"{entry.get('size')}-{str(version).strip(chr(34))}"


def _entries(system: Any, place: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        entries = system.ls(place, detail=True)
    except FileNotFoundError:
        return []
    except Exception as error:
        if not isinstance(error, OSError) and not is_remote_error(error):
            raise
        raise RequestError(
            f"{system.unstrip_protocol(place)} cannot be listed ({str(error) or type(error).__name__})",
            "a folder that exists and that this user may list",
            "Check the address and the credentials.",
        ) from error
    found = []
    for entry in entries:
        name = entry["name"].rstrip("/")
        if name != place.rstrip("/"):
            found.append((name.rpartition("/")[2], entry))
        elif entry["type"] == "directory":
            found.append(("", entry))
        # Otherwise it is the empty object by which an object store represents the folder itself.
    return sorted(found, key=lambda item: item[0])
