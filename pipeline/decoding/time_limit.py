"""A limit on the time that this process spends on one image.

A decoder in C cannot be interrupted, only killed together with its process. A watchdog thread records an
image that takes too long and then kills the process.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_TICK = 0.1


class TimeLimit:
    """The time limit for the images that one thread processes in turn.

    Attributes:
        seconds: The time limit per image. Time during which the whole process was stopped does not count.
        take_note: Called with the name of an image over the limit, before the process is killed by SIGKILL.
    """

    def __init__(self, seconds: float, take_note: Callable[[str], None]) -> None:
        self.seconds = seconds
        self.take_note = take_note
        self._current: tuple[str] | None = None
        self._seen: tuple[str] | None = None
        self._ticks = 0

    def begin(self, name: str) -> None:
        """Start timing an image."""
        self._current = (name,)

    def end(self) -> None:
        """Stop timing."""
        self._current = None

    def tick(self) -> None:
        """Count a tick for the current image, and kill the process if it is over the limit."""
        current = self._current
        # Each image has its own tuple, so identity shows whether it is still the same image.
        self._ticks = self._ticks + 1 if current is not None and current is self._seen else 0
        self._seen = current
        if current is not None and self._ticks * _TICK > self.seconds:
            try:
                self.take_note(current[0])
            finally:
                os.kill(os.getpid(), signal.SIGKILL)


class _Watch:
    """The watchdog thread for all time limits of this process; it starts with the first limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: list[TimeLimit] = []
        self._is_running = False

    def add(self, limit: TimeLimit) -> None:
        with self._lock:
            self._limits.append(limit)
            if not self._is_running:
                threading.Thread(target=self._run, name="image time limit", daemon=True).start()
                self._is_running = True

    def remove(self, limit: TimeLimit) -> None:
        with self._lock, suppress(ValueError):
            self._limits.remove(limit)

    def _run(self) -> None:
        while True:
            time.sleep(_TICK)
            # The image may have exhausted the memory limit at this moment.
            with suppress(MemoryError):
                for limit in tuple(self._limits):
                    limit.tick()


WATCH = _Watch()
"""The watchdog of this process."""
