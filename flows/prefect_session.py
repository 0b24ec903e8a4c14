"""What a command's flows need of Prefect: settings, a server that answers, lines on the terminal."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixelmill.flows.commands.console import StageLines
from pixelmill.pipeline.errors import WorkError

_DEFAULTS = {
    # The console gets our lines; Prefect's page gets everything, the pipeline's warnings too.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "pixelmill",
    # Where the server is away, Prefect's threads show each event that they could not send.
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
}


class ServerLostError(WorkError):
    """The server stopped answering during a run; Prefect's threads go on trying to reach it for minutes."""


@contextmanager
def prefect_session() -> Iterator[None]:
    """Have flows in the block run on the server of the user's settings, or on one that ends with the command.

    Raises:
        WorkError: There is no server and none can be started.
        ServerLostError: It stopped answering.
    """
    _require_home()
    # As for the events: a log that could not be sent is not worth a line on the terminal.
    logging.raiseExceptions = False
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import httpx
    import prefect.main  # noqa: F401  # Sets its logging up, which must be done before ours.
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
            f"the Prefect server at {url} stopped answering ({error or type(error).__name__})",
            "it to answer until the run has ended",
            "What is registered and promoted stays, see `pixelmill models`; when it answers, run the same "
            "command again: training resumes after the last epoch.",
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
    except (OSError, RuntimeError) as error:  # The latter where the user has no home at all.
        raise WorkError(
            f"Prefect cannot write to the folder that {variable} names ({error})",
            "a folder for its database",
            "Name one that this user may write to: PREFECT_HOME=/tmp/prefect.",
        ) from error


def _require_server() -> str | None:
    """The address of the settings' server, which answers; None where one is to be started, and may be."""
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
            f"no Prefect server answers at {url or 'any address'} ({trouble})",
            "the server that PREFECT_API_URL names",
            "Start it with `prefect server start`, or unset PREFECT_API_URL to run without one.",
        )
    return str(url)
