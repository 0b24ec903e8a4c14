"""The environment variables of a Prefect server and of its worker on this machine."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.storage import Location, absolute

_DATABASE = re.compile(r"(?P<kind>postgresql)(\+asyncpg)?://(?P<rest>.+)", re.DOTALL)
_DAYS_TO_KEEP_RUNS = 30
PAGE_FOLDER = "page"
FOLDER_VARIABLE = "PIXELMILL_SERVER_FOLDER"
"""Inherited by all that a worker starts, so that it is recognized even after its parent was killed."""
# What a user has set takes precedence.
SERVER_DEFAULTS = {
    # Without these, Prefect keeps all runs, and its database grows by 0.6 MB with each.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(_DAYS_TO_KEEP_RUNS * 24 * 3600),
    # In larger batches, a run of many tasks costs the server a quarter of the time.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
    # A limit on concurrent runs survives a restart of the server.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
WORKER_DEFAULTS = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # A missing server is an error, instead of a temporary one that nobody sees.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}


def server_environment(folder: Path, api_url: str, shown_url: str, database: str) -> dict[str, str]:
    """The variables of a server.

    Args:
        folder: The folder of the server's files.
        api_url: The address of its API for programs on this machine.
        shown_url: The address of its API for browsers.
        database: The SQLAlchemy URL of its database.
    """
    return {
        **SERVER_DEFAULTS,
        "PREFECT_SERVER_UI_API_URL": shown_url,
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder.resolve() / PAGE_FOLDER),
        **_inherited(),
        **_common(folder, api_url),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
    }


def worker_environment(folder: Path, api_url: str, store: Location, home: Path) -> dict[str, str]:
    """The variables of a worker, and of programs that use its server.

    Args:
        folder: The folder of the server's files.
        api_url: The address of the server's API.
        store: The artifacts root.
        home: The folder in which the flows run.
    """
    secret = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    return {
        **WORKER_DEFAULTS,
        **({"PREFECT_API_AUTH_STRING": secret} if secret else {}),
        **_inherited(),
        **_common(folder, api_url),
        FOLDER_VARIABLE: str(folder.resolve()),
        "PIXELMILL_HOME": str(home),
        "PIXELMILL_STORE": absolute(store),
    }


def sqlite_url(folder: Path) -> str:
    """The SQLAlchemy URL of the SQLite database in the folder of the server's files."""
    return f"sqlite+aiosqlite:///{folder.resolve() / 'prefect.db'}"


def parse_database(text: str) -> str:
    """The SQLAlchemy URL for Prefect of a PostgreSQL or SQLite database.

    Raises:
        RequestError: It is neither.
    """
    if found := _DATABASE.fullmatch(text):
        return f"postgresql+asyncpg://{found['rest']}"
    if text.startswith("sqlite+aiosqlite:///"):
        return text
    raise RequestError(
        f"`database` {text.partition('://')[0]}://...",
        "postgresql://USER@HOST/DATABASE or sqlite+aiosqlite:///FILE",
        "Correct the option, or leave it out for SQLite in the store.",
    )


def describe_database(url: str) -> str:
    """A database without its user and password."""
    if found := _DATABASE.fullmatch(url):
        return f"PostgreSQL at {found['rest'].rpartition('@')[2].partition('?')[0]}"
    return f"SQLite in {url.removeprefix('sqlite+aiosqlite:///')}"


def run_with_settings(function: str, environment: Mapping[str, str]) -> Any:
    """Call a function `MODULE:NAME` without arguments in a process with these variables.

    Prefect reads its settings when it is imported, so each server needs its own process.

    Returns:
        Its result, which must be valid JSON.

    Raises:
        WorkError: It failed.
    """
    module, name = function.split(":")
    program = f"import json, {module}; print('\\n' + json.dumps({module}.{name}()))"
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode or not lines:
        raise WorkError(
            f"{name} failed ({lines[-1] if lines else 'no output'})",
            "a server that accepts it",
            "Read the log of the server, correct what it says, and run the command again.",
        )
    return json.loads(lines[-1])


def _inherited() -> dict[str, str]:
    """The user's variables, without those that would point a new server to another one's files."""
    return {name: value for name, value in os.environ.items() if name != "PREFECT_PROFILE"}


def _common(folder: Path, api_url: str) -> dict[str, str]:
    return {"PREFECT_HOME": str(folder.resolve() / "home"), "PREFECT_API_URL": api_url}
