"""`pixelmill up`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json, shown
from pixelmill.flows.extras import require_prefect
from pixelmill.flows.local_server import RunningServer, ServerRequest, start_server
from pixelmill.flows.server_api import ServerApi
from pixelmill.flows.server_record import server_folder
from pixelmill.flows.server_settings import parse_database
from pixelmill.pipeline.progress import is_quiet
from pixelmill.pipeline.storage import Location

Home = Annotated[
    Path,
    typer.Option("--home", envvar="PIXELMILL_HOME", help="The folder in which the worker runs the flows."),
]


def up(
    port: Annotated[
        int,
        typer.Option(
            "--port", envvar="PREFECT_SERVER_API_PORT", min=1, max=65535, help="The port of Prefect's server."
        ),
    ] = 4200,
    host: Annotated[
        str, typer.Option("--host", help="The address it listens on; another than loopback needs a password.")
    ] = "127.0.0.1",
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            envvar=["PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"],
            help="postgresql://USER@HOST/DATABASE; default: SQLite in the store.",
            show_envvar=False,
        ),
    ] = None,
    store: Store = DEFAULT_STORE,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Start Prefect's server and a worker on this machine, with the deployments of this folder."""
    require_prefect()
    check_store(store)
    request = ServerRequest(store, home.resolve(), host, port, parse_database(database) if database else None)
    running = start_server(request, say)
    if as_json:
        print_json(_describe(running, store))
    else:
        _print(running, store)


def say(line: str) -> None:
    """Print what is being done."""
    if not is_quiet():
        print(line, file=sys.stderr, flush=True)


def _describe(running: RunningServer, store: Location) -> dict[str, Any]:
    record = running.record
    return {
        "state": "running" if running.was_running else "started",
        "page": ServerApi(record.api_url).page,
        "api": record.api_url,
        "database": record.database,
        "home": record.home,
        "logs": str(server_folder(store)),
        "processes": {name: process.pid for name, process in record.processes.items()},
        "deployments": list(running.deployments),
        "automations": list(running.automations),
    }


def _print(running: RunningServer, store: Location) -> None:
    record = running.record
    processes = ", ".join(f"{name} {process.pid}" for name, process in record.processes.items())
    options = "" if store == DEFAULT_STORE else f" --store {shown(store)}"
    lines = [
        *(["It runs already; nothing was started."] if running.was_running else []),
        f"page         {ServerApi(record.api_url).page}",
        f"processes    {processes}; their logs are in {shown(server_folder(store))}",
        f"database     {record.database}",
        *([f"deployments  {', '.join(running.deployments)}"] if running.deployments else []),
        *([f"automations  {', '.join(running.automations)}"] if running.automations else []),
        f"for others   export PREFECT_API_URL={record.api_url}",
        f"next         pixelmill status{options}; pixelmill down{options}",
    ]
    print("\n".join(lines))
