"""Reading of untrusted files: regular files only, and up to a size limit."""

import errno
import hashlib
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.locations import content_of, is_remote

_LARGEST_JSON = 256 * 2**20
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Anything else could block, never end, or have side effects.

    Raises:
        OSError: It is a FIFO, a socket, a device or a folder, or cannot be opened.
    """
    # In this mode, opening a FIFO without a writer does not block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{_KINDS.get(kind, 'something else')}, not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_content(path: Path, largest: int) -> bytes:
    """The bytes of a local or remote file.

    Raises:
        OSError: It is not a regular file, cannot be read, or has more than `largest` bytes.
    """
    if is_remote(path):
        return content_of(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(largest + 1) if size <= largest else b""
    if size > largest or len(content) > largest:
        raise OSError(errno.EFBIG, f"{max(size, len(content)):,} bytes, more than {largest:,}", str(path))
    return content


def sha256_of(path: Path) -> str:
    """The SHA-256 of a local or remote file, in hexadecimal.

    Raises:
        OSError: It is not a regular file, or cannot be read.
    """
    with path.open("rb") if is_remote(path) else open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, largest: int = _LARGEST_JSON) -> Any:
    """Read a JSON file of at most `largest` bytes.

    Raises:
        RequestError: The file is missing, too large, or not JSON.
    """
    try:
        return json.loads(read_content(path, largest))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            f"{path} cannot be read ({_reason(error)})",
            "a JSON file written by pixelmill",
            "Check the path, or create the artifact again.",
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
