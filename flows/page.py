"""Artifacts in Prefect's UI. Publishing one never blocks a run for long, and never fails it."""

import logging
from collections.abc import Callable
from contextvars import copy_context
from threading import Event, Thread
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

_SECONDS_TO_WAIT = 10.0
_trouble = Event()
"""Set when publishing first failed in this process, which is reported only once."""
_logger = logging.getLogger("pixelmill.pipeline.page")


def show_table(key: str, table: list[dict[str, Any]], description: str) -> None:
    """Publish a table in Prefect's UI, if the server accepts it."""
    _publish(lambda: create_table_artifact(key=key, table=table, description=description))


def show_markdown(key: str, markdown: str, description: str) -> None:
    """Publish a Markdown text in Prefect's UI, if the server accepts it."""
    _publish(lambda: create_markdown_artifact(key=key, markdown=markdown, description=description))


def start_in_background(work: Callable[[], object]) -> Thread:
    """Run a request to the server in a thread; its first error becomes a warning."""
    # The context tells Prefect which run the artifact belongs to.
    thread = Thread(target=copy_context().run, args=(_survive, work), daemon=True)
    thread.start()
    return thread


def wait_for(thread: Thread) -> None:
    """Wait a few seconds for a thread, unless the server has already failed."""
    if not _trouble.is_set():
        thread.join(_SECONDS_TO_WAIT)
        if thread.is_alive():
            _warn(f"no response in {_SECONDS_TO_WAIT:.0f} s")


def _publish(work: Callable[[], object]) -> None:
    wait_for(start_in_background(work))


def _survive(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001  # No error of the client may fail the run.
        _warn(" ".join(str(error).split()) or type(error).__name__)


def _warn(trouble: str) -> None:
    if not _trouble.is_set():
        _trouble.set()
        _logger.warning("some artifacts of this run will be missing in Prefect's UI (%s)", trouble)
