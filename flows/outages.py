"""Waiting for Prefect's server, so that a run whose work has ended can report it."""

import logging
import time

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

_SECONDS_TO_WAIT = 900.0
_SECONDS_BETWEEN_LOOKS = 2.0
_log = logging.getLogger(__name__)


def wait_for_server() -> None:
    """Return once the server responds, or after a quarter of an hour.

    Prefect's client tries for about a minute to report a state, and fails the run if the server is away for
    longer, whatever its work came to.
    """
    if not PREFECT_API_URL.value():
        return  # The server is in this process.
    deadline = time.monotonic() + _SECONDS_TO_WAIT
    is_told = False
    while not _responds() and time.monotonic() < deadline:
        if not is_told:
            _log.warning(
                "the work has ended, but Prefect's server does not respond: waiting to report the end"
            )
            is_told = True
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _responds() -> bool:
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
        return client.api_healthcheck() is None
