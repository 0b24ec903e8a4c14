"""Opening of untrusted files: regular files only."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from pixelmill.pipeline.storage.deep_paths import open_file

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
    descriptor = open_file(os.fspath(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{_KINDS.get(kind, 'something else')}, not a regular file", str(path))
    return os.fdopen(descriptor, "rb")
