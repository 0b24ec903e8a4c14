"""Marking a bundle on this machine as in use, so that it is not removed meanwhile.

The mark is a shared lock (`flock`) on the bundle's manifest, which the system releases with the process.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelmill.pipeline.artifacts import MANIFEST

_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_IN_USE: dict[Path, int] = {}


def keep_in_use(bundle: Path) -> None:
    """Mark a bundle as in use until this process ends; without effect on file systems without locks."""
    if bundle in _IN_USE:
        return
    with suppress(OSError):
        descriptor = os.open(bundle / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        _IN_USE[bundle] = descriptor


@contextmanager
def if_unused(bundle: Path) -> Iterator[bool]:
    """Whether no process uses a bundle; during the block, none can begin to."""
    try:
        descriptor = os.open(bundle / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _is_unused(descriptor)
    finally:
        os.close(descriptor)


def _is_unused(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD  # Without locks, no one can say that it is in use.
    return True
