"""A limit on the memory that this process may take on top of what it has, while a block runs.

The system refuses what goes over it, so that an image which wants too much gets a `MemoryError`, and neither
the process nor the machine pays for it. Where the system has no such limit, on other systems than Linux, the
block runs without one.
"""

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_STATISTICS = Path("/proc/self/statm")
_IS_AVAILABLE = sys.platform == "linux" and _STATISTICS.exists()
_DATA_FIELD = 5
# Options of the GNU C library's `mallopt`, and what they are set to.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE_BLOCK, _LARGEST_RESERVE = 8 << 20, 64 << 20


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
    """What the system counts against the limit and is in use, in bytes.

    The system counts private memory that can be written. Some of it the C library may hold in reserve, after
    an earlier image gave it back: without it an image has the same limit, whatever came before.
    """
    import resource

    counted = int(_STATISTICS.read_bytes().split()[_DATA_FIELD]) * resource.getpagesize()
    return counted - _count_reserve()


class _AllocatorFacts(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@cache
def _prepare_allocator() -> Callable[[], _AllocatorFacts] | None:
    """Have the GNU C library give large blocks back to the system at once; what tells of its reserve."""
    try:
        library = ctypes.CDLL(None)
        find_facts: Callable[[], _AllocatorFacts] = library.mallinfo2
        set_option = library.mallopt
    except (OSError, AttributeError):  # Another C library, or one before 2.33.
        return None
    # By itself it raises the threshold, and a large image that was given back in pieces would stay with it.
    set_option(_MMAP_THRESHOLD, _LARGE_BLOCK)
    set_option(_TRIM_THRESHOLD, _LARGEST_RESERVE)
    find_facts.restype = _AllocatorFacts  # type: ignore[attr-defined]
    return find_facts


def _count_reserve() -> int:
    find_facts = _prepare_allocator()
    return 0 if find_facts is None else int(find_facts().fordblks)


def _get_limit() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)


def _set_limit(limit: tuple[int, int]) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, limit)
