"""A limit on the time that this process stays at one image.

A decoder in C cannot be interrupted, only ended together with its process. One thread of the process watches
the others; when an image takes too long, it calls what takes note of the image, and ends the process.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_TICK = 0.1


class TimeLimit:
    """The limit for the images that one thread works on, one after the other.

    Attributes:
        seconds: How long one image may take. Time in which the whole process stood still does not count.
        take_note: Called with an image's name when it took longer; after that the process ends by SIGKILL.
    """

    def __init__(self, seconds: float, take_note: Callable[[str], None]) -> None:
        self.seconds = seconds
        self.take_note = take_note
        self._current: tuple[str] | None = None
        self._seen: tuple[str] | None = None
        self._ticks = 0

    def begin(self, name: str) -> None:
        """Start counting the time of an image."""
        self._current = (name,)

    def end(self) -> None:
        """Stop counting."""
        self._current = None

    def tick(self) -> None:
        """To be called every tick: count it for the image that is at work, and end the process if due."""
        current = self._current
        # A tuple of its own for each image tells that it is still the same one.
        self._ticks = self._ticks + 1 if current is not None and current is self._seen else 0
        self._seen = current
        if current is not None and self._ticks * _TICK > self.seconds:
            try:
                self.take_note(current[0])
            finally:
                os.kill(os.getpid(), signal.SIGKILL)


class _Watch:
    """The thread that watches all time limits of this process; it starts with the first."""

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
            # The image may be using up the memory at the moment.
            with suppress(MemoryError):
                for limit in tuple(self._limits):
                    limit.tick()


WATCH = _Watch()
"""Of this process."""
