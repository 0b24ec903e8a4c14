"""The hashes of files read before, so that a file that has not changed is not read again."""

import hashlib
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import write_array
from pixelmill.pipeline.datasets.catalogue import ListedImage

_log = getLogger(__name__)
_ENTRY = np.dtype([("key", "S16"), ("sha256", "S32")])
_NOTHING = np.empty(0, _ENTRY)


class HashCache:
    """Hashes of contents by origin and stamp, in a file of 48 bytes for each; a million need little memory.

    Args:
        path: The file, which need not exist. One that cannot be read counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._seen = bytearray()

    def find(self, images: Sequence[ListedImage]) -> list[str]:
        """The SHA-256 of each image in hexadecimal, empty where it is not known."""
        keys = np.frombuffer(b"".join(map(_key, images)), "S16")
        known = self._known["key"]
        if not len(known):
            return [""] * len(images)
        places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        is_known = known[places] == keys
        content = np.ascontiguousarray(self._known["sha256"][places]).tobytes().hex()
        return [
            content[64 * index : 64 * index + 64] if is_known[index] and image.stamp else ""
            for index, image in enumerate(images)
        ]

    def add(self, image: ListedImage, sha256: str) -> None:
        """Remember a hash, which is kept once `save` is called."""
        if image.stamp:
            self._seen += _key(image) + bytes.fromhex(sha256)

    def save(self, is_complete: bool) -> None:
        """Write the file.

        Args:
            is_complete: Whether all images of the source were added: the others are forgotten then.
        """
        entries = np.frombuffer(bytes(self._seen), _ENTRY)
        if not is_complete:
            entries = np.concatenate([entries, self._known])
        _, first = np.unique(entries["key"], return_index=True)
        write_array(self._path, entries[first])


def _key(image: ListedImage) -> bytes:
    return hashlib.sha256(f"{image.origin}\0{image.stamp}".encode("utf-8", "surrogatepass")).digest()[:16]


def _read(path: Path) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    try:
        entries = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return _NOTHING
    except (OSError, EOFError, ValueError) as error:
        _log.warning("%s cannot be read (%s): all files are read again", path, error)
        return _NOTHING
    return entries if entries.dtype == _ENTRY and entries.ndim == 1 else _NOTHING
