"""A limit on the additional memory that this process may allocate during a block.

Allocations beyond the limit fail, so that an image that needs too much memory raises a `MemoryError` without
harm to the process or the machine. Only Linux supports this; on other systems the block runs without a limit.
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
# Options of glibc's `mallopt`, and their values in bytes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE_BLOCK, _LARGEST_RESERVE = 8 << 20, 32 << 20


class MemoryLimit:
    """The memory limit of this process. The allowances of blocks in different threads add up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._allowances: list[int] = []
        self._used = 0
        self._normal = (-1, -1)

    @contextmanager
    def allowing(self, size: int) -> Iterator[None]:
        """Limit the block to `size` bytes of additional memory."""
        if not _IS_AVAILABLE:
            yield
            return
        with self._lock:
            if not self._allowances:
                _return_large_blocks()
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

    def remeasure(self) -> int:
        """Restart the limit from the memory that the process uses now.

        Returns:
            The change in used memory since it was last measured, in bytes.
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
"""The one limit of this process, as the system limits all its threads together."""


def _used_memory() -> int:
    """The memory that counts against the limit, which is private and writable, in bytes."""
    import resource

    return int(_STATISTICS.read_bytes().split()[_DATA_FIELD]) * resource.getpagesize()


@cache
def _return_large_blocks() -> None:
    """Make glibc return large blocks to the system at once.

    By default, glibc raises its threshold for large blocks up to 32 MB and keeps smaller ones for reuse. The
    limit on an image would then depend on what was decoded before it.
    """
    with suppress(OSError, AttributeError):  # The C library is not glibc.
        set_option = ctypes.CDLL(None).mallopt
        set_option(_MMAP_THRESHOLD, _LARGE_BLOCK)
        set_option(_TRIM_THRESHOLD, _LARGEST_RESERVE)


def _get_limit() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)


def _set_limit(limit: tuple[int, int]) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, limit)
