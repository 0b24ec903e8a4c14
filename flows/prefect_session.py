"""Preparing Prefect for a command's flows: settings, a running server, and terminal output."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixelmill.flows.commands.console import StageLines
from pixelmill.pipeline.errors import WorkError

_DEFAULTS = {
    # The terminal shows pixelmill's lines only; Prefect's UI gets everything, including warnings.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "pixelmill",
    # If the server is unavailable, Prefect's threads would log every event that they cannot send.
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
}


class ServerLostError(WorkError):
    """The server stopped responding during a run; Prefect's threads keep trying to reach it for minutes."""


@contextmanager
def prefect_session() -> Iterator[None]:
    """Run flows in the block on the configured server, or on a temporary one that ends with the command.

    Raises:
        WorkError: The configured server does not respond, or none can be started.
        ServerLostError: The server stopped responding.
    """
    _require_home()
    # Logs that cannot be sent to the server should not be reported on the terminal.
    logging.raiseExceptions = False
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import httpx
    import prefect.main  # noqa: F401  # Configures Prefect's logging, which must precede ours.
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pixelmill.flows.temporary_server import start_server

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addHandler(StageLines())
    url = _require_server() or start_server()
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise ServerLostError(
            f"the Prefect server at {url} stopped responding ({error or type(error).__name__})",
            "a server that responds until the run has ended",
            "Registered and promoted models are unchanged, see `pixelmill models`. Once the server responds, "
            "run the same command again: training resumes after the last epoch.",
        ) from error


def _require_home() -> None:
    if os.environ.get("PREFECT_API_URL"):
        return
    named = os.environ.get("PREFECT_HOME")
    variable = "PREFECT_HOME" if named else "HOME"
    try:
        home = Path(named or "~/.prefect").expanduser()
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError if the user has no home folder.
        raise WorkError(
            f"Prefect cannot write to the folder in {variable} ({error})",
            "a writable folder for its database",
            "Choose a folder that this user can write to: PREFECT_HOME=/tmp/prefect.",
        ) from error


def _require_server() -> str | None:
    """The URL of the configured server, which responds; None if a temporary one can be started."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE
    from prefect.settings.context import get_current_settings

    from pixelmill.flows.prefect_database import require_database

    url = PREFECT_API_URL.value()
    trouble: object = "PREFECT_API_URL is not set"
    if url:
        with get_client(sync_client=True) as client:
            trouble = client.api_healthcheck()
    elif PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        database = get_current_settings().server.database.connection_url
        if database is not None:
            require_database(database.get_secret_value())
        return None
    if trouble is not None:
        raise WorkError(
            f"no Prefect server responds at {url or 'any address'} ({trouble})",
            "a server at PREFECT_API_URL",
            "Start it with `prefect server start`, or unset PREFECT_API_URL to run without one.",
        )
    return str(url)
