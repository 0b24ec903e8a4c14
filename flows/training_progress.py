"""How far training has come, on Prefect's page: told by the process that trains, through a pipe."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from pipeline.training.watching import TrainingProgress


@contextmanager
def progress_artifact(key: str, description: str) -> Iterator[Callable[[TrainingProgress], None]]:
    """Show a progress bar while the block lasts; hands out what another process may tell how far it is."""
    artifact = create_progress_artifact(0.0, key=key, description=description)
    receiving, sending = Pipe(duplex=False)
    # In this run's context: Prefect has to know whose artifact it is.
    thread = threading.Thread(target=copy_context().run, args=(_show, receiving, artifact, description))
    thread.start()
    try:
        yield sending.send
    finally:
        sending.close()
        thread.join()


def _show(receiving: "Connection[None, TrainingProgress]", artifact: UUID, description: str) -> None:
    while True:
        try:
            progress = receiving.recv()
        except EOFError:
            return
        left = f"{progress.images_per_second:,.0f} images/s, {progress.seconds_left:.0f} s left"
        update_progress_artifact(
            artifact, progress=100 * progress.share, description=f"{description}: {progress}, {left}"
        )
