"""Locks between what reads tensors and what removes them: on their folder, so that nothing is written.

A lock ends with its process, however that ends.
"""

import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep the segments of a folder from being removed during the block; the folder exists."""
    descriptor = _open(folder)
    try:
        _share(descriptor)
        yield
    finally:
        os.close(descriptor)


def read_while_alive(reader: object, folder: Path) -> None:
    """Keep the segments of a folder, which exists, from being removed as long as an object is used."""
    descriptor = _open(folder)
    weakref.finalize(reader, os.close, descriptor)
    _share(descriptor)


@contextmanager
def removing(folder: Path) -> Iterator[bool]:
    """Keep others from reading a folder during the block.

    Yields:
        Whether nobody reads it now; if somebody does, nothing may be removed.
    """
    descriptor = _open(folder)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Some network file systems cannot lock a folder: there nothing is ever removed.
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _share(descriptor: int) -> None:
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)
