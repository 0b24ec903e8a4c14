"""A limit on the memory that this process may take on top of what it has, while a block runs.

The system refuses what goes over it, so that an image which wants too much gets a `MemoryError`, and neither
the process nor the machine pays for it. Where the system has no such limit, on other systems than Linux, the
block runs without one.
"""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_STATISTICS = Path("/proc/self/statm")
_IS_AVAILABLE = sys.platform == "linux" and _STATISTICS.exists()
_DATA_FIELD = 5
# Options of the GNU C library's `mallopt`, and what they are set to.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE_BLOCK, _LARGEST_RESERVE = 8 << 20, 32 << 20


class MemoryLimit:
    """The limit of one process; its threads share it, and each may take what its own block allows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._allowances: list[int] = []
        self._used = 0
        self._normal = (-1, -1)

    @contextmanager
    def allowing(self, size: int) -> Iterator[None]:
        """Let this process take so many more bytes of memory in the block, and no more."""
        if not _IS_AVAILABLE:
            yield
            return
        with self._lock:
            if not self._allowances:
                _give_large_blocks_back()
                self._normal = _get_limit()
                self._used = _used_memory()
            self._allowances.append(size)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._allowances.remove(size)
                if self._allowances:
                    self._apply()
                else:
                    _set_limit(self._normal)

    def measure_anew(self) -> int:
        """Count what the process has taken meanwhile as no part of what it may still take.

        Returns:
            How many bytes that is.
        """
        with self._lock:
            if not self._allowances:
                return 0
            before, self._used = self._used, _used_memory()
            self._apply()
            return self._used - before

    def _apply(self) -> None:
        soft, hard = self._normal
        wanted = self._used + sum(self._allowances)
        allowed = [limit for limit in (soft, hard) if limit >= 0]
        _set_limit((min([wanted, *allowed]), hard))


MEMORY_LIMIT = MemoryLimit()
"""Of this process: the system knows one for all its threads."""


def _used_memory() -> int:
    """What the system counts against the limit: private memory that can be written, in bytes."""
    import resource

    return int(_STATISTICS.read_bytes().split()[_DATA_FIELD]) * resource.getpagesize()


@cache
def _give_large_blocks_back() -> None:
    """Have the GNU C library give large blocks back to the system at once, so that an image has the same
    limit whatever was decoded before it.

    By itself it raises the size of what is large, up to 32 MB. The memory of an image that was kept in pieces
    below that would stay with the process, and the next image would have as much more.
    """
    with suppress(OSError, AttributeError):  # Another C library.
        set_option = ctypes.CDLL(None).mallopt
        set_option(_MMAP_THRESHOLD, _LARGE_BLOCK)
        set_option(_TRIM_THRESHOLD, _LARGEST_RESERVE)


def _get_limit() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)


def _set_limit(limit: tuple[int, int]) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, limit)
