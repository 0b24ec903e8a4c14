"""Stamps of single files at addresses, from listings of their folders: one request tells those of many."""

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets.remote_files import list_remote, remote_stamp
from pixelmill.pipeline.storage import parse_location

if TYPE_CHECKING:
    from upath import UPath


class _Folder(NamedTuple):
    """The files of a folder as hashes, because the names of a million take much memory."""

    names: npt.NDArray[np.int64]
    stamps: npt.NDArray[np.int64]


class RemoteStamps:
    """Looks up stamps; each folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {}

    def of(self, address: str) -> str:
        """The stamp of a file; empty if it does not exist or its file system tells nothing of it.

        Raises:
            RequestError: Its folder cannot be listed.
        """
        place, _, name = address.rpartition("/")
        if place not in self._folders:
            self._folders[place] = _list(place)
        folder = self._folders[place]
        wanted = _hash(name)
        index = int(np.searchsorted(folder.names, wanted))
        if index == len(folder.names) or folder.names[index] != wanted or not folder.stamps[index]:
            return ""
        return f"{int(folder.stamps[index]) & (2**64 - 1):016x}"


def _list(place: str) -> _Folder:
    if place.endswith(":/") or place.startswith(("http://", "https://")):
        return _Folder(np.zeros(0, np.int64), np.zeros(0, np.int64))
    files = [(name, remote_stamp(entry)) for name, entry in list_remote(cast("UPath", parse_location(place)))]
    names = np.array([_hash(name) for name, _ in files], np.int64)
    stamps = np.array([_hash(stamp) if stamp else 0 for _, stamp in files], np.int64)
    order = np.argsort(names)
    return _Folder(names[order], stamps[order])


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
