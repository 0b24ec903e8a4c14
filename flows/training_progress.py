"""Showing training progress in Prefect's UI, as reported by the training process through a pipe."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import cast
from uuid import UUID

from humanize import naturaldelta
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from pixelmill.flows.page import start_in_background, wait_for
from pixelmill.pipeline.training.callbacks import TrainingProgress

_SECONDS_BETWEEN_LOOKS = 0.5


@contextmanager
def progress_artifact(key: str, description: str) -> Iterator[Callable[[TrainingProgress], None]]:
    """Show a progress bar during the block; yields the function with which a process reports its progress.

    The pipe is always read, even if Prefect's server does not respond, so reporting never blocks.
    """
    receiving, sending = Pipe(duplex=False)
    newest = _Newest()
    is_over = threading.Event()
    reader = threading.Thread(target=_read, args=(receiving, newest, is_over), daemon=True)
    reader.start()
    display = start_in_background(lambda: _show(newest, key, description))
    try:
        yield sending.send
    finally:
        sending.close()
        is_over.set()
        reader.join()
        wait_for(display)


class _Newest:
    """Holds the latest reported progress; older reports are dropped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._progress: TrainingProgress | None = None
        self._ended = False

    def put(self, progress: TrainingProgress) -> None:
        with self._changed:
            self._progress = progress
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self) -> TrainingProgress | None:
        """Wait for the next progress; None once there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._progress is not None or self._ended)
            progress, self._progress = self._progress, None
            return progress


def _read(receiving: "Connection[None, TrainingProgress]", newest: _Newest, is_over: threading.Event) -> None:
    # If the process dies before it takes its end of the pipe, a copy stays open, and no end of file comes.
    with suppress(EOFError, OSError):
        while True:
            if receiving.poll(_SECONDS_BETWEEN_LOOKS):
                newest.put(receiving.recv())
            elif is_over.is_set():
                break
    newest.end()


def _show(newest: _Newest, key: str, description: str) -> None:
    artifact = cast("UUID", create_progress_artifact(0.0, key=key, description=description))
    while progress := newest.take():
        left = f"{progress.images_per_second:,.0f} images/s, {naturaldelta(progress.seconds_left)} left"
        update_progress_artifact(
            artifact, progress=100 * progress.share, description=f"{description}: {progress}, {left}"
        )
