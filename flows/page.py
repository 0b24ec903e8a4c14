"""Artifacts on Prefect's page. A run never waits for the server, and never fails, because of one."""

import logging
from collections.abc import Callable
from contextvars import copy_context
from threading import Event, Thread
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

_SECONDS_TO_WAIT = 10.0
_trouble = Event()
"""Set when the server first was in trouble in this process: that is said once."""
_logger = logging.getLogger("pixelmill.pipeline.page")


def show_table(key: str, table: list[dict[str, Any]], description: str) -> None:
    """Show a table on the run's page, if the server takes it."""
    _publish(lambda: create_table_artifact(key=key, table=table, description=description))


def show_markdown(key: str, markdown: str, description: str) -> None:
    """Show a text on the run's page, if the server takes it."""
    _publish(lambda: create_markdown_artifact(key=key, markdown=markdown, description=description))


def start_in_background(work: Callable[[], object]) -> Thread:
    """Run what asks the server in a thread, in this run's context; its first error is a warning."""
    # Prefect has to know whose artifact it is.
    thread = Thread(target=copy_context().run, args=(_survive, work), daemon=True)
    thread.start()
    return thread


def wait_for(thread: Thread) -> None:
    """Wait for a thread, but only for some seconds, and no more once the server was in trouble."""
    if not _trouble.is_set():
        thread.join(_SECONDS_TO_WAIT)
        if thread.is_alive():
            _warn(f"no answer in {_SECONDS_TO_WAIT:.0f} s")


def _publish(work: Callable[[], object]) -> None:
    wait_for(start_in_background(work))


def _survive(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001  # Whatever a client raises, it is not the run's trouble.
        _warn(" ".join(str(error).split()) or type(error).__name__)


def _warn(trouble: str) -> None:
    if not _trouble.is_set():
        _trouble.set()
        _logger.warning("Prefect's page will lack some of what this run has to show (%s)", trouble)
